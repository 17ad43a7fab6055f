// Tests of the ways in which a page of another origin gets a status: jQuery, a plain script, assignment, fetch.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { browser, curl, ended, heard, insert, limit, open, program, site, tab } from "./harness.mjs";

let chromium, holdfast, other;
before(async () => ([chromium, holdfast, other] = await Promise.all([browser(), program(), site()])));

const value = { state: "scanned", user: "Zoë 🎣", n: 1.5 };

// The main purpose of holdfast, with both versions of jQuery that pages load today.
for (const jquery of ["jquery", "jquery3"]) {
  for (const from of ["origin", "localhost"]) {
    test(`${jquery}_jsonp_on_${from}_hears_the_status_that_curl_sets`, limit, async (t) => {
      const key = `${jquery}-${from}`;
      const page = await open(t, chromium, `${other[from]}/${jquery}`);
      const answer = page.evaluate(
        ({ url, key }) =>
          new Promise((resolve, reject) => {
            $.ajax({ url, data: { key }, dataType: "jsonp" }).then(resolve, (_, status, error) => reject(new Error(`${status}: ${error}`)));
          }),
        { url: `${holdfast.public}/status/get`, key },
      );
      await holdfast.waiters(1);

      const receipt = await curl("-d", JSON.stringify({ key, value }), `${holdfast.internal}/status/set`);
      assert.deepEqual({ ...receipt, version: 0 }, { code: 0, message: "success", version: 0, delivered: 1 });
      assert.equal(typeof receipt.version, "number");
      assert.deepEqual(await answer, { code: 0, message: "success", value, version: receipt.version, final: false });

      await holdfast.waiters(0);
      assert.deepEqual(page.complaints, []);
    });
  }
}

test("bare_script_calls_its_callback_once", limit, async (t) => {
  const page = await open(t, chromium, other.localhost);
  await insert(page, holdfast.get({ key: "bare", callback: "onStatus" }), "onStatus");
  await holdfast.waiters(1);
  const { version } = await holdfast.set("bare", `"confirmed"`, `,"final":true`);
  assert.equal(await ended(page), "load");
  assert.deepEqual(await heard(page), [{ code: 0, message: "success", value: "confirmed", version, final: true }]);
  assert.deepEqual(page.complaints, []);
});

test("next_poll_with_last_waits_for_the_newer_status", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  const first = await holdfast.set("last", `1`);
  await insert(page, holdfast.get({ key: "last", callback: "cb", last: 0 }), "cb");
  assert.equal(await ended(page), "load");
  await insert(page, holdfast.get({ key: "last", callback: "cb", last: first.version }), "cb");
  await holdfast.waiters(1);
  const second = await holdfast.set("last", `2`);
  assert.equal(await ended(page), "load");
  assert.deepEqual((await heard(page)).map((answer) => [answer.value, answer.version]), [[1, first.version], [2, second.version]]);
  assert.ok(second.version > first.version);
});

test("two_tabs_on_one_key_are_both_called", limit, async (t) => {
  const first = await open(t, chromium, other.origin);
  const second = await tab(first.context(), other.origin);
  await insert(first, holdfast.get({ key: "tabs", callback: "cb1" }), "cb1");
  await insert(second, holdfast.get({ key: "tabs", callback: "cb2" }), "cb2");
  await holdfast.waiters(2);
  const { version, delivered } = await holdfast.set("tabs", `{"paid":true}`);
  assert.equal(delivered, 2);
  for (const page of [first, second]) {
    assert.equal(await ended(page), "load");
    assert.deepEqual(await heard(page), [{ code: 0, message: "success", value: { paid: true }, version, final: false }]);
  }
});

test("callback_on_a_path_is_called", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  await page.evaluate(() => (window.a = { b: [[], [(answer) => (window.got = answer.value)]] }));
  await holdfast.set("path", `"there"`);
  await insert(page, holdfast.get({ key: "path", callback: "a.b[1][0]" }));
  assert.equal(await ended(page), "load");
  assert.equal(await page.evaluate(() => window.got), "there");
});

test("assignment_is_there_in_onload", limit, async (t) => {
  const page = await open(t, chromium, other.localhost);
  const answer = page.evaluate(
    (src) =>
      new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.onload = () => resolve(window.loginStatus);
        script.onerror = () => reject(new Error("script error"));
        script.src = src;
        document.head.append(script);
      }),
    holdfast.get({ key: "assign", assign: "loginStatus" }),
  );
  await holdfast.waiters(1);
  const { version } = await holdfast.set("assign", JSON.stringify(value));
  assert.deepEqual(await answer, { code: 0, message: "success", value, version, final: false });
  assert.deepEqual(page.complaints, []);
});

test("page_in_another_encoding_hears_unicode", limit, async (t) => {
  const page = await open(t, chromium, `${other.origin}/windows-1251`);
  assert.equal(await page.evaluate(() => document.characterSet), "windows-1251");
  await holdfast.set("encoding", `"Größe Статус 🎣"`);
  await insert(page, holdfast.get({ key: "encoding", callback: "cb" }), "cb");
  assert.equal(await ended(page), "load");
  assert.deepEqual((await heard(page)).map((answer) => answer.value), ["Größe Статус 🎣"]);
});

