// Tests of holdfast.js in a bad world: answers that are cut off, late, doubled or not from holdfast; servers that
// drain, die and come back; pages that sleep. After each test, every status has been reported once and in order, and
// the program has held one poll at a time.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { browser, limit, program, site, until } from "./harness.mjs";
import { misdeeds, proxy } from "./proxy.mjs";
import { leftovers, loaded, online, pause, state, told, values, watch, watched } from "./watching.mjs";

let chromium, holdfast, other;
before(async () => ([chromium, holdfast, other] = await Promise.all([browser(), program(), site()])));

/** Opens a page that watches `key` through a proxy, which follows `plan`. */
async function through(t, key, { plan = [], options = {}, clock = "", from = holdfast } = {}) {
  const between = await proxy(t, from.public);
  between.plan.push(...plan);
  const page = await loaded(t, chromium, other.localhost, from.public);
  if (clock === "runs") await page.clock.install();
  if (clock === "stands") await pause(page);
  await watch(page, between.url, key, options);
  if (clock === "stands") await page.clock.runFor(1);
  return { page, between };
}

/** Checks that all is well at the end: polls are held again, one at a time, and nothing is left in the page. */
async function well(page, between, key, expected, from = holdfast) {
  await state(page, "waiting");
  await until("a poll is held", async () => between.polls.at(-1).wait !== "0" && between.underWay(key) === 1);
  await from.set(key, `"last"`, `,"final":true`);
  assert.deepEqual(await values(page, expected.length + 1), [...expected, "last"]);
  await state(page, "stopped");
  assert.deepEqual(await leftovers(page), [0, 0]);
  assert.equal(between.mostAtOnce, 1, "one poll at a time");
  const { statuses } = await watched(page);
  assert.deepEqual(statuses.map(([, version]) => version), statuses.map(([, version]) => version).toSorted((a, b) => a - b));
}

// Errors that a page cannot prevent: the browser reports a script that is not a script, or did not come.
const expectedComplaints = /^console: Failed to load resource|SyntaxError|ERR_|blocked/;

// Four at once, because most of their time is pauses after a failure.
test("misdeeds", { timeout: 120_000, concurrency: 4 }, (t) => Promise.all(Object.keys(misdeeds).map((misdeed) =>
  t.test(`answer_that_is_${misdeed}_costs_no_status`, limit, async (t) => {
    // The answers with two statuses are spoiled: each is lost, or comes in part.
    const key = misdeed;
    await holdfast.set(key, `"first"`);
    const { page, between } = await through(t, key, { plan: [misdeed, misdeed] });
    assert.deepEqual(await values(page, 1), ["first"]);
    await until("the next poll is held", () => between.polls.at(-1).wait !== "0" && between.polls.at(-1).last !== "0" && between.underWay(key) === 1);
    between.spoil.push(misdeed);
    await holdfast.set(key, `"second"`);
    await values(page, 2);
    await well(page, between, key, ["first", "second"]);
    const states = (await watched(page)).states.map(([state]) => state);
    if (misdeed === "doubled") assert.deepEqual(states, ["waiting", "stopped"]);
    // If the connection was used before, the browser itself asks once more.
    else if (misdeed !== "cut_off_before_the_head") assert.deepEqual(states.slice(0, 4), ["waiting", "retrying", "waiting", "retrying"]);
    for (const complaint of page.complaints) assert.match(complaint, expectedComplaints);
  }),
)));

test("answer_with_an_older_status_is_not_told", limit, async (t) => {
  const key = "older";
  let replayed;
  const record = async (response, answer) => {
    replayed = (await answer).body.toString();
    response.writeHead(200, { "content-type": "text/javascript" }).end(replayed);
  };
  const replay = (response) =>
    response.writeHead(200, { "content-type": "text/javascript" }).end(replayed.replace(/holdfast_\w+/g, between.polls.at(-1).callback));
  await holdfast.set(key, `"old"`);
  const { page, between } = await through(t, key, { plan: [record, replay, replay] });
  // A cache that returns an old answer is trouble, not a new status. The page does not ask again at once.
  await until("it was asked beyond the replays", () => between.polls.length >= 4);
  await well(page, between, key, ["old"]);
});

test("slow_first_byte_is_waited_for", limit, async (t) => {
  const key = "slow";
  await holdfast.set(key, `"slow"`);
  const slow = async (response, answer) => {
    const { headers, body } = await answer;
    setTimeout(() => response.writeHead(200, headers).end(body), 1500);
  };
  const { page, between } = await through(t, key, { plan: [slow] });
  assert.deepEqual(await values(page, 1), ["slow"]);
  assert.equal(between.polls[0].last, "0");
  await well(page, between, key, ["slow"]);
  assert.deepEqual((await watched(page)).states, [["waiting"], ["stopped"]]);
  assert.deepEqual(page.complaints, []);
});

