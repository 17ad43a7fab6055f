// Tests of the ways in which holdfast.js hears: scripts, a stream of events, a socket. What it reports is the same by
// each of them, also when servers drain and die, and proxies swallow streams.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { blank, browser, html, limit, open, program, site, until } from "./harness.mjs";
import { NAME, nginx } from "./nginx.mjs";
import { proxy } from "./proxy.mjs";
import { redis } from "./redis.mjs";
import { relay } from "./relay.mjs";
import { leftovers, loaded, state, told, values, watch, watched } from "./watching.mjs";

let chromium, holdfast, other;
const pages = {};
before(async () => {
  [chromium, holdfast] = await Promise.all([browser(), program()]);
  other = await site(pages);
});

const ROUTES = { script: "/status/get", events: "/status/events", socket: "/status/ws" };
const WIRES = ["events", "socket"];
const ALL = ["script", ...WIRES];

/** Opens a page of another origin with holdfast.js. `page.sockets` are those that it has opened. */
async function started(t, from = holdfast) {
  const page = await loaded(t, chromium, other.localhost, from.public);
  page.sockets = [];
  page.on("websocket", (socket) => page.sockets.push(socket));
  return page;
}

/** Checks that a page hears a status and then the final one, once each, and leaves nothing behind. */
async function hears(page, from, key, earlier = [], name = "watched") {
  await from.waiters(1);
  await from.set(key, `"next"`);
  assert.deepEqual(await values(page, earlier.length + 1, name), [...earlier, "next"]);
  await from.waiters(1);
  await from.set(key, `"last"`, `,"final":true`);
  await state(page, "stopped", name);
  await from.waiters(0);
  const { statuses, last } = await watched(page, name);
  assert.deepEqual(statuses.map(([value]) => value), [...earlier, "next", "last"]);
  const versions = statuses.map(([, version]) => version);
  assert.deepEqual(versions, versions.toSorted((a, b) => a - b));
  assert.equal(last, versions.at(-1));
  assert.deepEqual(await leftovers(page), [0, 0]);
}

for (const transport of [...ALL, "auto", undefined]) {
  const name = transport ?? "no_transport";

  test(`${name}_hears_each_status_once_and_in_order_until_the_final_one`, limit, async (t) => {
    const between = await relay(t, holdfast.public);
    const page = await started(t);
    const key = `flow-${name}`;
    const { version } = await holdfast.set(key, `{"\u2028id: x":[1, "data: é🎣"]}`);
    await watch(page, between.url, key, { transport });
    assert.deepEqual(await values(page, 1), [{ "\u2028id: x": [1, "data: é🎣"] }]);
    assert.equal((await watched(page)).last, version);
    await holdfast.waiters(1);
    await holdfast.set(key, `[1,\r\n 2,\n3]`);
    assert.deepEqual((await values(page, 2))[1], [1, 2, 3]);
    await hears(page, holdfast, key, [{ "\u2028id: x": [1, "data: é🎣"] }, [1, 2, 3]]);
    assert.deepEqual((await watched(page)).states, [["waiting"], ["stopped"]]);
    assert.deepEqual(page.complaints, []);
    // One request was enough for a stream or a socket.
    const route = ROUTES[transport] ?? ROUTES.script;
    assert.equal(between.count(route), between.asked.length);
    if (WIRES.includes(transport)) assert.equal(between.asked.length, 1);
  });
}

