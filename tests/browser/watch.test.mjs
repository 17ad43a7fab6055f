// Tests of holdfast.js with the real server, on a page of another origin: its reports, its polls and its ends.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { browser, limit, program, site, tab, until } from "./harness.mjs";
import { proxy } from "./proxy.mjs";
import { leftovers, loaded, online, pause, state, told, values, watch, watched } from "./watching.mjs";

let chromium, holdfast, other;
before(async () => ([chromium, holdfast, other] = await Promise.all([browser(), program(), site()])));

const started = (t, options) => loaded(t, chromium, other.localhost, holdfast.public, options);

test("every_status_is_told_once_in_order_and_the_final_one_ends_the_watch", limit, async (t) => {
  const page = await started(t);
  const { version: known } = await holdfast.set("flow", `"waiting"`);
  await watch(page, holdfast.public, "flow");
  assert.deepEqual(await values(page, 1), ["waiting"]);
  await holdfast.waiters(1);
  const { version: scanned } = await holdfast.set("flow", `{"state":"scanned"}`);
  await values(page, 2);
  await holdfast.waiters(1);
  const { version: confirmed } = await holdfast.set("flow", `{"state":"confirmed"}`, `,"final":true`);
  await state(page, "stopped");
  assert.deepEqual(await watched(page), {
    states: [["waiting"], ["stopped"]],
    statuses: [["waiting", known], [{ state: "scanned" }, scanned], [{ state: "confirmed" }, confirmed]],
    gone: [], errors: [], state: "stopped", last: confirmed,
  });
  await holdfast.waiters(0);
  assert.deepEqual(await leftovers(page), [0, 0]);
  assert.deepEqual(page.complaints, []);
});

test("poll_says_what_it_knows_and_how_long_it_waits_by_a_name_of_64_random_bits", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const page = await started(t);
  await watch(page, between.url + "/", "a b/ü&?", { last: 5, wait: 7 });
  await until("a poll", () => between.polls.length === 1);
  const [{ callback, ...poll }] = between.polls;
  assert.deepEqual(poll, { key: "a b/ü&?", last: "5", wait: "7" });
  assert.match(callback, /^holdfast_[0-9a-z]{1,7}_[0-9a-z]{1,7}$/);
  // The server refuses a key that is not printable ASCII, and the watch ends.
  await state(page, "stopped");
  const { errors } = await watched(page);
  assert.deepEqual(errors, ["key: must be printable ASCII without spaces (! to ~)"]);

  await watch(page, between.url, "defaults");
  await until("its poll", () => between.polls.length === 2);
  assert.deepEqual({ ...between.polls[1], callback: "" }, { key: "defaults", callback: "", last: "0", wait: "25" });
  // All 64 bits come from the browser's secure random source.
  await page.evaluate(() => (crypto.getRandomValues = (words) => words.fill(0xfedcba98, 0, 1).fill(0x76543210, 1)));
  await watch(page, between.url, "named");
  await until("its poll", () => between.polls.length === 3);
  assert.equal(between.polls[2].callback, `holdfast_${(0xfedcba98).toString(36)}_${(0x76543210).toString(36)}`);
});

test("poll_tells_no_referrer", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const page = await loaded(t, chromium, `${other.localhost}/?key=secret`, holdfast.public);
  await watch(page, between.url, "referrer");
  await until("a poll", () => between.headers.length === 1);
  assert.equal(between.headers[0].referer, undefined);
});

test("timeout_is_followed_by_the_next_poll_at_once", limit, async (t) => {
  const brief = await program({ t, args: ["--hold", "2s"] });
  const between = await proxy(t, brief.public);
  const page = await started(t);
  await watch(page, between.url, "timeout");
  await until("three polls", () => between.polls.length >= 3);
  assert.deepEqual((await watched(page)).states, [["waiting"]]);
  assert.equal(between.mostAtOnce, 1);
  // The page's own times are used, because load on the machine does not stretch them. No two polls are a second apart.
  const gaps = await page.evaluate(() => {
    const polls = performance.getEntriesByType("resource").filter((entry) => entry.name.includes("/status/get"));
    return polls.slice(1).map((poll, n) => poll.startTime - polls[n].responseEnd);
  });
  assert.ok(gaps.length >= 1 && gaps.every((gap) => gap < 900), `${gaps} ms`);
});

