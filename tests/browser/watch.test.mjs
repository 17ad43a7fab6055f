// holdfast.js against the real server, on a page of another origin: what it tells, when it asks again, where it ends.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { browser, leftovers, limit, loaded, program, site, state, tab, until, values, watch, watched } from "./harness.mjs";
import { proxy } from "./proxy.mjs";

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
  assert.deepEqual(await leftovers(page), [[], 0]);
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
  // Not printable ASCII: the server says so, and it is over.
  await state(page, "stopped");
  const { errors } = await watched(page);
  assert.deepEqual(errors, ["key: not printable ASCII"]);

  await watch(page, between.url, "defaults");
  await until("its poll", () => between.polls.length === 2);
  assert.deepEqual({ ...between.polls[1], callback: "" }, { key: "defaults", callback: "", last: "0", wait: "25" });
  const names = await page.evaluate(async (base) => {
    const names = new Set();
    for (let n = 0; n < 200; n++) {
      const watching = holdfast.watch(base, "names", {});
      await new Promise((asked) => setTimeout(asked, 1));
      Object.keys(window).filter((name) => name.startsWith("holdfast_")).forEach((name) => names.add(name));
      watching.stop();
    }
    return names.size;
  }, "http://127.0.0.1:9");
  assert.ok(names > 150, `${names} different names`);
});

test("timeout_is_followed_by_the_next_poll_at_once", limit, async (t) => {
  const brief = await program({ t, args: ["--hold", "1s"] });
  const between = await proxy(t, brief.public);
  const page = await started(t);
  await watch(page, between.url, "timeout");
  await until("four polls", () => between.polls.length === 4);
  await brief.waiters(1);
  assert.deepEqual((await watched(page)).states, [["waiting"]]);
  assert.equal(between.mostAtOnce, 1);
});

test("wait_0_asks_once_a_second", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const page = await started(t);
  const began = performance.now();
  await watch(page, between.url, "short", { wait: 0 });
  await until("four polls", () => between.polls.length === 4);
  assert.ok(performance.now() - began > 2500, "three seconds lie between four polls");
  assert.deepEqual(between.polls.map((poll) => poll.wait), ["0", "0", "0", "0"]);
});

test("server_that_says_timeout_at_once_is_asked_once_a_second", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const timeout = (response) =>
    response.writeHead(200, { "content-type": "text/javascript" }).end(`${between.polls.at(-1).callback}({"code":-1,"message":"timeout","value":null,"version":0,"final":false});`);
  between.plan.push(...Array(20).fill(timeout));
  const page = await started(t);
  const began = performance.now();
  await watch(page, between.url, "hot");
  await until("three polls", () => between.polls.length === 3);
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

for (const [mistake, options] of [["last: not a version", { last: -1 }], ["wait: not a number of seconds", { wait: "long" }], ["wait: not a number of seconds", { wait: Infinity }]]) {
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
  await watch(page, full.public, "full", {}, "second");
  await until("the second was told", async () => (await watched(page, "second")).states.length > 1);
  assert.deepEqual((await watched(page, "second")).states.slice(0, 2), [["waiting"], ["retrying", -3]]);
  await page.evaluate(() => first.watch.stop());
  await full.set("full", `1`);
  assert.deepEqual(await values(page, 1, "second"), [1]);
});

test("store_out_of_reach_is_told_until_it_is_back", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const unavailable = (code, more = "") => (response) =>
    response.writeHead(200, { "content-type": "text/javascript" }).end(`${between.polls.at(-1).callback}({"code":${code},"message":"?","value":null,"version":0,"final":false${more}});`);
  // And a code of a later version of holdfast.
  between.plan.push(unavailable(-6, `,"retry_after_ms":150`), unavailable(-6, `,"retry_after_ms":100`), unavailable(-99, `,"retry_after_ms":120`), unavailable(-6));
  const page = await started(t);
  await watch(page, between.url, "unavailable");
  await until("all of them, and two more", () => between.polls.length === 6);
  await holdfast.waiters(1);
  // One change, however often it was told; the poll that found all well again was not held.
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
  assert.deepEqual(await leftovers(page), [[], 0]);
  const arrived = page.waitForEvent("requestfinished");
  await holdfast.set("stopped", `1`);
  await arrived;
  await watch(page, holdfast.public, "another");
  await holdfast.waiters(1);
  const { statuses, states } = await watched(page);
  assert.deepEqual([statuses, states], [[], [["waiting"]]]);
  assert.deepEqual(page.complaints, []);
});

for (const listener of ["onstate", "onstatus"]) {
  test(`stop_within_${listener}_ends_it`, limit, async (t) => {
    const page = await started(t);
    const key = `within-${listener}`;
    await holdfast.set(key, `1`);
    await page.evaluate(({ base, key, listener }) => {
      window.calls = [];
      const watching = holdfast.watch(base, key, { [listener]: (...given) => { calls.push(given[0]); watching.stop(); } });
      window.watched = { watch: watching };
    }, { base: holdfast.public, key, listener });
    await state(page, "stopped");
    await holdfast.waiters(0);
    assert.deepEqual(await page.evaluate(() => calls), listener === "onstate" ? ["waiting", "stopped"] : [1]);
    assert.deepEqual(await leftovers(page), [[], 0]);
  });
}

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
  await until("all are told", () => page.complaints.length === 3);
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
  assert.deepEqual(await leftovers(page), [[], 0]);
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
