// TypeScript of a page that has loaded holdfast.js by a script tag and uses the global `holdfast`.

const watching = holdfast.watch("https://push.example.com", "key", {
  last: 0,
  transport: "socket",
  wait: 25,
  giveUpAfter: 300,
  nonce: "n",
  onstatus(value, answer) {
    const version: number = answer.version;
    const code: 0 = answer.code;
    console.log(value, version, code, answer.final);
  },
  ongone: (answer) => console.log(answer.message),
  onerror: (message, answer) => console.log(message.length, answer?.code),
  onstate(state, answer) {
    const known: "waiting" | "retrying" | "offline" | "stopped" = state;
    console.log(known, answer?.retry_after_ms);
  },
});
const last: number = watching.last;
console.log(last, watching.state === "stopped");
watching.use("events");
watching.stop();

// @ts-expect-error: there is no such transport.
holdfast.watch("https://push.example.com", "key", { transport: "sockets" });
// @ts-expect-error: a listener with a wrong name is an error.
holdfast.watch("https://push.example.com", "key", { onStatus() {} });
// @ts-expect-error: a key is a string.
holdfast.watch("https://push.example.com", 5);
// @ts-expect-error: the state is read-only.
watching.state = "waiting";

holdfast.once<{ paid: boolean }>("https://push.example.com", "key", (value, answer) => {
  const paid: boolean | undefined = value?.paid;
  console.log(paid, answer.code);
});

// @ts-expect-error: only the module has a default export.
holdfast.default;