test("wait_0_asks_once_a_second", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const page = await started(t);
  const began = performance.now();
  await watch(page, between.url, "short", { wait: 0 });
  await until("four polls", () => between.polls.length >= 4);
  const took = performance.now() - began;
  const { length } = between.polls;
  assert.ok(took > (length - 1.5) * 1000, `a second lies between two of ${length} polls in ${took} ms`);
  assert.deepEqual(new Set(between.polls.map((poll) => poll.wait)), new Set(["0"]));
});

test("server_that_says_timeout_at_once_is_asked_once_a_second", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(...Array(20).fill(between.say({ code: -1 })));
  const page = await started(t);
  const began = performance.now();
  await watch(page, between.url, "hot");
  await until("three polls", () => between.polls.length >= 3);
  assert.ok(performance.now() - began > 1500);
});

test("deleted_key_is_gone_and_ends_the_watch", limit, async (t) => {
  const page = await started(t);
  await watch(page, holdfast.public, "deleted");
  await holdfast.waiters(1);
  await holdfast.forget("deleted");
  await state(page, "stopped");
  const { gone, errors, states } = await watched(page);
  assert.deepEqual([gone, errors, states], [[-4], [], [["waiting"], ["stopped"]]]);
});

for (const [mistake, options] of [["last: must be a version (a whole number)", { last: -1 }], ["wait: must be a number of seconds", { wait: "long" }], ["wait: must be a number of seconds", { wait: Infinity }]]) {
  test(`mistake_of_the_page_ends_the_watch_with_its_message_${Object.keys(options)}_${Object.values(options)}`, limit, async (t) => {
    const page = await started(t);
    await watch(page, holdfast.public, "mistake", options);
    await state(page, "stopped");
    const { errors, statuses } = await watched(page);
    assert.deepEqual([errors, statuses], [[mistake], []]);
  });
}

test("base_and_key_that_are_no_strings_are_refused_at_once", limit, async (t) => {
  const page = await started(t);
  for (const args of [[], ["http://127.0.0.1:9"], [undefined, "k"], ["http://127.0.0.1:9", 5], ["http://127.0.0.1:9", null]]) {
    const message = await page.evaluate((args) => { try { holdfast.watch(...args); } catch (error) { return `${error}`; } }, args);
    assert.equal(message, "TypeError: holdfast: base and key must be strings");
  }
  await holdfast.waiters(0);
});

test("full_server_is_asked_again_when_it_says", limit, async (t) => {
  const full = await program({ t, args: ["--max-waiters-per-key", "1"] });
  const page = await started(t);
  await watch(page, full.public, "full", {}, "first");
  await full.waiters(1);
  const between = await proxy(t, full.public);
  await watch(page, between.url, "full", {}, "second");
  await until("it was refused more than once", () => between.polls.length > 3);
  // `retrying` is reported once, and `waiting` only when a poll is held, which no poll is here. On a busy machine an
  // answer may take a second, and then its poll seems to be held.
  const { states } = await watched(page, "second");
  assert.deepEqual(states.slice(0, 2), [["waiting"], ["retrying", -3]]);
  const slowest = await page.evaluate((url) => {
    const polls = performance.getEntriesByType("resource").filter((entry) => entry.name.startsWith(url));
    return Math.max(...polls.map((poll) => poll.duration));
  }, between.url);
  if (slowest < 900) assert.equal(states.length, 2, JSON.stringify(states));
  assert.deepEqual(new Set(between.polls.map((poll) => poll.wait)), new Set(["25"]));
  await full.set("full", `1`, `,"final":true`);
  for (const name of ["first", "second"]) assert.deepEqual(await values(page, 1, name), [1]);
});