for (const transport of ALL) {
  test(`${transport}_hears_only_what_is_newer_than_last`, limit, async (t) => {
    const page = await started(t);
    const key = `last-${transport}`;
    const { version } = await holdfast.set(key, `"old"`);
    await watch(page, holdfast.public, key, { transport, last: version });
    await hears(page, holdfast, key);
  });

  test(`${transport}_hears_that_a_key_is_gone`, limit, async (t) => {
    const page = await started(t);
    const key = `gone-${transport}`;
    await watch(page, holdfast.public, key, { transport });
    await holdfast.waiters(1);
    await holdfast.forget(key);
    await state(page, "stopped");
    const { gone, errors, states } = await watched(page);
    assert.deepEqual([gone, errors, states], [[-4], [], [["waiting"], ["stopped"]]]);
    await holdfast.waiters(0);
    assert.deepEqual(page.complaints, []);
  });

  for (const [key, options, message] of [["not printable", {}, "key: must be printable ASCII without spaces (! to ~)"], ["k", { last: -1 }, "last: must be a version (a whole number)"], ["", {}, "key: empty"]]) {
    test(`${transport}_is_told_of_a_mistake_and_stops_${message}`, limit, async (t) => {
      const page = await started(t);
      // Another watch of the same page goes on.
      const beside = `beside-${transport}-${message.replaceAll(" ", "-")}`;
      await watch(page, holdfast.public, beside, { transport }, "beside");
      await watch(page, holdfast.public, key, { transport, ...options });
      await state(page, "stopped");
      const { errors, statuses, states } = await watched(page);
      assert.deepEqual([errors, statuses, states], [[message], [], [["waiting"], ["stopped"]]]);
      await hears(page, holdfast, beside, [], "beside");
    });
  }

  test(`${transport}_asks_a_server_that_drains_when_it_says_and_finds_its_successor`, limit, async (t) => {
    const old = await program({ t, args: ["--drain-quiet", "100ms"] });
    const page = await started(t, old);
    const key = "drained";
    await watch(page, old.public, key, { transport });
    await old.waiters(1);
    await old.set(key, `"before"`);
    await values(page, 1);
    await old.waiters(1);
    old.terminate();
    await told(page, "retrying");
    assert.deepEqual((await watched(page)).states.slice(0, 2), [["waiting"], ["retrying", -2]]);
    assert.equal(await old.exited, 0);
    const young = await program({ t, args: old.listeners });
    await hears(page, young, key, ["before"]);
  });

  test(`${transport}_says_once_that_a_server_drains`, limit, async (t) => {
    const node = await program({ t, args: ["--drain-quiet", "5s"] });
    const between = await relay(t, node.public);
    const page = await started(t, node);
    await watch(page, between.url, "drains", { transport });
    await node.waiters(1);
    node.terminate();
    await node.exited;
    const { states } = await watched(page);
    assert.deepEqual(states.slice(0, 2), [["waiting"], ["retrying", -2]]);
    assert.ok(between.asked.length > 3, `${between.asked}`);
    // On a busy machine an answer may take a second, and then its poll seems to be held.
    assert.ok(states.length <= 4, JSON.stringify(states));
  });

  test(`${transport}_finds_a_killed_server_when_it_comes_back`, limit, async (t) => {
    const old = await program({ t });
    const page = await started(t, old);
    const key = "killed";
    await watch(page, old.public, key, { transport });
    await old.waiters(1);
    await old.set(key, `"before"`);
    await values(page, 1);
    await old.waiters(1);
    await old.kill();
    await told(page, "retrying");
    const young = await program({ t, args: old.listeners });
    await young.set(key, `"after"`);
    assert.deepEqual(await values(page, 2), ["before", "after"]);
    await hears(page, young, key, ["before", "after"]);
    if (transport === "socket") assert.ok(page.sockets.length > 1, "it is a socket again");
  });

  test(`${transport}_is_asked_again_when_a_full_server_says`, limit, async (t) => {
    const full = await program({ t, args: ["--max-waiters", "1"] });
    const between = await relay(t, full.public);
    const page = await started(t, full);
    await watch(page, full.public, "first", { transport: "script" }, "first");
    await full.waiters(1);
    const began = performance.now();
    await watch(page, between.url, "second", { transport });
    await told(page, "retrying");
    assert.deepEqual((await watched(page)).states.slice(0, 2), [["waiting"], ["retrying", -3]]);
    await until("it was refused again", () => between.count(ROUTES[transport]) > 2);
    assert.ok(performance.now() - began > 200, "not in a tight loop");
    await full.set("first", `1`, `,"final":true`);
    await state(page, "waiting");
    await hears(page, full, "second");
  });

  for (const [what, code, message] of [["drains", -2, "retry"], ["is_full", -3, "busy"]]) {
    test(`${transport}_gets_the_whole_answer_of_a_node_that_${what}`, limit, async (t) => {
      const node = await program({ t, args: ["--max-waiters", "1", "--drain-quiet", "100ms"] });
      const page = await started(t, node);
      const isFull = code === -3;
      if (isFull) {
        await watch(page, node.public, "holds", {}, "holds");
        await node.waiters(1);
      }
      await page.evaluate(({ base, transport }) => {
        window.answers = [];
        holdfast.watch(base, "k", { transport, last: 7, onstate: (state, answer) => answer && answers.push(answer) });
      }, { base: node.public, transport });
      if (!isFull) {
        await node.waiters(1);
        node.terminate();
      }
      const { key, retry_after_ms, ...rest } = await until("an answer", () => page.evaluate(() => answers[0]));
      assert.deepEqual(rest, { code, message, value: null, version: 7, final: false });
      assert.ok(retry_after_ms >= 100, `${retry_after_ms} ms`);
    });
  }

  test(`${transport}_reports_a_store_that_is_out_of_reach_until_it_is_back`, limit, async (t) => {
    const store = await redis({ t });
    const node = await program({ t, args: ["--redis", store.url, "--hold", "2s"] });
    const page = await started(t, node);
    await store.stop();
    await watch(page, node.public, "store", { transport });
    await told(page, "retrying");
    assert.deepEqual((await watched(page)).states, [["waiting"], ["retrying", -6]]);
    await redis({ t, port: store.port });
    await state(page, "waiting");
    await until("it is heard", () => node.set("store", `"first"`).catch(() => undefined));
    assert.deepEqual(await values(page, 1), ["first"]);
    await hears(page, node, "store", ["first"]);
  });

  test(`${transport}_behind_nginx_goes_to_the_other_node_when_one_is_killed`, limit, async (t) => {
    const store = await redis({ t });
    const nodes = await Promise.all([1, 2].map(() => program({ t, args: ["--redis", store.url, "--peer-timeout", "1s"] })));
    const address = await nginx(t, ...nodes.map((node) => node.public));
    const secure = await browser({ args: [`--host-resolver-rules=MAP ${NAME}:443 ${address}`] });
    const page = await open(t, secure, other.localhost, { ignoreHTTPSErrors: true });
    await page.addScriptTag({ url: `https://${NAME}/holdfast.js` });
    const frames = [];
    page.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => frames.push(payload)));
    await watch(page, `https://${NAME}`, "moves", { transport });
    const holds = async (node) => /^holdfast_waiters 1$/m.test(await (await fetch(`${node.internal}/metrics`)).text());
    /** Returns which of the nodes the page waits at. */
    const holder = (of) => until("a node holds it", async () => {
      for (const node of of) if (await holds(node)) return node;
    });
    await (await holder(nodes)).set("moves", `"before"`);
    assert.deepEqual(await values(page, 1), ["before"]);
    const killed = await holder(nodes);
    await killed.kill();
    const rest = nodes.filter((node) => node !== killed);
    await rest[0].set("moves", `"after"`);
    assert.deepEqual(await values(page, 2), ["before", "after"]);
    await hears(page, rest[0], "moves", ["before", "after"]);
    if (transport === "socket") assert.ok(frames.some((frame) => frame.includes(`"last"`)), "nginx passes on the socket");
  });

  test(`${transport}_gives_up_when_its_patience_is_over`, limit, async (t) => {
    const page = await started(t);
    await watch(page, holdfast.public, `patience-${transport}`, { transport, giveUpAfter: 0.5 });
    await state(page, "stopped");
    assert.deepEqual((await watched(page)).errors, ["given up"]);
    // The server holds a script until it is answered.
    if (transport !== "script") await holdfast.waiters(0);
  });

  test(`${transport}_of_a_frozen_page_hears_when_it_is_resumed`, limit, async (t) => {
    const page = await started(t);
    const key = `frozen-${transport}`;
    await watch(page, holdfast.public, key, { transport });
    await holdfast.waiters(1);
    const client = await page.context().newCDPSession(page);
    await client.send("Page.setWebLifecycleState", { state: "frozen" });
    await holdfast.set(key, `"meanwhile"`);
    await client.send("Page.setWebLifecycleState", { state: "active" });
    assert.deepEqual(await values(page, 1), ["meanwhile"]);
    await hears(page, holdfast, key, ["meanwhile"]);
  });

  test(`${transport}_goes_on_when_the_browser_is_online_again`, limit, async (t) => {
    const between = await relay(t, holdfast.public);
    const page = await started(t);
    const key = `offline-${transport}`;
    await watch(page, between.url, key, { transport });
    await holdfast.waiters(1);
    await page.context().setOffline(true);
    await state(page, "offline");
    between.cut();
    await holdfast.waiters(0);
    await holdfast.set(key, `"meanwhile"`);
    await page.context().setOffline(false);
    assert.deepEqual(await values(page, 1), ["meanwhile"]);
    await hears(page, holdfast, key, ["meanwhile"]);
  });

  test(`${transport}_that_is_stopped_hears_nothing_more`, limit, async (t) => {
    const page = await started(t);
    const key = `stop-${transport}`;
    await watch(page, holdfast.public, key, { transport });
    await holdfast.waiters(1);
    await page.evaluate(() => watched.watch.stop());
    if (transport !== "script") await holdfast.waiters(0);
    await holdfast.set(key, `1`);
    await watch(page, holdfast.public, `${key}-next`, { transport }, "next");
    await hears(page, holdfast, `${key}-next`, [], "next");
    const { statuses, states } = await watched(page);
    assert.deepEqual([statuses, states], [[], [["waiting"], ["stopped"]]]);
    assert.deepEqual(page.complaints, []);
  });

  test(`${transport}_that_is_stopped_while_it_connects_leaves_nothing`, limit, async (t) => {
    const page = await started(t);
    // No other test sets this key: a status that is there already may come before the stop.
    const key = `connects-${transport}`;
    await page.evaluate(async ({ base, key, transport }) => {
      window.calls = [];
      const listeners = { onstate: (state) => calls.push(state), onstatus: () => calls.push("status"), onerror: () => calls.push("error") };
      const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
      for (let n = 0; n < 20; n++) {
        const watching = holdfast.watch(base, key, { transport, ...listeners });
        await later(n % 5);
        watching.stop();
      }
    }, { base: holdfast.public, key, transport });
    if (transport !== "script") await holdfast.waiters(0);
    await holdfast.set(key, `1`, `,"final":true`);
    await holdfast.waiters(0);
    assert.deepEqual(new Set(await page.evaluate(() => calls)), new Set(["waiting", "stopped"]));
    // A browser reports a request that its page aborted, but not as an error.
    assert.deepEqual(page.complaints, []);
  });
}

