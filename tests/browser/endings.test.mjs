// Tests of the ends of a wait without a status: the deadline, the drain, a page that leaves, a missing callback.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { browser, ended, heard, insert, limit, open, program, site } from "./harness.mjs";

let chromium, holdfast, other;
before(async () => ([chromium, holdfast, other] = await Promise.all([browser(), program(), site()])));

const timeout = { code: -1, message: "timeout", value: null, version: 0, final: false };

test("held_script_is_answered_timeout_when_the_hold_is_over", limit, async (t) => {
  const brief = await program({ t, args: ["--hold", "1s"] });
  const page = await open(t, chromium, other.origin);
  const began = performance.now();
  await insert(page, brief.get({ key: "hold", callback: "cb" }), "cb");
  assert.equal(await ended(page), "load");
  // The hold is shorter by a random part of up to a sixteenth. A busy machine may end it later by any time.
  assert.ok(performance.now() - began >= 1000 * 15 / 16);
  assert.deepEqual(await heard(page), [timeout]);
  await brief.waiters(0);
});

test("wait_0_is_answered_timeout_at_once", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  await insert(page, holdfast.get({ key: "short", callback: "cb", wait: 0, last: 7 }), "cb");
  assert.equal(await ended(page), "load");
  assert.deepEqual(await heard(page), [{ ...timeout, version: 7 }]);
});

test("sigterm_answers_the_held_script_retry_and_the_program_exits_0", limit, async (t) => {
  const leaving = await program({ t });
  const page = await open(t, chromium, other.localhost);
  await insert(page, leaving.get({ key: "drain", callback: "cb", last: 5 }), "cb");
  await leaving.waiters(1);
  leaving.terminate();
  assert.equal(await ended(page), "load");
  const [{ retry_after_ms, ...answer }] = await heard(page);
  assert.deepEqual(answer, { code: -2, message: "retry", value: null, version: 5, final: false });
  assert.ok(Number.isInteger(retry_after_ms) && retry_after_ms >= 100 && retry_after_ms <= 1000, `${retry_after_ms} ms`);
  assert.equal(await leaving.exited, 0);
  assert.deepEqual(page.complaints, []);
});

const leavings = {
  closing_the_tab: (page) => page.close(),
  going_elsewhere: (page) => page.goto(`${other.origin}/elsewhere`),
  reloading: (page) => page.reload(),
  window_stop: (page) => page.evaluate(() => window.stop()),
};
for (const [name, leave] of Object.entries(leavings)) {
  test(`${name}_removes_the_waiter`, limit, async (t) => {
    const page = await open(t, chromium, other.origin);
    await insert(page, holdfast.get({ key: name, callback: "cb" }), "cb");
    await holdfast.waiters(1);
    await leave(page);
    await holdfast.waiters(0);
    assert.equal((await holdfast.set(name, `1`)).delivered, 0);
  });
}

test("script_taken_out_of_the_page_is_still_answered_once", limit, async (t) => {
  // Libraries remove the tag at their own timeout. That does not end the request.
  const page = await open(t, chromium, other.origin);
  await insert(page, holdfast.get({ key: "removed", callback: "cb" }), "cb");
  await holdfast.waiters(1);
  await page.evaluate(() => document.head.querySelector("script").remove());
  assert.equal((await holdfast.set("removed", `1`)).delivered, 1);
  assert.equal(await ended(page), "load");
  assert.equal((await heard(page)).length, 1);
  await holdfast.waiters(0);
});

for (const callback of ["cb", "holder.cb", "holder[0].cb"]) {
  test(`late_call_of_${callback}_is_silent_when_it_is_gone`, limit, async (t) => {
    const page = await open(t, chromium, other.origin);
    const key = `late-${callback}`;
    await insert(page, holdfast.get({ key, callback }));
    await holdfast.waiters(1);
    // For the script it is the same if the callback never existed, or was removed while the get was held.
    await page.evaluate(() => { delete window.cb; delete window.holder; });
    await holdfast.set(key, `1`);
    assert.equal(await ended(page), "load");
    assert.deepEqual(page.complaints, []);
  });
}

for (const jquery of ["jquery", "jquery3"]) {
  test(`late_answer_after_${jquery}_gave_up_raises_no_page_error`, limit, async (t) => {
    const page = await open(t, chromium, `${other.origin}/${jquery}`);
    const key = `late-${jquery}`;
    const outcome = page.evaluate(
      ({ url, key }) => new Promise((resolve) => $.ajax({ url, data: { key }, dataType: "jsonp", timeout: 300 }).always((_, status) => resolve(status))),
      { url: `${holdfast.public}/status/get`, key },
    );
    await holdfast.waiters(1);
    assert.equal(await outcome, "timeout");
    const arrived = page.waitForEvent("requestfinished");
    assert.equal((await holdfast.set(key, `1`)).delivered, 1);
    await arrived;
    // When one more script has run, the late one has certainly run too.
    await insert(page, holdfast.get({ key, callback: "cb" }), "cb");
    assert.equal(await ended(page), "load");
    assert.deepEqual(page.complaints, []);
  });
}