test("server_that_has_room_again_is_known_by_its_silence", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(between.say({ code: -3, retry_after_ms: 100 }));
  const page = await started(t);
  await watch(page, between.url, "room");
  await told(page, "retrying");
  await state(page, "waiting");
  assert.equal(between.polls.length, 2);
  assert.equal(between.underWay("room"), 1, "it is held");
});

test("server_that_leaves_is_no_trouble_and_the_next_poll_is_held", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(between.say({ code: -2, retry_after_ms: 100 }));
  const page = await started(t);
  await watch(page, between.url, "leaves");
  await until("the next is held", () => between.polls.length > 1 && between.underWay("leaves") === 1);
  // No poll with `wait=0` is sent before it.
  assert.deepEqual(between.polls.map((poll) => poll.wait), ["25", "25"]);
  await state(page, "waiting");
  assert.deepEqual((await watched(page)).states, [["waiting"], ["retrying", -2], ["waiting"]]);
});

test("answer_whose_version_is_no_number_is_not_told", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(between.say({ code: 0, value: "odd", version: "5" }));
  const page = await started(t);
  await watch(page, between.url, "odd");
  await until("the next", () => between.polls.length > 1);
  const { statuses, states } = await watched(page);
  assert.deepEqual([statuses, states.slice(0, 2), between.polls[1].last], [[], [["waiting"], ["retrying", 0]], "0"]);
});

test("full_server_that_falls_silent_is_found_out", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(between.say({ code: -3, retry_after_ms: 100 }), () => {});
  const page = await started(t);
  await page.clock.install();
  await watch(page, between.url, "silent");
  await told(page, "retrying");
  await state(page, "waiting");
  await page.clock.fastForward(36_000);
  // The state may pass, because the next poll, within two seconds, shows that all is well.
  await until("it is in trouble", async () => (await watched(page)).states.filter(([state]) => state === "retrying").length >= 2);
});

test("full_server_whose_store_is_out_of_reach_is_in_trouble", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(...[-3, -6].map((code) => between.say({ code, retry_after_ms: 100 })));
  const page = await started(t);
  await watch(page, between.url, "full-and-out");
  await until("three polls", () => between.polls.length >= 3);
  assert.equal(between.polls[2].wait, "0");
});

test("full_server_that_tells_a_status_has_room", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(between.say({ code: -3, retry_after_ms: 100 }), ...[1, 2].map((version) => between.say({ code: 0, value: version, version })));
  const page = await started(t);
  await watch(page, between.url, "full-no-more");
  await values(page, 2);
  assert.deepEqual((await watched(page)).states, [["waiting"], ["retrying", -3], ["waiting"]]);
});

test("event_while_a_server_is_full_does_not_say_that_all_is_well", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(between.say({ code: -3, retry_after_ms: 600_000 }));
  const page = await started(t);
  await watch(page, between.url, "still-full");
  await state(page, "retrying");
  assert.equal(await page.evaluate(() => (dispatchEvent(new Event("online")), watched.watch.state)), "retrying");
});

test("status_is_followed_by_the_next_poll_at_once", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(...[1, 2, 3].map((version) => between.say({ code: 0, value: version, version })));
  const page = await started(t);
  await pause(page);
  await watch(page, between.url, "at-once");
  await page.clock.runFor(1);
  await until("the fourth, by no timer", () => between.polls.length === 4);
});

test("status_ends_a_row_of_failures", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push("bad_gateway", between.say({ code: 0, value: 1, version: 1 }), "bad_gateway");
  const page = await started(t);
  await pause(page);
  await page.evaluate(() => (Math.random = () => 1));    // each pause is the longest possible
  await watch(page, between.url, "row");
  await page.clock.runFor(1);
  await state(page, "retrying");
  await page.clock.runFor(2_000);
  await values(page, 1);
  await state(page, "retrying");
  await page.clock.runFor(2_000);
  // The fourth comes after trouble, so it is answered at once, and a fifth follows.
  await until("the fourth", () => between.polls.length >= 4);
});