for (const transport of WIRES) {
  test(`${transport}_behind_a_proxy_that_swallows_it_falls_back_to_scripts`, limit, async (t) => {
    // The proxy passes on whole answers only, and no upgrade.
    const between = await proxy(t, holdfast.public);
    const page = await started(t);
    const key = `swallowed-${transport}`;
    const { version } = await holdfast.set(key, `"there"`);
    await watch(page, between.url, key, { transport, last: version });
    await until("a script is held", () => between.polls.at(-1)?.wait === "25" && between.underWay(key) >= 1);
    assert.equal(between.polls[0].last, `${version}`);
    await holdfast.set(key, `"heard"`);
    assert.deepEqual(await values(page, 1), ["heard"]);
    await state(page, "waiting");
    await until("a script is held", () => between.polls.at(-1).last !== `${version}` && between.polls.at(-1).wait === "25");
    await holdfast.set(key, `"last"`, `,"final":true`);
    await state(page, "stopped");
    assert.deepEqual(await values(page, 2), ["heard", "last"]);
    assert.ok(page.sockets.length <= 2);
  });

  test(`${transport}_that_a_proxy_refuses_is_not_asked_during_an_outage_and_tried_once_behind_it`, limit, async (t) => {
    const between = await proxy(t, holdfast.public);
    between.refusesWires = true;
    const page = await started(t);
    await page.evaluate(() => (Math.random = () => 0));    // each pause is the shortest possible
    const key = `outage-${transport}`;
    const isHeld = () => between.polls.at(-1)?.wait === "25" && between.underWay(key) === 1;
    const refused = () => between.paths.filter((path) => path === ROUTES[transport]).length;
    await watch(page, between.url, key, { transport });
    await until("a script is held", isHeld);
    assert.equal(refused(), 2);
    const { length } = between.paths;
    // The held script and the next four get no answer.
    between.spoil.push("bad_gateway");
    between.plan.push(...Array(4).fill("bad_gateway"));
    await holdfast.set(key, `"meanwhile"`);
    assert.deepEqual(await values(page, 1), ["meanwhile"]);
    assert.deepEqual(between.paths.slice(length, length + 5), Array(5).fill(ROUTES.script));
    await until("the wire is tried, and a script is held", () => refused() > 2 && isHeld());
    assert.equal(refused(), 3);
    await holdfast.set(key, `"last"`, `,"final":true`);
    await state(page, "stopped");
    assert.deepEqual(await values(page, 2), ["meanwhile", "last"]);
  });

  test(`${transport}_whose_open_connection_brings_nothing_falls_back_to_scripts`, limit, async (t) => {
    const between = await relay(t, holdfast.public);
    const page = await started(t);
    const key = `silent-${transport}`;
    between.swallows = true;
    await watch(page, between.url, key, { transport });
    await until("it is asked", () => between.count(ROUTES[transport]) === 1);
    await holdfast.set(key, `"there"`);
    await until("it asks by a script", () => between.count(ROUTES.script) === 1);
    between.swallows = false;
    between.cut();
    assert.deepEqual(await values(page, 1), ["there"]);
  });

  test(`${transport}_that_falls_silent_is_found_out`, limit, async (t) => {
    const between = await relay(t, holdfast.public);
    const page = await started(t);
    const key = `found-out-${transport}`;
    await page.clock.install();
    await watch(page, between.url, key, { transport });
    await holdfast.waiters(1);
    await holdfast.set(key, `"first"`);
    await values(page, 1);
    between.freeze();
    await holdfast.set(key, `"meanwhile"`);
    await page.clock.fastForward(26_000);
    await page.clock.fastForward(11_000);
    await told(page, "retrying");
    assert.deepEqual(await values(page, 2), ["first", "meanwhile"]);
    await until("the wire is tried again", () => between.count(ROUTES[transport]) === 2);
  });

  test(`${transport}_on_a_page_that_may_connect_but_not_load_scripts`, limit, async (t) => {
    const between = await relay(t, holdfast.public);
    const policy = `default-src 'none'; img-src data:; script-src ${holdfast.public}/holdfast.js; connect-src ${between.url} ${between.url.replace("http", "ws")}`;
    pages[`/connect-${transport}`] = [{ ...html, "content-security-policy": policy }, `${blank}<script src="${holdfast.public}/holdfast.js"></script>`];
    const page = await open(t, chromium, `${other.localhost}/connect-${transport}`);
    const key = `connect-${transport}`;
    await watch(page, between.url, key, { transport });
    await holdfast.waiters(1);
    between.cut();
    await told(page, "retrying");
    await hears(page, holdfast, key);
  });

  test(`${transport}_on_a_page_that_may_load_scripts_but_not_connect`, limit, async (t) => {
    const policy = `default-src 'none'; img-src data:; script-src ${holdfast.public}`;
    pages[`/scripts-${transport}`] = [{ ...html, "content-security-policy": policy }, `${blank}<script src="${holdfast.public}/holdfast.js"></script>`];
    const page = await open(t, chromium, `${other.localhost}/scripts-${transport}`);
    const key = `scripts-${transport}`;
    await watch(page, holdfast.public, key, { transport });
    await hears(page, holdfast, key);
  });

  test(`${transport}_that_the_browser_does_not_know_is_a_script`, limit, async (t) => {
    const page = await started(t);
    await page.evaluate(() => { delete window.WebSocket; delete window.XMLHttpRequest; });
    const key = `unknown-${transport}`;
    await watch(page, holdfast.public, key, { transport });
    await hears(page, holdfast, key);
    assert.deepEqual((await watched(page)).states, [["waiting"], ["stopped"]]);
    assert.deepEqual(page.complaints, []);
  });

  test(`${transport}_of_a_page_in_the_back_forward_cache_goes_on_when_the_page_comes_back`, limit, async (t) => {
    const caching = await browser({ ignoreDefaultArgs: ["--disable-back-forward-cache"] });
    pages[`/bfcache-${transport}`] = [html, `${blank}<script src="${holdfast.public}/holdfast.js"></script><script>
      window.watched = { statuses: [], states: [], shown: [] };
      addEventListener("pageshow", (event) => watched.shown.push(event.persisted));
      watched.watch = holdfast.watch("${holdfast.public}", "bfcache-${transport}", {
        transport: "${transport}",
        onstatus: (value, answer) => watched.statuses.push([value, answer.version]), onstate: (state) => watched.states.push([state]) });
    </script>`];
    const page = await open(t, caching, `${other.localhost}/bfcache-${transport}`);
    const key = `bfcache-${transport}`;
    await holdfast.waiters(1);
    await holdfast.set(key, `"before"`);
    await values(page, 1);
    await page.goto(`${other.localhost}/elsewhere`);
    await holdfast.waiters(0);
    await holdfast.set(key, `"meanwhile"`);
    await page.goBack({ waitUntil: "commit" });
    const shown = await until("it is there again", () => page.evaluate(() => window.watched?.shown.length && watched.shown));
    assert.equal(shown.at(-1), true, "the browser kept the page");
    await hears(page, holdfast, key, ["before", "meanwhile"]);
    assert.ok((await watched(page)).states.every(([state]) => state !== "retrying"));
  });

  test(`${transport}_cut_off_again_and_again_loses_no_status`, { timeout: 120_000 }, async (t) => {
    const between = await relay(t, holdfast.public);
    const page = await started(t);
    const key = `cut-${transport}`;
    await watch(page, between.url, key, { transport });
    for (let n = 0; n < 5; n++) {
      await holdfast.waiters(1);
      // The cut and the status meet.
      const set = holdfast.set(key, `${n}`);
      between.cut();
      await set;
      await until("it is heard", async () => (await watched(page)).last === (await set).version);
    }
    const { statuses, states } = await watched(page);
    assert.deepEqual(statuses.map(([value]) => value), [0, 1, 2, 3, 4]);
    // A cut is trouble, and the pauses after it are random.
    assert.ok(states.filter(([state]) => state === "retrying").length >= 1, JSON.stringify(states));
  });
}