test("answer_delayed_beyond_the_watchdog_is_given_up_and_does_no_harm_when_it_comes", limit, async (t) => {
  const key = "watchdog";
  await holdfast.set(key, `"first"`);
  const late = [];
  const delay = async (response, answer) => {
    const { headers, body } = await answer;
    late.push(() => response.writeHead(200, headers).end(body));
  };
  const { page, between } = await through(t, key, { plan: [delay, delay], clock: "stands" });
  await until("the first is delayed", () => late.length === 1);
  // The page must wait for the longest hold and a margin.
  await page.clock.fastForward(30_000);
  assert.deepEqual((await watched(page)).states, [["waiting"]]);
  await page.clock.fastForward(6_000);
  await state(page, "retrying");
  // The same again, with a poll that is not held.
  await page.clock.fastForward(2_000);
  await until("the second is delayed", () => late.length === 2);
  assert.equal(between.polls[1].wait, "0");
  await page.clock.fastForward(36_000);
  await until("a third", async () => (await page.clock.fastForward(1_000), between.polls.length > 2));
  assert.deepEqual(await values(page, 1), ["first"]);
  late.forEach((answer) => answer());
  await page.clock.resume();
  await well(page, between, key, ["first"]);
  assert.deepEqual(page.complaints, [], "a late script finds no function and is silent");
});

test("proxy_that_drops_a_held_poll_in_silence_is_found_out", limit, async (t) => {
  const key = "silence";
  // The server's answer "timeout" never arrives.
  const silent = () => {};
  const brief = await program({ t, args: ["--hold", "1s"] });
  const { page, between } = await through(t, key, { plan: [silent], clock: "runs", from: brief });
  await until("its server has answered", () => between.polls.length === 1 && between.underWay(key) === 0);
  await brief.set(key, `"meanwhile"`);
  await page.clock.fastForward(36_000);
  await told(page, "retrying");
  await page.clock.resume();
  assert.deepEqual(await values(page, 1), ["meanwhile"]);
  await well(page, between, key, ["meanwhile"], brief);
});

test("refused_connections_are_tried_again_later_each_time_and_at_random", limit, async (t) => {
  const key = "refused";
  const { page, between } = await through(t, key);
  await until("a poll", () => between.underWay(key) === 1);
  await between.refuse();
  await state(page, "retrying");
  await holdfast.set(key, `"meanwhile"`);
  await until("three failures", () => page.complaints.filter((complaint) => /ERR_/.test(complaint)).length >= 3);
  await between.listen();
  // Without the event, the pause before the fourth try may be eight seconds.
  await page.evaluate(() => dispatchEvent(new Event("online")));
  assert.deepEqual(await values(page, 1), ["meanwhile"]);
  await well(page, between, key, ["meanwhile"]);
  assert.deepEqual((await watched(page)).states, [["waiting"], ["retrying"], ["waiting"], ["stopped"]]);
});

test("rests_are_random_between_half_a_second_and_a_bound_that_doubles_to_30_s", limit, async (t) => {
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  const rests = await page.evaluate(async (base) => {
    // Timers fire at once, and their delays are recorded. The timer that drops a poll is left as it is.
    const WATCHDOG = 35_000;
    const asked = [];
    const timer = setTimeout;
    window.setTimeout = (task, milliseconds = 0) => (asked.push(milliseconds), timer(task, milliseconds === WATCHDOG ? WATCHDOG : 0));
    const rests = [];
    const rested = () => asked.filter((milliseconds) => milliseconds > 0 && milliseconds !== WATCHDOG);
    for (let n = 0; n < 12; n++) {
      asked.length = 0;
      const watching = holdfast.watch(base, "rests", {});
      while (rested().length < 8) await new Promise((later) => timer(later, 5));
      watching.stop();
      rests.push(rested().slice(0, 8));
    }
    return rests;
  }, "http://127.0.0.1:9");
  rests.forEach((of) => of.forEach((rest, n) => {
    const bound = Math.min(30_000, 1000 * 2 ** (n + 1));
    assert.ok(rest >= 500 && rest <= bound, `${rest} ms after failure ${n + 1}`);
  }));
  const last = rests.map((of) => of[7]);
  assert.ok(Math.max(...last) - Math.min(...last) > 5_000, `spread: ${last}`);
});

test("drained_node_is_left_and_its_successor_found", limit, async (t) => {
  const key = "drained";
  // The page has no other node to go to. Each time it asks, the drain takes longer.
  const old = await program({ t, args: ["--drain-quiet", "100ms"] });
  const { page, between } = await through(t, key, { from: old });
  await old.waiters(1);
  old.terminate();
  await until("it says retry", async () => (await watched(page)).states.length > 1);
  assert.deepEqual((await watched(page)).states.slice(0, 2), [["waiting"], ["retrying", -2]]);
  assert.equal(await old.exited, 0);
  const young = await program({ t, args: old.listeners });
  await young.set(key, `"from the successor"`);
  assert.deepEqual(await values(page, 1), ["from the successor"]);
  await well(page, between, key, ["from the successor"], young);
});