test("store_out_of_reach_is_told_until_it_is_back", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  // -99 stands for a code of a later version of holdfast.
  between.plan.push(...[{ code: -6, retry_after_ms: 150 }, { code: -6, retry_after_ms: 100 }, { code: -99, retry_after_ms: 120 }, { code: -6 }].map(between.say));
  const page = await started(t);
  await watch(page, between.url, "unavailable");
  await until("all of them, and two more", () => between.polls.length === 6);
  await holdfast.waiters(1);
  // All these answers are one change of the state. The poll that showed that all is well again was not held.
  assert.deepEqual((await watched(page)).states, [["waiting"], ["retrying", -6], ["waiting"]]);
  assert.deepEqual(between.polls.map((poll) => poll.wait), ["25", "0", "0", "0", "0", "25"]);
  assert.equal(between.mostAtOnce, 1);
});

test("stop_ends_it_and_what_comes_later_is_not_heard", limit, async (t) => {
  const page = await started(t);
  await watch(page, holdfast.public, "stopped");
  await holdfast.waiters(1);
  await page.evaluate(() => watched.watch.stop());
  await page.evaluate(() => watched.watch.stop());
  assert.deepEqual(await leftovers(page), [0, 0]);
  const arrived = page.waitForEvent("requestfinished");
  await holdfast.set("stopped", `1`);
  await arrived;
  await watch(page, holdfast.public, "another", {}, "another");
  await holdfast.waiters(1);
  const { statuses, states } = await watched(page);
  assert.deepEqual([statuses, states], [[], [["waiting"], ["stopped"]]]);
  assert.deepEqual(page.complaints, []);
});

/** Starts a watch that its own listener stops when it gets `when`. Returns the page and the proxy. */
async function stopping(t, key, listener, when, plan = () => [], isOnline = true) {
  const between = await proxy(t, holdfast.public);
  between.plan.push(...plan(between));
  const page = await started(t);
  await online(page, isOnline);
  await page.evaluate(({ base, key, listener, when }) => {
    window.calls = [];
    const watching = holdfast.watch(base, key, { [listener]: (told) => { calls.push(told); if (told === when) watching.stop(); } });
    window.watched = { watch: watching };
  }, { base: between.url, key, listener, when });
  return { page, between };
}

async function stopped({ page, between }, polls, calls) {
  await state(page, "stopped");
  // No event starts the watch again.
  await page.evaluate(() => ["online", "offline", "pageshow"].forEach((name) => dispatchEvent(new Event(name))));
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange", { bubbles: true })));
  await page.evaluate(() => new Promise((later) => setTimeout(later, 1200)));
  assert.equal(between.polls.length, polls);
  assert.deepEqual(await page.evaluate(() => calls), calls);
  assert.deepEqual(await leftovers(page), [0, 0]);
}

test("stop_within_the_first_onstate_asks_nothing", limit, async (t) => {
  await stopped(await stopping(t, "stop-first", "onstate", "waiting"), 0, ["waiting", "stopped"]);
});

test("stop_within_a_later_onstate_ends_it", limit, async (t) => {
  await stopped(await stopping(t, "stop-later", "onstate", "retrying", ({ say }) => [say({ code: -3, retry_after_ms: 100 })]), 1, ["waiting", "retrying", "stopped"]);
});

test("stop_within_the_onstate_of_an_event_ends_it", limit, async (t) => {
  const watching = await stopping(t, "stop-event", "onstate", "retrying", ({ say }) => [say({ code: -6, retry_after_ms: 600_000 })], false);
  const { page, between } = watching;
  await state(page, "offline");
  await online(page, true);
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await stopped(watching, between.polls.length, ["waiting", "offline", "retrying", "stopped"]);
});