test("stream_and_socket_that_are_quiet_are_not_suspected", limit, async (t) => {
  const between = await relay(t, holdfast.public);
  const page = await started(t);
  for (const transport of WIRES) await watch(page, between.url, `quiet-${transport}`, { transport }, transport);
  await holdfast.waiters(2);
  // For longer than the silence after which the page would come again.
  const end = performance.now() + 38_000;
  await until("the time is over", () => performance.now() > end, 50_000);
  assert.equal(between.asked.length, 2);
  for (const transport of WIRES) {
    await holdfast.set(`quiet-${transport}`, `1`, `,"final":true`);
    assert.deepEqual(await values(page, 1, transport), [1]);
    assert.deepEqual((await watched(page, transport)).states, [["waiting"], ["stopped"]]);
  }
});

test("stream_that_the_server_ends_is_followed_by_the_next_at_once", limit, async (t) => {
  const brief = await program({ t, args: ["--stream-life", "2s"] });
  const between = await relay(t, brief.public);
  const page = await started(t, brief);
  await brief.set("life", `"first"`);
  await watch(page, between.url, "life", { transport: "events" });
  await until("three streams", () => between.count(ROUTES.events) >= 3);
  await brief.set("life", `"last"`, `,"final":true`);
  assert.deepEqual(await values(page, 2), ["first", "last"]);
  assert.deepEqual((await watched(page)).states, [["waiting"], ["stopped"]]);
  assert.equal(between.count(ROUTES.events), between.asked.length, "no script was needed");
});

