// Tests of HTTP/2 without a proxy: a real browser hears by each transport over `--public-tls --http2`, and shares a
// connection between held scripts, tabs and reloads, also through a drain. Chromium accepts the certificate, which nobody
// signed, because the tests tell it to.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { blank, browser, ended, heard, html, insert, limit, open, program, query, site, tab, until } from "./harness.mjs";
import { redis } from "./redis.mjs";
import { relay } from "./relay.mjs";
import { loaded, state, values, watch } from "./watching.mjs";

// A page that holds six scripts of the node that its address names. They would hold up the page's own loading.
const six = `${blank}<script>
window.cb = () => {};
addEventListener("load", () => {
  for (let n = 0; n < 6; n++) {
    const script = document.createElement("script");
    script.src = location.search.slice(1) + "/status/get?key=six-" + n + "&callback=cb";
    document.head.append(script);
  }
});
</script>`;

let chromium, other;
before(async () => {
  [chromium, other] = await Promise.all([browser(), site({ "/six": [html, six] })]);
});

// Without `--tls-cert` only a demo has a certificate.
const TLS = ["--demo", "--public-tls", "127.0.0.1:0"];
const HTTP2 = [...TLS, "--http2"];
const trusting = { ignoreHTTPSErrors: true };
const OPEN = `holdfast_connections{listener="public"}`;
const ACCEPTED = `holdfast_connections_accepted_total{listener="public"}`;

/** Starts a node. `https` is its address with TLS. */
async function secured(t, args = HTTP2) {
  const node = await program({ t, args });
  node.https = secure(node["public-tls"]);
  return node;
}

const secure = (url) => url.replace("http://127.0.0.1", "https://localhost");

/** Returns a list that collects the protocols of all answers from `at` to this page. */
async function protocols(page, at) {
  const seen = [];
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  session.on("Network.responseReceived", ({ response }) => {
    if (response.url.startsWith(at)) seen.push(response.protocol);
  });
  // The first line of a WebSocket's request names the protocol. Only that of HTTP/1 has such a line.
  session.on("Network.webSocketHandshakeResponseReceived", ({ response }) => {
    seen.push(`socket: ${response.requestHeadersText?.match(/HTTP\/1\.1(?=\r\n)/)}`);
  });
  return seen;
}

/** Has a page hold a script for each of the keys `${name}-0`, `${name}-1` and so on. `window.heard` collects the values. */
const hold = (page, node, name, count) =>
  page.evaluate(
    ({ base, name, count }) => {
      window.heard = [];
      window.cb = ({ value }) => heard.push(value);
      for (let n = 0; n < count; n++) {
        const script = document.createElement("script");
        script.src = `${base}/status/get?key=${name}-${n}&callback=cb`;
        document.head.append(script);
      }
    },
    { base: node.https, name, count },
  );

/** Sets the statuses of `hold`, and waits until the page has heard them all. */
async function answered(page, node, name, count) {
  const all = Array.from({ length: count }, (_, n) => n);
  for (const n of all) await node.set(`${name}-${n}`, String(n));
  await until("all are heard", async () => (await heard(page)).length === count);
  assert.deepEqual((await heard(page)).sort((a, b) => a - b), all);
}

const waitFor = (node, what, wanted) => until(`${what} is ${wanted}`, async () => (await node.metric(what)) === wanted);

for (const [transport, expected] of [["script", "h2"], ["events", "h2"], ["socket", "socket: HTTP/1.1"]]) {
  test(`holdfast_js_hears_by_${transport}_of_a_node_with_http2`, limit, async (t) => {
    const node = await secured(t);
    const page = await loaded(t, chromium, other.localhost, node.https, trusting);
    const seen = await protocols(page, node.https);
    await watch(page, node.https, "key", { transport });
    await node.waiters(1);
    await node.set("key", `{"step":1}`);
    assert.deepEqual(await values(page, 1), [{ step: 1 }]);
    await node.waiters(1);
    await node.set("key", `{"step":2}`, `,"final":true`);
    assert.deepEqual(await values(page, 2), [{ step: 1 }, { step: 2 }]);
    await state(page, "stopped");
    await node.waiters(0);
    await until("an answer", () => seen.length > 0);
    assert.deepEqual([...new Set(seen)], [expected]);
    assert.deepEqual(page.complaints, []);
  });
}