test("stop_within_the_onstate_of_a_server_that_has_room_again_ends_it", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(between.say({ code: -3, retry_after_ms: 100 }));
  const page = await started(t);
  await page.clock.install();
  await page.evaluate((base) => {
    window.calls = [];
    const watching = holdfast.watch(base, "stop-room", { onstate: (told) => { calls.push(told); if (calls.length === 3) watching.stop(); } });
    window.watched = { watch: watching };
  }, between.url);
  await state(page, "stopped");
  // The timer that drops a poll must not fire for a poll that was removed.
  await page.clock.fastForward(60_000);
  assert.deepEqual(await page.evaluate(() => calls), ["waiting", "retrying", "waiting", "stopped"]);
  assert.deepEqual(await leftovers(page), [0, 0]);
  assert.deepEqual([between.polls.length, page.complaints], [2, []]);
});

test("stop_within_onstatus_ends_it", limit, async (t) => {
  await holdfast.set("stop-status", `1`);
  await stopped(await stopping(t, "stop-status", "onstatus", 1), 1, [1]);
});

test("listener_that_raises_an_event_of_the_browser_s_does_not_double_the_polls", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const page = await started(t);
  await page.evaluate((base) => {
    window.values = [];
    const raise = () => ["online", "pageshow"].forEach((name) => dispatchEvent(new Event(name)));
    window.watching = holdfast.watch(base, "raises", { onstatus: (value) => (values.push(value), raise()), onstate: raise });
  }, between.url);
  for (let n = 0; n < 5; n++) {
    await until("a poll is held", () => between.underWay("raises") === 1);
    await holdfast.set("raises", `${n}`);
    await until("it is heard", () => page.evaluate((n) => values.includes(n), n));
  }
  between.spoil.push("bad_gateway");
  await holdfast.set("raises", `5`);
  await until("it is heard", () => page.evaluate(() => values.includes(5)));
  assert.deepEqual(await page.evaluate(() => values), [0, 1, 2, 3, 4, 5]);
  assert.equal(between.mostAtOnce, 1);
  await page.evaluate(() => watching.stop());
  assert.deepEqual(await leftovers(page), [0, 0]);
});

test("key_that_is_no_text_is_refused_at_once", limit, async (t) => {
  const page = await started(t);
  assert.match(await page.evaluate(() => { try { holdfast.watch("", "\ud800"); } catch (error) { return `${error}`; } }), /^URIError/);
});

test("listener_that_throws_is_told_to_the_page_and_the_watch_goes_on", limit, async (t) => {
  const page = await started(t);
  await page.evaluate((base) => {
    window.values = [];
    holdfast.watch(base, "throws", { onstatus: (value) => { values.push(value); throw new Error(`no ${value}`); }, onstate: () => { throw new Error("no state"); } });
  }, holdfast.public);
  for (const value of [1, 2]) {
    await holdfast.waiters(1);
    await holdfast.set("throws", `${value}`);
    await until("it is heard", () => page.evaluate((value) => values.includes(value), value));
  }
  await until("all errors are reported", () => page.complaints.length === 3);
  assert.deepEqual(page.complaints, ["pageerror: no state", "pageerror: no 1", "pageerror: no 2"]);
});

test("give_up_after_ends_it_with_an_error", limit, async (t) => {
  const page = await started(t);
  await watch(page, holdfast.public, "patience", { giveUpAfter: 0.5 });
  await watch(page, holdfast.public, "patience", { giveUpAfter: 1e9 }, "patient");
  await watch(page, holdfast.public, "patience", { giveUpAfter: Infinity }, "endless");
  await state(page, "stopped");
  const { errors, states, statuses } = await watched(page);
  assert.deepEqual([errors, states, statuses], [["given up"], [["waiting"], ["stopped"]], []]);
  // A watch that was stopped before does not give up.
  await page.evaluate((base) => {
    window.late = [];
    holdfast.watch(base, "patience", { giveUpAfter: 0.3, onerror: (message) => late.push(message) }).stop();
  }, holdfast.public);
  await watch(page, holdfast.public, "patience", { giveUpAfter: 0 }, "at_once");
  await state(page, "stopped", "at_once");
  await page.evaluate(() => new Promise((later) => setTimeout(later, 500)));
  assert.deepEqual(await page.evaluate(() => late), []);
  await holdfast.set("patience", `1`);
  for (const name of ["patient", "endless"]) assert.deepEqual(await values(page, 1, name), [1]);
  await page.evaluate(() => [patient, endless].forEach(({ watch }) => watch.stop()));
});