test("twenty_watches_of_one_page_share_one_socket", limit, async (t) => {
  const between = await relay(t, holdfast.public);
  const page = await started(t);
  const names = Array.from({ length: 20 }, (_, n) => `shared${n}`);
  for (const name of names) await watch(page, between.url, name, { transport: "socket" }, name);
  await holdfast.waiters(20);
  for (const name of names) await holdfast.set(name, `"${name}"`, `,"final":${name === "shared7"}`);
  for (const name of names) assert.deepEqual(await values(page, 1, name), [name]);
  await holdfast.waiters(19);
  assert.equal(between.asked.length, 1);
  // Each has been heard once, by its own watch alone.
  for (const name of names) assert.equal((await watched(page, name)).statuses.length, 1);
  // A watch that stops is not watched any more, and the others go on.
  for (const [n, name] of names.slice(10).entries()) {
    await page.evaluate((name) => window[name].watch.stop(), name);
    await holdfast.waiters(18 - n);
  }
  await holdfast.set("shared0", `"again"`);
  assert.deepEqual(await values(page, 2, "shared0"), ["shared0", "again"]);
  // The last one closes the socket.
  assert.equal(page.sockets[0].isClosed(), false);
  await page.evaluate((names) => names.forEach((name) => window[name].watch.stop()), names);
  await until("the socket is closed", () => page.sockets[0].isClosed());
  await holdfast.waiters(0);
  assert.deepEqual([page.sockets.length, between.asked.length], [1, 1]);
  assert.deepEqual(page.complaints, []);
});