test("a_bare_script_hears_over_http2", limit, async (t) => {
  const node = await secured(t);
  const page = await open(t, chromium, other.localhost, trusting);
  const seen = await protocols(page, node.https);
  await insert(page, `${node.https}/status/get?${query({ key: "bare", callback: "cb" })}`, "cb");
  await node.waiters(1);
  const { version } = await node.set("bare", "7");
  assert.equal(await ended(page), "load");
  assert.deepEqual(await heard(page), [{ code: 0, message: "success", value: 7, version, final: false }]);
  assert.deepEqual(seen, ["h2"]);
});

test("fetch_of_another_origin_hears_over_http2", limit, async (t) => {
  const node = await secured(t);
  const page = await open(t, chromium, other.localhost, trusting);
  const seen = await protocols(page, node.https);
  const answer = page.evaluate((url) => fetch(url).then((answer) => answer.json()), `${node.https}/status/get?key=json`);
  await node.waiters(1);
  await node.set("json", `"news"`);
  assert.equal((await answer).value, "news");
  assert.deepEqual(seen, ["h2"]);
});

test("a_page_holds_twenty_scripts_over_one_connection", limit, async (t) => {
  const node = await secured(t);
  const page = await loaded(t, chromium, other.localhost, node.https, trusting);
  const seen = await protocols(page, node.https);
  await hold(page, node, "many", 20);
  await node.waiters(20);
  await waitFor(node, OPEN, 1);
  await answered(page, node, "many", 20);
  assert.deepEqual([...new Set(seen)], ["h2"]);
});

test("of_a_hundred_and_five_scripts_a_hundred_are_held_and_the_others_wait_their_turn", limit, async (t) => {
  const node = await secured(t);
  const page = await loaded(t, chromium, other.localhost, node.https, trusting);
  await hold(page, node, "many", 105);
  await node.waiters(100);
  await waitFor(node, OPEN, 1);
  await answered(page, node, "many", 105);
  await node.waiters(0);
});

test("without_http2_the_same_page_holds_six_at_once_and_hears_all_over_http1", limit, async (t) => {
  const node = await secured(t, TLS);
  const page = await loaded(t, chromium, other.localhost, node.https, trusting);
  const seen = await protocols(page, node.https);
  await hold(page, node, "many", 20);
  await node.waiters(6);
  await waitFor(node, OPEN, 6);
  await answered(page, node, "many", 20);
  assert.deepEqual([...new Set(seen)], ["http/1.1"]);
});

test("tabs_of_a_site_share_one_connection", limit, async (t) => {
  const node = await secured(t);
  const first = await loaded(t, chromium, other.localhost, node.https, trusting);
  const more = await Promise.all([1, 2, 3].map(() => tab(first.context(), other.localhost)));
  const tabs = [first, ...more];
  for (const [n, page] of tabs.entries()) await hold(page, node, `tab${n}`, 5);
  await node.waiters(20);
  assert.equal(await node.metric(OPEN), 1);
  for (const [n, page] of tabs.entries()) await answered(page, node, `tab${n}`, 5);
});

test("pages_of_another_site_and_fetch_without_credentials_have_connections_of_their_own", limit, async (t) => {
  const node = await secured(t);
  const page = await loaded(t, chromium, other.localhost, node.https, trusting);
  await hold(page, node, "script", 2);
  await node.waiters(2);
  await waitFor(node, OPEN, 1);
  await page.evaluate((url) => void fetch(url), `${node.https}/status/get?key=fetch`);
  await node.waiters(3);
  await waitFor(node, OPEN, 2);
  // A stream without credentials goes where the fetch goes.
  await page.evaluate((url) => void new EventSource(url), `${node.https}/status/events?key=stream`);
  await node.waiters(4);
  await waitFor(node, OPEN, 2);
  const another = await tab(page.context(), other.origin);
  await hold(another, node, "another", 2);
  await node.waiters(6);
  await waitFor(node, OPEN, 3);
});

test("a_page_that_is_closed_takes_its_gets_back_and_the_connection_stays", limit, async (t) => {
  const node = await secured(t);
  const page = await loaded(t, chromium, other.localhost, node.https, trusting);
  const stays = await tab(page.context(), other.localhost);
  await hold(page, node, "closed", 6);
  await hold(stays, node, "stays", 6);
  await node.waiters(12);
  const accepted = await node.metric(ACCEPTED);
  await page.close();
  await node.waiters(6);
  await answered(stays, node, "stays", 6);
  await hold(stays, node, "again", 1);
  await node.waiters(1);
  await stays.goto("about:blank");
  await node.waiters(0);
  await stays.goto(other.localhost);
  await hold(stays, node, "later", 3);
  await node.waiters(3);
  await answered(stays, node, "later", 3);
  assert.equal(await node.metric(OPEN), 1);
  assert.equal(await node.metric(ACCEPTED), accepted);
});

