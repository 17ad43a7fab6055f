// Starts a real Redis.

import { createServer } from "node:net";
import { shell, start } from "./harness.mjs";

/** Returns a port on which nobody listens. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * Starts a Redis on a free port, or on `port`. Returns its URL, a function that sends it commands, and one that ends it.
 * It ends with the test `t`, or with the file if there is no `t`.
 */
export async function redis({ t, port } = {}) {
  port ??= await freePort();
  const args = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(String);
  const { ready, stop } = start({ t, command: "redis-server", args, stdio: "ignore" });
  const command = (...words) => shell(`redis-cli -p ${port} ${words.map((word) => `'${word}'`).join(" ")}`);
  await ready("it answers", () => command("PING").then((answer) => /PONG/.test(answer), () => false), () => "");
  return { url: `redis://127.0.0.1:${port}`, port, command, stop };
}