test("more_than_32_keys_take_another_socket", limit, async (t) => {
  const page = await started(t);
  const names = Array.from({ length: 33 }, (_, n) => `more${n}`);
  for (const name of names) await watch(page, holdfast.public, name, { transport: "socket" }, name);
  await holdfast.waiters(33);
  for (const name of names) await holdfast.set(name, `"${name}"`, `,"final":true`);
  for (const name of names) assert.deepEqual(await values(page, 1, name), [name]);
  assert.equal(page.sockets.length, 2);
  await until("both are closed", () => page.sockets.every((socket) => socket.isClosed()));
});

test("server_that_allows_fewer_keys_on_a_socket_gets_scripts_for_the_others", limit, async (t) => {
  const few = await program({ t, args: ["--max-keys-per-socket", "2"] });
  const page = await started(t, few);
  for (const name of ["a", "b", "c"]) await watch(page, few.public, name, { transport: "socket" }, name);
  await few.waiters(3);
  for (const name of ["a", "b", "c"]) await few.set(name, `"${name}"`, `,"final":true`);
  for (const name of ["a", "b", "c"]) {
    assert.deepEqual(await values(page, 1, name), [name]);
    assert.deepEqual((await watched(page, name)).states, [["waiting"], ["stopped"]]);
  }
  assert.equal(page.sockets.length, 1);
});

