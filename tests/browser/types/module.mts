// TypeScript of a page that imports holdfast.mjs from the URL where it is served. `paths` in tsconfig.json maps that
// URL to the types.

import holdfast, { once, watch, type Answer, type Options, type State, type Transport, type Value, type Watch } from "https://push.example.com/holdfast.mjs";

type Login = { state: "scanned" } | { state: "confirmed"; ticket: string };

const options: Options<Login> = {
  onstatus(value, answer) {
    if (value.state === "confirmed") console.log(value.ticket, answer.version);
    // @ts-expect-error: no ticket yet.
    else console.log(value.ticket);
  },
};
const watching: Watch = watch("", "key", options);
const state: State = watching.state;
const transport: Transport = "auto";
watching.use(transport);
const any: Value = [null, true, 1, "s", { a: [] }];
console.log(state, any);

once("", "key", (value: Value | null, answer: Answer) => console.log(value, answer));
holdfast.watch("", "key").stop();
