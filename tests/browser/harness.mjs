// The parts that every browser test needs: the program, a page of another origin, a real Chromium, a real curl. Nothing
// sleeps: `until` polls a condition until a deadline.

import { spawn, execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { after } from "node:test";
import { chromium } from "playwright-core";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const run = promisify(execFile);

export const screenshots = here("screenshots/");
export const fixtures = here("../../fixtures/");
export const examples = here("../../examples/");
export const packages = here("node_modules/");

// The longest wait for a condition. It is long enough for a busy machine. It is shorter than a hold: if a poll is not
// answered when it should be, the next poll comes too late to hide that.
const DEADLINE_MS = 20_000;

/** The options of every test: a test that hangs fails, and the others go on. */
export const limit = { timeout: 60_000 };

/**
 * Polls `condition` until its result is truthy, and returns the result. At the deadline it fails, and names `what`.
 *
 * On a busy machine seconds may pass between two polls. So `condition` must stay true when it has become true: compare
 * a growing count by `>=`, and look for a passing state in the list of all states.
 */
export async function until(what, condition, deadline_ms = DEADLINE_MS) {
  const end = performance.now() + deadline_ms;
  let seen;
  while (!(seen = await condition())) {
    if (performance.now() > end) throw new Error(`not within ${deadline_ms} ms: ${what}`);
    await sleep(10);
  }
  return seen;
}

// Things that a file started for all its tests end after the last test, in reverse order. (An `after` that is called in
// a `before` would belong to that hook, and run at the end of the hook.)
const endings = [];
const atEnd = (ending) => endings.push(ending);
after(async () => {
  for (const ending of endings.reverse()) await ending();
});

// Kill the children that still run when this process ends, unless SIGKILL ends it.
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** Starts a child process. It ends with the test `t`, or with the file if there is no `t`. */
export function start({ t, command, args, ending = "SIGKILL", ...options }) {
  const child = spawn(command, args, options);
  children.add(child);
  const exited = new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => (children.delete(child), resolve(code ?? signal)));
  });
  const stop = () => (child.kill(ending), exited);
  if (t) t.after(stop);
  else atEnd(stop);
  /** Waits until `condition` is truthy. If the process ends before that, fails with its output, `said()`. */
  const ready = (what, condition, said) => {
    const ended = exited.then((code) => {
      throw new Error(`${command} ended with ${code} before ${what}:\n${said()}`);
    });
    ended.catch(() => {});
    return Promise.race([ended, until(what, condition)]);
  };
  return { child, exited, stop, ready };
}

/**
 * Starts the program on free ports, or on those in `args`, and waits until it answers. It ends with the test `t`, or
 * with the file if there is no `t`.
 */
export async function program({ t, args = [] } = {}) {
  const binary = process.env.HOLDFAST_BIN ?? here("../../target/debug/holdfast");
  if (!existsSync(binary)) throw new Error(`no program at ${binary}: build it, or set HOLDFAST_BIN`);

  // It is a mistake to give a listener twice, so add only those that `args` does not have.
  const given = (flag) => args.includes(flag);
  const listeners = ["--public", "--internal"].flatMap((flag) => (given(flag) ? [] : [flag, "127.0.0.1:0"]));
  // No balancer has to learn of an end, and tests would wait for it.
  const notice = given("--drain-notice") ? [] : ["--drain-notice", "0s"];
  const command = { command: binary, args: [...listeners, ...notice, "--log-format", "json", ...args] };
  // The variables of the tests are no settings.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("HOLDFAST_")));
  const { child, exited, stop, ready } = start({ t, ...command, env, stdio: ["ignore", "ignore", "pipe"] });

  const log = [];
  const addresses = {};
  createInterface({ input: child.stderr }).on("line", (line) => {
    log.push(line);
    // A line that is not JSON is a panic or a mistake in the settings. It stays in the log for the error below.
    if (!line.startsWith("{")) return;
    const event = JSON.parse(line);
    if (event.message === "listening") addresses[event.listener] = `http://${event.address}`;
  });

  const answers = () => {
    if (!addresses.public || !addresses.internal) return false;
    return fetch(`${addresses.internal}/health/ready`).then((answer) => answer.ok, () => false);
  };
  await ready("it says that it is ready", answers, () => log.join("\n"));

  /** Returns the value of a metric, which is named with its labels as in `/metrics`. */
  const metric = async (name) => {
    const lines = (await (await fetch(`${addresses.internal}/metrics`)).text()).split("\n");
    const line = lines.find((line) => line.startsWith(`${name} `));
    if (!line) throw new Error(`no metric ${name}`);
    return Number(line.slice(name.length));
  };

  return {
    ...addresses,
    /** The arguments for a program that takes the place of this one. */
    listeners: ["public", "internal"].flatMap((name) => [`--${name}`, new URL(addresses[name]).host]),
    log,
    exited,
    /** Sends SIGTERM, as a service manager does. */
    terminate: () => child.kill("SIGTERM"),
    /** Sends SIGKILL, and waits until the process has ended. */
    kill: stop,
    /** Returns the URL of a get, as a page writes it. */
    get: (parameters) => `${addresses.public}/status/get?${query(parameters)}`,
    /** Sets a status from the raw bytes of its value, and returns the receipt. */
    async set(key, value, more = "") {
      const body = Buffer.concat([Buffer.from(`{"key":${JSON.stringify(key)},"value":`), Buffer.from(value), Buffer.from(`${more}}`)]);
      const answer = await fetch(`${addresses.internal}/status/set`, { method: "POST", body });
      const receipt = await answer.json();
      if (answer.status !== 200) throw new Error(`set answered ${answer.status} ${JSON.stringify(receipt)}`);
      return receipt;
    },
    forget: (key) => fetch(`${addresses.internal}/keys/${encodeURIComponent(key)}`, { method: "DELETE" }),
    /** Waits until exactly `count` gets are held. */
    waiters: (count) => until(`holdfast_waiters is ${count}`, async () => (await metric("holdfast_waiters")) === count),
    metric,
  };
}

