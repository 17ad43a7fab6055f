// Tests of TLS without a proxy: a real browser hears by each transport over `--public-tls`, also through a drain. The
// demo waits over TLS. Chromium accepts the certificate, which nobody signed, because the tests tell it to.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { browser, limit, open, program, site } from "./harness.mjs";
import { loaded, state, told, values, watch, watched } from "./watching.mjs";

let chromium, other;
before(async () => {
  [chromium, other] = await Promise.all([browser(), site()]);
});

// Without `--tls-cert` only a demo has a certificate.
const TLS = ["--demo", "--public-tls", "127.0.0.1:0"];
const trusting = { ignoreHTTPSErrors: true };

/** Starts a node with TLS. `https` is its address there. */
async function secured(t, args = []) {
  const node = await program({ t, args: [...TLS, ...args] });
  node.https = node["public-tls"].replace("http://127.0.0.1", "https://localhost");
  return node;
}

for (const transport of ["script", "events", "socket"]) {
  test(`a_page_hears_over_tls_by_${transport}_and_is_not_lost_in_a_drain`, limit, async (t) => {
    const node = await secured(t);
    const page = await loaded(t, chromium, other.localhost, node.https, trusting);
    const protocols = [];
    const session = await page.context().newCDPSession(page);
    await session.send("Network.enable");
    session.on("Network.responseReceived", ({ response }) => {
      if (response.url.startsWith(node.https)) protocols.push(response.protocol);
    });
    await watch(page, node.https, "key", { transport });
    await node.waiters(1);
    const { version } = await node.set("key", `{"step":1}`);
    assert.deepEqual(await values(page, 1), [{ step: 1 }]);
    await node.waiters(1);
    const { host } = new URL(node["public-tls"]);
    node.terminate();
    await node.exited;
    await told(page, "retrying");
    // Another node takes its place, and has newer statuses.
    const next = await program({ t, args: [...TLS.slice(0, 2), host] });
    await next.set("key", `{"step":2}`, `,"final":true`);
    assert.deepEqual(await values(page, 2), [{ step: 1 }, { step: 2 }]);
    await state(page, "stopped");
    assert.ok((await watched(page)).last > version);
    for (const protocol of protocols) assert.equal(protocol, "http/1.1");
  });
}

test("the_demo_waits_over_tls", limit, async (t) => {
  const node = await secured(t);
  const page = await open(t, chromium, `${node.https}/demo`, trusting);
  await node.waiters(1);
  assert.deepEqual(page.complaints, []);
  assert.equal(await page.evaluate(() => location.protocol), "https:");
});
