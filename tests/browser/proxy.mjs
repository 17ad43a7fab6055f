// A proxy between pages and the program. It forwards all requests and counts the polls. On demand it spoils an answer
// as proxies, networks and captive portals do.

import { createServer, request } from "node:http";
import { buffer } from "node:stream/consumers";

const script = { "content-type": "application/javascript; charset=utf-8" };

/** The ways to spoil the answer to a poll. Each gets the page's response and a promise of the program's answer. */
export const misdeeds = {
  cut_off: async (response, answer) => {
    const { headers, body } = await answer;
    response.writeHead(200, headers);
    // Only the last byte is missing, and the call is complete without it.
    response.write(body.subarray(0, -1), () => response.destroy());
  },
  cut_off_before_the_head: async (response, answer) => {
    await answer;
    response.destroy();
  },
  doubled: async (response, answer) => {
    const { body } = await answer;
    const another = body.toString().replace(/"value":.*?,"version":/, `"value":"another","version":`);
    response.writeHead(200, script).end(body + another);
  },
  empty: (response) => response.writeHead(200, script).end(),
  no_content: (response) => response.writeHead(204).end(),
  html: (response) => response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>Welcome to our Wi-Fi</title>"),
  html_said_to_be_a_script: (response) => response.writeHead(200, script).end("<!doctype html><title>Welcome to our Wi-Fi</title>"),
  bad_gateway: (response) => response.writeHead(502, { "content-type": "text/html" }).end("<h1>502 Bad Gateway</h1>"),
  redirected_to_nothing: (response) => response.writeHead(302, { location: "http://127.0.0.1:9/login" }).end(),
  not_our_call: (response) => response.writeHead(200, script).end("window.somethingElse = 1;"),
};

/** Starts a proxy in front of a program, on a free port. It ends with the test. */
export async function proxy(t, upstream) {
  const self = {
    /** The misdeeds for the next polls, in order. Each is a function, or the name of one of `misdeeds`. */
    plan: [],
    /** The misdeeds for the next answers of the program, also for polls that are held already. */
    spoil: [],
    /** Whether streams and sockets are refused with a 502. */
    refusesWires: false,
    /** The path of each request that came, without its parameters. */
    paths: [],
    /** The headers of each poll. */
    headers: [],
    /** Returns a misdeed that answers the newest poll with these members, in place of the program's answer. */
    say: (members) => (response) => {
      const answer = { message: "", value: null, version: 0, final: false, ...members };
      response.writeHead(200, script).end(`${self.polls.at(-1).callback}(${JSON.stringify(answer)});`);
    },
    /** The parameters of each poll that came. */
    polls: [],
    /** The greatest number of polls of one key that were under way in the program at once. */
    mostAtOnce: 0,
    /** Returns the number of polls of a key that the program has not answered yet. */
    underWay: (key) => underWay.get(key) ?? 0,
    url: "",
    /** Stops listening, and closes every connection. */
    refuse,
    /** Listens again at the same address. */
    listen,
  };
  const underWay = new Map();

  function ask(url) {
    const key = new URLSearchParams(url.split("?")[1]).get("key");
    const count = (by) => underWay.set(key, (underWay.get(key) ?? 0) + by).get(key);
    self.mostAtOnce = Math.max(self.mostAtOnce, count(1));
    let asked;
    const answer = new Promise((resolve, reject) => {
      const whole = async (response) => ({ status: response.statusCode, headers: response.headers, body: await buffer(response) });
      asked = request(upstream + url, (response) => whole(response).then(resolve, reject));
      asked.on("error", reject).end();
    });
    answer.catch(() => {}).then(() => count(-1));
    return { answer, asked };
  }

  const server = createServer((incoming, response) => {
    self.paths.push(incoming.url.split("?")[0]);
    if (self.refusesWires && self.paths.at(-1) !== "/status/get") return misdeeds.bad_gateway(response);
    const { answer, asked } = ask(incoming.url);
    response.on("close", () => asked.destroy());
    response.on("error", () => {});
    let misdeed;
    if (incoming.url.startsWith("/status/get")) {
      self.headers.push(incoming.headers);
      self.polls.push(Object.fromEntries(new URLSearchParams(incoming.url.split("?")[1])));
      misdeed = self.plan.shift();
    }
    const does = async (misdeed) => (misdeeds[misdeed] ?? misdeed)(response, answer);
    const passes = ({ status, headers, body }) => (self.spoil.length ? does(self.spoil.shift()) : response.writeHead(status, headers).end(body));
    (misdeed ? does(misdeed) : answer.then(passes)).catch(() => response.destroy());
  });

  let port = 0;
  async function listen() {
    await new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", resolve));
    port = server.address().port;
    self.url = `http://127.0.0.1:${port}`;
  }
  async function refuse() {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  }
  await listen();
  t.after(() => (server.listening ? refuse() : undefined));
  return self;
}
