// A relay of bytes between pages and a program, or nginx. Unlike the proxy of proxy.mjs it knows no HTTP, so that streams
// and sockets pass. On demand it is silent, as a network is whose other end is gone, or it cuts its connections.

import { connect, createServer } from "node:net";

/** Starts a relay in front of a server, on a free port. It ends with the test. */
export async function relay(t, upstream) {
  const self = {
    url: "",
    /** The server of new connections. */
    upstream,
    /** The request lines that came, without the version of HTTP. */
    asked: [],
    /** Returns the number of requests for a route that came. */
    count: (route) => self.asked.filter((line) => line.startsWith(`GET ${route}?`) || line === `GET ${route}`).length,
    /** Passes no more bytes of the connections that are open. They stay open. */
    freeze: () => connections.forEach((one) => (one.isFrozen = true)),
    /** Cuts all connections. */
    cut: () => connections.forEach(({ page, server }) => (page.destroy(), server.destroy())),
    /** Whether bytes of the server stay here, while those of the page pass: an open connection that brings nothing. */
    swallows: false,
  };
  const connections = new Set();
  const server = createServer((page) => {
    const { hostname, port } = new URL(self.upstream);
    const one = { page, server: connect(port, hostname), isFrozen: false };
    connections.add(one);
    page.on("data", (bytes) => {
      if (one.isFrozen) return;
      for (const [, line] of bytes.toString("latin1").matchAll(/^(GET \S+) HTTP\/1\.1\r$/gm)) self.asked.push(line);
      one.server.write(bytes);
    });
    one.server.on("data", (bytes) => one.isFrozen || self.swallows || page.write(bytes));
    for (const [here, there] of [[page, one.server], [one.server, page]]) {
      here.on("error", () => {}).on("close", () => {
        // The server behind a silent network does not learn that the page has left.
        if (one.isFrozen) return;
        connections.delete(one);
        there.destroy();
      });
    }
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  self.url = `http://127.0.0.1:${server.address().port}`;
  t.after(() => {
    self.cut();
    return new Promise((resolve) => server.close(resolve));
  });
  return self;
}