test("watches_of_one_key_share_a_socket_and_each_hears_what_is_new_to_it", limit, async (t) => {
  const page = await started(t);
  const key = "twice";
  const { version } = await holdfast.set(key, `1`);
  await watch(page, holdfast.public, key, { transport: "socket" }, "one");
  await watch(page, holdfast.public, key, { transport: "socket", last: version }, "two");
  await watch(page, holdfast.public, key, { transport: "socket" }, "three");
  for (const name of ["one", "three"]) assert.deepEqual(await values(page, 1, name), [1]);
  await page.evaluate(() => three.watch.stop());
  await holdfast.waiters(1);
  await holdfast.set(key, `2`);
  assert.deepEqual(await values(page, 2, "one"), [1, 2]);
  assert.deepEqual(await values(page, 1, "two"), [2]);
  await holdfast.set(key, `3`, `,"final":true`);
  for (const name of ["one", "two"]) await state(page, "stopped", name);
  assert.deepEqual([await values(page, 3, "one"), await values(page, 2, "two"), await values(page, 1, "three")], [[1, 2, 3], [2, 3], [1]]);
  assert.equal(page.sockets.length, 1);
});

test("watch_moves_to_another_transport_and_back_without_losing_a_status", limit, async (t) => {
  const between = await relay(t, holdfast.public);
  const page = await started(t);
  const key = "moves";
  await watch(page, between.url, key);
  let n = 0;
  for (const transport of ["events", "socket", "script", "socket", "events", "auto"]) {
    await holdfast.set(key, `${n}`);
    await values(page, ++n);
    const before = between.count(ROUTES[transport] ?? ROUTES.script);
    await page.evaluate((transport) => watched.watch.use(transport), transport);
    await until("it asks by the new one", () => between.count(ROUTES[transport] ?? ROUTES.script) > before);
  }
  await holdfast.set(key, `"last"`, `,"final":true`);
  await state(page, "stopped");
  const { statuses, states } = await watched(page);
  assert.deepEqual(statuses.map(([value]) => value), [0, 1, 2, 3, 4, 5, "last"]);
  assert.deepEqual(states, [["waiting"], ["stopped"]]);
  // After the end it begins nothing.
  const { length } = between.asked;
  await page.evaluate(() => watched.watch.use("socket"));
  await page.evaluate(() => new Promise((later) => setTimeout(later, 500)));
  assert.equal(between.asked.length, length);
});