test("once_tells_the_first_status_and_stops", limit, async (t) => {
  const page = await started(t);
  const first = page.evaluate((base) => new Promise((resolve) => (window.handle = holdfast.once(base, "once", (...given) => resolve(given)))), holdfast.public);
  await holdfast.waiters(1);
  const { version } = await holdfast.set("once", `{"paid":true}`);
  assert.deepEqual(await first, [{ paid: true }, { code: 0, message: "success", value: { paid: true }, version, final: false }]);
  assert.equal(await page.evaluate(() => handle.state), "stopped");
  await holdfast.waiters(0);
  assert.deepEqual(await leftovers(page), [0, 0]);
});

test("once_tells_what_makes_a_status_impossible", limit, async (t) => {
  const page = await started(t);
  const once = (key) => page.evaluate(({ base, key }) => new Promise((resolve) => holdfast.once(base, key, (value, answer) => resolve([value, answer.code]))), { base: holdfast.public, key });
  const gone = once("once-gone");
  await holdfast.waiters(1);
  await holdfast.forget("once-gone");
  assert.deepEqual(await gone, [null, -4]);
  assert.deepEqual(await once("not printable"), [null, -5]);
});

test("two_watches_of_one_key_in_one_page_and_in_two_tabs_all_hear_it", limit, async (t) => {
  const page = await started(t);
  const second = await tab(page.context(), other.localhost);
  await second.addScriptTag({ url: `${holdfast.public}/holdfast.js` });
  await watch(page, holdfast.public, "both", {}, "one");
  await watch(page, holdfast.public, "both", {}, "two");
  await watch(second, holdfast.public, "both");
  await holdfast.waiters(3);
  assert.equal((await holdfast.set("both", `"there"`, `,"final":true`)).delivered, 3);
  for (const [of, name] of [[page, "one"], [page, "two"], [second, "watched"]]) assert.deepEqual(await values(of, 1, name), ["there"]);
});

test("module_is_the_same_and_adds_no_global", limit, async (t) => {
  const page = await started(t);
  await page.goto(other.localhost);
  const result = await page.evaluate(async (base) => {
    const before = Object.keys(window);
    const module = await import(`${base}/holdfast.mjs`);
    window.module = module;
    const after = Object.keys(window).filter((name) => !before.includes(name) && name !== "module");
    return [Object.keys(module).sort(), module.default.watch === module.watch, after];
  }, holdfast.public);
  assert.deepEqual(result, [["default", "once", "watch"], true, []]);
  const first = page.evaluate((base) => new Promise((resolve) => module.once(base, "module", resolve)), holdfast.public);
  await holdfast.waiters(1);
  await holdfast.set("module", `"heard"`);
  assert.equal(await first, "heard");
  assert.deepEqual(page.complaints, []);
});

test("script_adds_one_global", limit, async (t) => {
  const page = await started(t);
  const added = await page.evaluate(async () => {
    const frame = document.body.appendChild(document.createElement("iframe"));
    const plain = new Set(Object.getOwnPropertyNames(frame.contentWindow));
    return Object.getOwnPropertyNames(window).filter((name) => !plain.has(name) && Number.isNaN(+name) && !name.startsWith("__p"));
  });
  assert.deepEqual(added, ["holdfast"]);
});