test("restart_of_a_lone_node_is_told_once", limit, async (t) => {
  const key = "restarted";
  // The drain ends only if the page stays away for long enough.
  const old = await program({ t, args: ["--drain-grace", "10m"] });
  const page = await loaded(t, chromium, other.localhost, old.public);
  await watch(page, old.public, key);
  await old.waiters(1);
  old.terminate();
  assert.equal(await old.exited, 0);
  const young = await program({ t, args: old.listeners });
  await young.waiters(1);
  await state(page, "waiting");
  await young.set(key, `"from the successor"`);
  assert.deepEqual(await values(page, 1), ["from the successor"]);
  assert.deepEqual((await watched(page)).states, [["waiting"], ["retrying", -2], ["waiting"]]);
});

test("killed_node_that_comes_back_is_found", limit, async (t) => {
  const key = "killed";
  const old = await program({ t });
  const { page, between } = await through(t, key, { from: old });
  await old.waiters(1);
  await old.set(key, `"before"`);
  await values(page, 1);
  await old.waiters(1);
  await old.kill();
  await state(page, "retrying");
  const young = await program({ t, args: old.listeners });
  await young.set(key, `"after"`);
  assert.deepEqual(await values(page, 2), ["before", "after"]);
  await well(page, between, key, ["before", "after"], young);
});

test("offline_is_told_and_coming_online_asks_at_once", limit, async (t) => {
  const key = "offline";
  const { page, between } = await through(t, key, { clock: "runs" });
  await until("a poll is held", () => between.underWay(key) === 1);
  await page.clock.pauseAt(Date.now() + 3_600_000);    // no pause after a failure ends by itself
  await page.context().setOffline(true);
  await state(page, "offline");
  await between.refuse();
  await holdfast.set(key, `"meanwhile"`);
  await between.listen();
  await page.context().setOffline(false);
  // The browser's event may come late.
  await until("it hears", async () => (await page.clock.runFor(1), (await watched(page)).statuses.length > 0));
  assert.deepEqual(await values(page, 1), ["meanwhile"]);
  await page.clock.resume();
  await well(page, between, key, ["meanwhile"]);
  const { states } = await watched(page);
  assert.ok(states.some(([state]) => state === "offline"), JSON.stringify(states));
});

test("failure_without_a_network_is_told_as_offline", limit, async (t) => {
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  // As if the network failed before the watch began: there is no event.
  await online(page, false);
  await watch(page, "http://127.0.0.1:9", "none");
  await state(page, "offline");
  assert.deepEqual((await watched(page)).states, [["waiting"], ["offline"]]);
});

test("proxy_that_refuses_held_polls_alone_is_asked_less_and_less", limit, async (t) => {
  const key = "refuses-held";
  const between = await proxy(t, holdfast.public);
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  await pause(page);
  await page.evaluate(() => (Math.random = () => 1));    // each pause is the longest possible
  between.plan.push(..."12345".split("").flatMap(() => ["bad_gateway", between.say({ code: -1 })]));
  await watch(page, between.url, key);
  await page.clock.runFor(1);
  for (const [n, rest] of [2_000, 4_000, 8_000, 16_000, 30_000].entries()) {
    await until("a held poll has failed", async () => between.polls.length === 2 * n + 1 && (await watched(page)).state === "retrying");
    await page.clock.runFor(rest - 10);
    assert.equal(between.polls.length, 2 * n + 1, `not before ${rest} ms`);
    await page.clock.runFor(20);
    await until("one that is not held was answered, and the next is asked", () => between.polls.length === 2 * n + 3);
  }
});

test("five_hundred_polls_leave_nothing_behind", { timeout: 120_000 }, async (t) => {
  const key = "leak";
  const { page, between } = await through(t, key);
  const client = await page.context().newCDPSession(page);
  await client.send("Performance.enable");
  const measure = async () => {
    await client.send("HeapProfiler.collectGarbage");
    const { metrics } = await client.send("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  };
  // Count the statuses and do not keep them, because a kept status would look like a leak.
  await page.evaluate(() => (watched.statuses = { push: ([value]) => { window.newest = value; window.told = (window.told ?? 0) + 1; } }));
  let n = 0;
  const round = async (count) => {
    for (const end = n + count; n < end; n++) {
      await until("the poll is held", () => between.underWay(key) === 1);
      await holdfast.set(key, `${n}`);
      await until("it is reported", () => between.polls.length > n + 1);
    }
    await until("the last one is reported", () => page.evaluate((n) => window.newest === n - 1, n));
  };
  await round(50);
  const before = await measure();
  await round(500);
  const after = await measure();
  assert.ok(between.polls.length > 550);
  assert.equal(await page.evaluate(() => window.told), 550, "each status once");
  assert.equal(between.mostAtOnce, 1);
  assert.deepEqual(await leftovers(page), [1, 1], "of the poll that is held");
  for (const what of ["Nodes", "JSEventListeners", "Documents"]) assert.ok(after[what] <= before[what] + 10, `${what}: ${before[what]}, then ${after[what]}`);
  const growth = (after.JSHeapUsedSize - before.JSHeapUsedSize) / 500;
  assert.ok(growth < 1024, `${growth} bytes of heap a poll`);
});