test("transport_that_does_not_exist_is_refused_at_once", limit, async (t) => {
  const page = await started(t);
  const said = await page.evaluate((base) => {
    const tried = (task) => { try { task(); } catch (error) { return `${error}`; } };
    const watching = holdfast.watch(base, "k");
    return [tried(() => holdfast.watch(base, "k", { transport: "sockets" })), tried(() => watching.use("fetch")), tried(() => watching.stop())];
  }, holdfast.public);
  assert.deepEqual(said, ["TypeError: holdfast: no transport sockets", "TypeError: holdfast: no transport fetch", undefined]);
});

test("script_only_file_hears_by_scripts", limit, async (t) => {
  const page = await open(t, chromium, other.localhost);
  await page.addScriptTag({ url: `${holdfast.public}/holdfast-script.js` });
  await watch(page, holdfast.public, "small", { transport: "socket" });
  await holdfast.waiters(1);
  // A page may change from one file to the other, so the function is there.
  await page.evaluate(() => watched.watch.use("socket"));
  await hears(page, holdfast, "small");
  const result = page.evaluate(async (base) => {
    const { once } = await import(`${base}/holdfast-script.mjs`);
    return new Promise((resolve) => once(base, "small-module", resolve));
  }, holdfast.public);
  await holdfast.waiters(1);
  await holdfast.set("small-module", `"heard"`);
  assert.equal(await result, "heard");
  assert.deepEqual(page.complaints, []);
});

test("events_of_two_tabs_with_one_key_are_both_heard", limit, async (t) => {
  const page = await started(t);
  const second = await page.context().newPage();
  await second.goto(other.localhost);
  await second.addScriptTag({ url: `${holdfast.public}/holdfast.js` });
  for (const of of [page, second]) await watch(of, holdfast.public, "tabs", { transport: "events" });
  await holdfast.waiters(2);
  await holdfast.set("tabs", `1`, `,"final":true`);
  for (const of of [page, second]) assert.deepEqual(await values(of, 1), [1]);
});