test("a_page_that_is_reloaded_thirty_times_is_not_taken_for_a_flood", limit, async (t) => {
  const node = await secured(t);
  const page = await open(t, chromium, `${other.localhost}/six?${node.https}`, trusting);
  await node.waiters(6);
  const accepted = await node.metric(ACCEPTED);
  for (let taken_back = 6; taken_back <= 180; taken_back += 6) {
    await page.reload();
    await until("the gets are taken back", async () => (await node.metric(`holdfast_gets_total{outcome="left"}`)) >= taken_back);
    await node.waiters(6);
  }
  assert.equal(await node.metric(`holdfast_dropped_total{reason="flood"}`), 0);
  assert.equal(await node.metric(ACCEPTED), accepted);
  assert.deepEqual(page.complaints, []);
});

test("a_page_that_aborts_gets_in_a_tight_loop_is_cut_off_and_its_streams_hear_on", limit, async (t) => {
  const node = await secured(t);
  const page = await loaded(t, chromium, other.localhost, node.https, trusting);
  // The stream and the gets of `fetch` share a connection.
  await watch(page, node.https, "key", { transport: "events" });
  await node.waiters(1);
  const flooded = async () => (await node.metric(`holdfast_dropped_total{reason="flood"}`)) === 1;
  for (let round = 0; !(await flooded()); round++) {
    assert.ok(round < 100, "no flood");
    await page.evaluate(
      ({ base, round }) => {
        window.all = new AbortController();
        for (let n = 0; n < 50; n++) fetch(`${base}/status/get?key=${round}-${n}`, { signal: all.signal }).catch(() => {});
      },
      { base: node.https, round },
    );
    await until("they are held", async () => (await node.metric("holdfast_waiters")) >= 50 || flooded());
    await page.evaluate(() => all.abort());
    await until("they have left", async () => (await node.metric("holdfast_waiters")) <= 1);
  }
  await node.set("key", "1", `,"final":true`);
  assert.deepEqual(await values(page, 1), [1]);
  await state(page, "stopped");
  await node.waiters(0);
});

test("pages_hear_on_through_a_drain_of_their_node_and_lose_no_status", limit, async (t) => {
  const store = await redis({ t });
  const args = ["--redis", store.url];
  const slowly = ["--drain-quiet", "2s"];
  const [first, second] = await Promise.all([secured(t, [...HTTP2, ...args, ...slowly]), secured(t, [...HTTP2, ...args])]);
  // New connections go to the second node from the beginning of the drain on, as behind a balancer.
  const name = await relay(t, first["public-tls"]);
  const https = secure(name.url);
  const page = await loaded(t, chromium, other.localhost, https, trusting);
  const seen = await protocols(page, https);
  const transports = ["script", "events", "socket"];
  const watches = transports.flatMap((transport) => [0, 1, 2].map((n) => ({ transport, key: `${transport}-${n}` })));
  for (const { transport, key } of watches) await watch(page, https, key, { transport }, key);
  await first.waiters(watches.length);
  for (const { key } of watches) await first.set(key, "1");
  for (const { key } of watches) await values(page, 1, key);
  await first.waiters(watches.length);
  name.upstream = second["public-tls"];
  first.terminate();
  // Statuses are set throughout the drain, by the node that stays.
  let step = 1, sent_away;
  const draining = { over: false };
  const over = first.exited.then((code) => ((draining.over = true), code));
  while (!draining.over) {
    step += 1;
    for (const { key } of watches) await second.set(key, String(step));
    sent_away = await first.metric(`holdfast_gets_total{outcome="retry"}`).catch(() => sent_away);
  }
  // Each script at most once: its next get came on another connection, at once. One that the set answered first was not.
  assert.ok(sent_away <= 3, `${sent_away} were sent away`);
  assert.equal(await over, 0);
  step += 1;
  for (const { key } of watches) await second.set(key, String(step), `,"final":true`);
  for (const { key } of watches) {
    await state(page, "stopped", key);
    const heard = await values(page, 2, key);
    assert.equal(heard.at(-1), step);
    assert.deepEqual(heard, [...new Set(heard)].sort((a, b) => a - b), "never backwards");
  }
  assert.deepEqual([...new Set(seen)].sort(), ["h2", "socket: HTTP/1.1"]);
  assert.deepEqual(page.complaints, []);
  await second.waiters(0);
});