/**
 * Starts a server of `examples/`, which prints its address as its first line. It ends with the test `t`, or with the
 * file if there is no `t`.
 */
export async function example({ t, command: [command, ...args], env = {} }) {
  const { child, ready } = start({
    t, command, args,
    cwd: here("."),   // the example in Node looks for its packages here
    env: { ...process.env, PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "", log = "";
  child.stdout.on("data", (data) => (said += data));
  child.stderr.on("data", (data) => (log += data));
  const [line] = await ready("it prints its address", () => said.match(/^.*\n/), () => log);
  return { url: line.trim(), origin: new URL(line).origin };
}

/** Returns percent-encoded parameters. A space becomes %20, never a plus. */
export const query = (parameters) =>
  Object.entries(parameters).map((pair) => pair.map(encodeURIComponent).join("=")).join("&");

/** Runs curl with these arguments, and returns the JSON of the answer. */
export const curl = async (...args) => JSON.parse((await run("curl", ["--silent", "--show-error", "--max-time", "10", ...args])).stdout);

/** Runs a line as if a person had pasted it into a terminal. */
export const shell = async (line) => (await run("sh", ["-c", line], { timeout: DEADLINE_MS })).stdout;

/** The beginning of a page, and its headers. */
export const blank = `<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,"><title>another site</title>`;
export const html = { "content-type": "text/html; charset=utf-8" };
/** The headers of a page that is cross-origin isolated. It can embed only resources that agree to it. */
export const isolation = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const jquery = (name) => [{ "content-type": "text/javascript" }, readFileSync(`${packages}${name}/dist/jquery.js`)];
const files = {
  "/": () => [html, blank],
  "/elsewhere": () => [html, `${blank}<h1>elsewhere</h1>`],
  "/isolated": () => [{ ...html, ...isolation }, blank],
  "/windows-1251": () => [{ "content-type": "text/html; charset=windows-1251" }, `<!doctype html><title>another encoding</title>`],
  "/jquery": () => [html, `${blank}<script src="/jquery.js"></script>`],
  "/jquery3": () => [html, `${blank}<script src="/jquery3.js"></script>`],
  "/jquery.js": () => jquery("jquery"),
  "/jquery3.js": () => jquery("jquery3"),
};

/**
 * Starts another web site. It is another origin by its port, and under the name `localhost` also another site. `pages`
 * has more of its files by their paths: headers and body, or a function that returns them.
 */
export async function site(pages = {}) {
  const server = createServer((request, response) => {
    const file = { ...files, ...pages }[request.url.split("?")[0]];
    const [headers, body] = (typeof file === "function" ? file() : file) ?? [];
    response.writeHead(body === undefined ? 404 : 200, headers).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  atEnd(() => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve))));
  const { port } = server.address();
  return { origin: `http://127.0.0.1:${port}`, localhost: `http://localhost:${port}` };
}

/** Starts a real Chromium, with more `args` or other options of Playwright. It ends with the test file. */
export async function browser({ args = [], ...options } = {}) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) throw new Error(`no Chromium at ${executablePath}: install it, or set CHROMIUM`);
  const started = await chromium.launch({
    executablePath,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", ...args,
    ],
    ...options,
  });
  atEnd(() => started.close());
  return started;
}

/** Opens `url` in a new profile. `page.complaints` collects the errors and warnings that the browser reports. */
export async function open(t, chromium, url, options) {
  const context = await chromium.newContext(options);
  t.after(() => context.close());
  return tab(context, url);
}

/** Opens `url` in one more tab of a profile. */
export async function tab(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(`pageerror: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") page.complaints.push(`console: ${message.text()}`);
  });
  await page.goto(url);
  return page;
}

/**
 * Inserts `<script src>`, and does not wait for it. `window.heard` collects the calls of `callback`, and `window.ended`
 * will be "load" or "error".
 */
export const insert = (page, src, callback) =>
  page.evaluate(
    ({ src, callback }) => {
      window.heard ??= [];
      window.ended = "";
      if (callback) window[callback] = (answer) => heard.push(answer);
      const script = document.createElement("script");
      script.onload = script.onerror = (event) => (window.ended = event.type);
      script.src = src;
      document.head.append(script);
    },
    { src, callback },
  );

/** Waits until the script of the last `insert` has ended, and returns "load" or "error". */
export const ended = (page) => until("the script has ended", () => page.evaluate(() => window.ended));

/** Returns the answers of all calls of this page's callbacks. */
export const heard = (page) => page.evaluate(() => window.heard);