test("mistake_arrives_as_a_script_that_says_what_is_wrong", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  await insert(page, holdfast.get({ callback: "cb" }), "cb");
  assert.equal(await ended(page), "load");
  assert.deepEqual(await heard(page), [{ code: -5, message: "key: missing", value: null, version: 0, final: false }]);
});

test("hostile_callback_runs_nothing", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  for (const callback of ["alert(1)", "window.pwned=1;x", "</script><script>pwned=1</script>", "*/pwned=1;/*", ""]) {
    await insert(page, holdfast.get({ key: "hostile", callback, wait: 0 }));
    assert.equal(await ended(page), "error", callback);
  }
  assert.equal(await page.evaluate(() => typeof window.pwned), "undefined");
});

test("deleted_key_answers_gone", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  await insert(page, holdfast.get({ key: "gone", callback: "cb" }), "cb");
  await holdfast.waiters(1);
  await holdfast.forget("gone");
  assert.equal(await ended(page), "load");
  const [answer] = await heard(page);
  assert.deepEqual({ ...answer, version: 0 }, { code: -4, message: "gone", value: null, version: 0, final: false });
  assert.equal(typeof answer.version, "number");
});

/** Calls `fetch` in the page, and returns what the page could read of the answer. */
const fetched = (page, url, options) =>
  page.evaluate(
    ({ url, options }) =>
      fetch(url, options).then(async (answer) => ({ status: answer.status, type: answer.type, body: await answer.json() })),
    { url, options },
  );

/** Collects the answers to the preflight requests of the page. Playwright's own events do not show these requests. */
async function preflights(page) {
  const seen = [];
  const protocol = await page.context().newCDPSession(page);
  protocol.on("Network.responseReceived", ({ type, response }) => type === "Preflight" && seen.push(response.status));
  await protocol.send("Network.enable");
  return seen;
}

test("fetch_reads_the_json_of_another_origin", limit, async (t) => {
  const page = await open(t, chromium, other.localhost);
  const asked = await preflights(page);
  const answer = fetched(page, holdfast.get({ key: "fetch" }));
  await holdfast.waiters(1);
  const { version } = await holdfast.set("fetch", JSON.stringify(value));
  assert.deepEqual(await answer, { status: 200, type: "cors", body: { code: 0, message: "success", value, version, final: false } });
  assert.deepEqual(asked, []);
  assert.deepEqual(page.complaints, []);
});

test("preflighted_fetch_reads_the_json", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  const asked = await preflights(page);
  const { version } = await holdfast.set("preflight", `[]`);
  const headers = { "cache-control": "no-cache", "content-type": "application/json", pragma: "no-cache" };
  const answer = await fetched(page, holdfast.get({ key: "preflight" }), { headers });
  assert.deepEqual(answer, { status: 200, type: "cors", body: { code: 0, message: "success", value: [], version, final: false } });
  assert.deepEqual(asked, [204]);
  assert.deepEqual(page.complaints, []);
});

test("fetch_can_read_why_it_was_refused", limit, async (t) => {
  const page = await open(t, chromium, other.origin);
  const answer = await fetched(page, holdfast.get({ key: "a b" }));
  assert.deepEqual(answer, { status: 400, type: "cors", body: { code: -5, message: "key: must be printable ASCII without spaces (! to ~)", value: null, version: 0, final: false } });
});

test("fetch_reads_only_from_an_origin_that_is_listed", limit, async (t) => {
  const strict = await program({ t, args: ["--allow-origin", other.origin] });
  await strict.set("listed", `1`);
  const url = strict.get({ key: "listed" });
  const listed = await open(t, chromium, other.origin);
  assert.equal((await fetched(listed, url)).body.value, 1);
  const unlisted = await open(t, chromium, other.localhost);
  await assert.rejects(fetched(unlisted, url), /Failed to fetch/);
});

test("isolated_page_loads_the_script", limit, async (t) => {
  const page = await open(t, chromium, `${other.origin}/isolated`);
  assert.equal(await page.evaluate(() => self.crossOriginIsolated), true, "the page is under require-corp");
  await insert(page, holdfast.get({ key: "isolated", callback: "cb" }), "cb");
  await holdfast.waiters(1);
  await holdfast.set("isolated", `"in"`);
  assert.equal(await ended(page), "load");
  assert.deepEqual((await heard(page)).map((answer) => answer.value), ["in"]);
  assert.deepEqual(page.complaints, []);
});

test("resource_policy_same_origin_keeps_the_script_from_other_origins", limit, async (t) => {
  const own = await program({ t, args: ["--resource-policy", "same-origin"] });
  await own.set("policy", `1`);
  const page = await open(t, chromium, `${other.origin}/isolated`);
  await insert(page, own.get({ key: "policy", callback: "cb" }), "cb");
  assert.equal(await ended(page), "error");
  assert.deepEqual(await heard(page), []);
});

test("answer_cannot_be_opened_as_a_page", limit, async (t) => {
  await holdfast.set("framed", `1`);
  const page = await open(t, chromium, other.origin);
  for (const form of [{ callback: "cb" }, { assign: "name" }]) {
    const src = holdfast.get({ key: "framed", ...form });
    const [framed] = await Promise.all([
      page.waitForResponse(src),
      page.evaluate((src) => document.body.append(Object.assign(document.createElement("iframe"), { src })), src),
    ]);
    assert.equal(framed.status(), 403);
    assert.equal((await page.context().newPage().then((tab) => tab.goto(src))).status(), 403);
  }
});
