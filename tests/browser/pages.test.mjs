// Tests of holdfast.js on pages as people have them: with a Content-Security-Policy, isolation or a sandbox; pages that
// sleep and come back; with other libraries beside it; with many watches at once.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { blank, browser, html, isolation, limit, open, program, site, until } from "./harness.mjs";
import { NAME, nginx } from "./nginx.mjs";
import { proxy } from "./proxy.mjs";
import { leftovers, loaded, pause, rests, state, values, watch, watched } from "./watching.mjs";

let chromium, holdfast, other;
const pages = {};
before(async () => {
  [chromium, holdfast] = await Promise.all([browser(), program()]);
  other = await site(pages);
});

/** Adds a page with these headers and this body to the other site, and returns its address. */
function page_with(path, headers, body) {
  pages[path] = [{ ...html, ...headers }, blank + body];
  return other.localhost + path;
}

/** Checks that the page gets a status and the final one, without any error. */
async function hears(page, key, options) {
  await watch(page, holdfast.public, key, options);
  await holdfast.waiters(1);
  await holdfast.set(key, `"one"`);
  assert.deepEqual(await values(page, 1), ["one"]);
  await holdfast.waiters(1);
  await holdfast.set(key, `"two"`, `,"final":true`);
  await state(page, "stopped");
  assert.deepEqual(await values(page, 2), ["one", "two"]);
  assert.deepEqual(page.complaints, []);
}

const NONCE = "c2VjcmV0LW5vbmNl";
const library = () => `${holdfast.public}/holdfast.js`;

test("page_that_allows_scripts_by_nonce_only", limit, async (t) => {
  const policy = `default-src 'none'; img-src data:; script-src 'nonce-${NONCE}'; base-uri 'none'`;
  const url = page_with("/nonce", { "content-security-policy": policy }, `<script nonce="${NONCE}" src="${library()}"></script>`);
  await hears(await open(t, chromium, url), "nonce");
});

test("page_that_allows_scripts_by_nonce_only_and_names_it", limit, async (t) => {
  // The page must name the nonce, because no script tag has it any more when the watch begins.
  const policy = `default-src 'none'; img-src data:; script-src 'nonce-${NONCE}'`;
  const remove = `<script nonce="${NONCE}">document.querySelectorAll("script").forEach((script) => script.remove())</script>`;
  const url = page_with("/named", { "content-security-policy": policy }, `<script nonce="${NONCE}" src="${library()}"></script>${remove}`);
  await hears(await open(t, chromium, url), "named", { nonce: NONCE });
});

test("page_that_allows_scripts_by_nonce_only_and_takes_its_own_away", limit, async (t) => {
  const policy = `default-src 'none'; img-src data:; script-src 'nonce-${NONCE}'`;
  const url = page_with("/taken-away", { "content-security-policy": policy }, `<script nonce="${NONCE}" src="${library()}"></script>`);
  const page = await open(t, chromium, url);
  await watch(page, holdfast.public, "taken-away");
  await page.evaluate(() => document.querySelectorAll("script[nonce]").forEach((script) => script.src.endsWith("holdfast.js") && script.remove()));
  for (const n of [1, 2]) {
    await holdfast.waiters(1);
    await holdfast.set("taken-away", `${n}`, `,"final":${n === 2}`);
    await values(page, n);
  }
  assert.deepEqual(page.complaints, []);
});

test("page_that_trusts_what_its_scripts_insert", limit, async (t) => {
  const policy = `default-src 'none'; img-src data:; script-src 'nonce-${NONCE}' 'strict-dynamic'`;
  const url = page_with("/strict-dynamic", { "content-security-policy": policy }, `<script nonce="${NONCE}" type="module">
    import holdfast from "${holdfast.public}/holdfast.mjs"; window.holdfast = holdfast;</script>`);
  const page = await open(t, chromium, url);
  await until("the module is loaded", () => page.evaluate(() => "holdfast" in window));
  await hears(page, "strict-dynamic");
});

test("page_that_allows_scripts_of_the_host", limit, async (t) => {
  const url = page_with("/host", { "content-security-policy": `default-src 'none'; img-src data:; script-src ${holdfast.public}` }, `<script src="${library()}"></script>`);
  await hears(await open(t, chromium, url), "host");
});

test("page_that_allows_scripts_of_the_host_s_two_paths", limit, async (t) => {
  const policy = `default-src 'none'; img-src data:; script-src ${holdfast.public}/holdfast.js ${holdfast.public}/status/get`;
  const url = page_with("/paths", { "content-security-policy": policy }, `<script src="${library()}"></script>`);
  await hears(await open(t, chromium, url), "paths");
});

test("page_that_does_not_allow_the_host_is_told_by_its_browser_and_goes_on_trying", limit, async (t) => {
  const policy = `default-src 'none'; img-src data:; script-src 'nonce-${NONCE}' ${holdfast.public}/holdfast.js`;
  const url = page_with("/refused", { "content-security-policy": policy }, `<script src="${library()}"></script>`);
  const page = await open(t, chromium, url);
  await watch(page, holdfast.public, "refused");
  await state(page, "retrying");
  assert.match(page.complaints.join(), /Content Security Policy/);
});

test("page_that_demands_trusted_types", limit, async (t) => {
  const policy = "require-trusted-types-for 'script'; trusted-types holdfast";
  const url = page_with("/trusted-types", { "content-security-policy": policy }, `<script src="${library()}"></script>`);
  await hears(await open(t, chromium, url), "trusted-types");
});

test("page_that_demands_trusted_types_and_does_not_trust_us_is_told", limit, async (t) => {
  const policy = "require-trusted-types-for 'script'; trusted-types other";
  const url = page_with("/untrusted-types", { "content-security-policy": policy }, `<script src="${library()}"></script>`);
  const page = await open(t, chromium, url);
  await watch(page, holdfast.public, "untrusted");
  await state(page, "retrying");
  assert.match(page.complaints.join(), /TrustedScriptURL/);
  await page.evaluate(() => watched.watch.stop());
  assert.deepEqual(await leftovers(page), [0, 0]);
});

test("page_that_is_cross_origin_isolated", limit, async (t) => {
  const url = page_with("/isolated-script", isolation, `<script src="${library()}"></script>`);
  // Isolation needs a secure context, and localhost is one.
  const page = await open(t, chromium, url);
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  await hears(page, "isolated");
});

test("page_that_is_cross_origin_isolated_and_loads_the_module", limit, async (t) => {
  const url = page_with("/isolated-module", isolation, `<script type="module">import * as holdfast from "${holdfast.public}/holdfast.mjs"; window.holdfast = holdfast;</script>`);
  const page = await open(t, chromium, url);
  await until("the module is loaded", () => page.evaluate(() => "holdfast" in window));
  await hears(page, "isolated-module");
});

test("frame_in_a_sandbox_that_allows_scripts_only", limit, async (t) => {
  page_with("/framed", {}, `<script src="${library()}"></script>`);
  const url = page_with("/sandbox", {}, `<iframe sandbox="allow-scripts" src="/framed"></iframe>`);
  const page = await open(t, chromium, url);
  const frame = page.frames()[1];
  // The frame's origin is opaque.
  assert.equal(await frame.evaluate(() => origin), "null");
  frame.complaints = page.complaints;
  await hears(frame, "sandbox");
});

test("page_with_jquery_beside_it", limit, async (t) => {
  const page = await loaded(t, chromium, `${other.localhost}/jquery`, holdfast.public);
  const answer = page.evaluate((url) => $.ajax({ url, data: { key: "beside", wait: 20 }, dataType: "jsonp" }).then((answer) => answer.value), `${holdfast.public}/status/get`);
  await watch(page, holdfast.public, "beside");
  await holdfast.waiters(2);
  await holdfast.set("beside", `"both"`, `,"final":true`);
  assert.equal(await answer, "both");
  assert.deepEqual(await values(page, 1), ["both"]);
  assert.deepEqual(page.complaints, []);
});

test("page_that_has_not_loaded_yet_is_not_kept_loading_and_hears_all_the_same", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  let arrive;
  const image = new Promise((resolve) => (arrive = resolve));
  await holdfast.set("loading", `"early"`);
  const url = page_with("/loading", {}, `<script src="${library()}"></script><body><script>
    window.watched = { states: [], statuses: [] };
    watched.watch = holdfast.watch("${between.url}", "loading", { onstatus: (value, answer) => watched.statuses.push([value, answer.version]) });
    addEventListener("load", () => { window.onload_at = performance.now(); });
  </script><img src="/slow" alt="">`);
  const page = await (await chromium.newContext()).newPage();
  t.after(() => page.context().close());
  await page.route("**/slow", async (route) => (await image, route.fulfill({ status: 204 })));
  await page.goto(url, { waitUntil: "commit" });
  await until("it watches", () => page.evaluate(() => Boolean(window.watched?.watch)));
  assert.deepEqual(await values(page, 1), ["early"]);
  await until("it asks on and on", () => between.polls.length >= 3);
  assert.deepEqual(new Set(between.polls.map((poll) => poll.wait)), new Set(["0"]));
  arrive();
  await page.waitForLoadState("load");
  await until("the poll is held", () => between.polls.at(-1).wait === "25");
  // The browser does not show the page as loading: it has nothing more to load.
  const client = await page.context().newCDPSession(page);
  const stopped = new Promise((resolve) => client.on("Page.frameStoppedLoading", resolve));
  await client.send("Page.enable");
  await page.reload({ waitUntil: "load" });
  await stopped;
  await until("the poll is held again", () => between.underWay("loading") === 1);
  assert.equal(between.mostAtOnce, 1);
});

test("frozen_page_hears_when_it_is_resumed", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  await watch(page, between.url, "frozen");
  await until("a poll is held", () => between.underWay("frozen") === 1);
  const client = await page.context().newCDPSession(page);
  await client.send("Page.setWebLifecycleState", { state: "frozen" });
  const asked = between.polls.length;
  await holdfast.set("frozen", `"meanwhile"`);
  // If the page is not frozen yet when the answer comes, it asks once more.
  await until("the program has answered", () => between.underWay("frozen") === 0 || between.polls.length > asked);
  await client.send("Page.setWebLifecycleState", { state: "active" });
  assert.deepEqual(await values(page, 1), ["meanwhile"]);
  await until("a poll is held again", () => between.underWay("frozen") === 1);
  assert.equal(between.mostAtOnce, 1);
});

/** Makes the page believe that it is hidden or shown, because headless pages do not hide. */
const show = (page, isShown) =>
  page.evaluate((isShown) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => !isShown });
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => (isShown ? "visible" : "hidden") });
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  }, isShown);

test("page_that_is_shown_again_asks_at_once", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  // The answer asks for a longer pause than the library makes.
  between.plan.push(between.say({ code: -3, retry_after_ms: 600_000 }));
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  await watch(page, between.url, "shown");
  await state(page, "retrying");
  await show(page, false);
  await holdfast.set("shown", `"meanwhile"`);
  assert.equal(between.polls.length, 1);
  await show(page, true);
  assert.deepEqual(await values(page, 1), ["meanwhile"]);
  // If the page is shown again while a poll is held, that poll goes on.
  await until("a poll is held", () => between.underWay("shown") === 1);
  const polls = between.polls.length;
  await show(page, false);
  await show(page, true);
  await holdfast.set("shown", `"next"`);
  assert.deepEqual(await values(page, 2), ["meanwhile", "next"]);
  assert.equal(between.polls[polls - 1].last === "0", false);
  assert.equal(between.mostAtOnce, 1);
});

test("page_that_slept_through_the_end_of_its_poll_asks_at_once", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push(() => {});
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  await page.clock.install();
  await watch(page, between.url, "slept", { wait: 1 });
  await until("its server has answered", () => between.polls.length === 1 && between.underWay("slept") === 0);
  await holdfast.set("slept", `"meanwhile"`);
  // While a machine sleeps, its clock goes on, but its timers do not.
  await page.clock.setSystemTime(Date.now() + 3_600_000);
  await show(page, false);
  await show(page, true);
  await page.clock.runFor(10);
  assert.deepEqual(await values(page, 1), ["meanwhile"]);
  assert.deepEqual((await watched(page)).states, [["waiting"]]);
  // The dropped poll was removed, so one poll is left.
  assert.deepEqual(await leftovers(page), [1, 1]);
});

test("page_that_slept_through_its_patience_gives_up_when_it_wakes", limit, async (t) => {
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  await page.clock.install();
  await watch(page, holdfast.public, "slept-long", { giveUpAfter: 600 });
  await holdfast.waiters(1);
  await page.clock.setSystemTime(Date.now() + 3_600_000);
  await show(page, false);
  assert.deepEqual((await watched(page)).errors, ["given up"]);
  assert.equal((await watched(page)).state, "stopped");
});

test("page_whose_clock_is_set_back_goes_on", limit, async (t) => {
  const brief = await program({ t, args: ["--hold", "1s"] });
  const between = await proxy(t, brief.public);
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  await page.clock.install();
  await watch(page, between.url, "set-back");
  await until("a poll is held", () => between.underWay("set-back") === 1);
  await page.clock.setSystemTime(Date.now() - 3_600_000);
  await until("it asks on", () => between.polls.length >= 3);
});

test("page_that_rests_as_long_as_it_is_told", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  await pause(page);
  const told = [[{ code: -2, retry_after_ms: 5_000 }, 5_000], [{ code: -6, retry_after_ms: 10 }, 1_000], [{ code: -6 }, 1_000], [{ code: -99 }, 1_000], [{ code: -3, retry_after_ms: 600_000 }, 30_000]];
  between.plan.push(...told.map(([members]) => between.say(members)));
  await watch(page, between.url, "rests");
  await page.clock.runFor(1);
  for (const [n, [members, rest]] of told.entries()) {
    await until("it has asked", () => between.polls.length === n + 1);
    await rests(page);
    assert.equal((await watched(page)).state, "retrying");
    await page.clock.runFor(rest - 10);
    assert.equal(between.polls.length, n + 1, `${JSON.stringify(members)}: not before ${rest} ms`);
    await page.clock.runFor(20);
    await until("it asks again", () => between.polls.length === n + 2);
  }
});

test("page_that_comes_back_from_the_back_forward_cache_goes_on", limit, async (t) => {
  const caching = await browser({ ignoreDefaultArgs: ["--disable-back-forward-cache"] });
  const between = await proxy(t, holdfast.public);
  const url = page_with("/bfcache", {}, `<script src="${library()}"></script><script>
    window.watched = { statuses: [], states: [], shown: [] };
    addEventListener("pageshow", (event) => watched.shown.push(event.persisted));
    watched.watch = holdfast.watch("${between.url}", "bfcache", { onstatus: (value, answer) => watched.statuses.push([value, answer.version]), onstate: (state) => watched.states.push([state]) });
  </script>`);
  const page = await open(t, caching, url);
  await until("a poll is held", () => between.underWay("bfcache") === 1 && between.polls.at(-1).wait === "25");
  await holdfast.set("bfcache", `"before"`);
  await values(page, 1);
  await until("the next poll is held", () => between.underWay("bfcache") === 1);
  await page.goto(`${other.localhost}/elsewhere`);
  await holdfast.set("bfcache", `"meanwhile"`);
  await page.goBack({ waitUntil: "commit" });
  const { shown } = await until("it is there again", () => page.evaluate(() => window.watched?.shown.length && { shown: watched.shown }));
  // If the browser kept the page, it gets the newer statuses. If the browser loaded it again, it gets the newest one.
  await until("it hears", async () => (await watched(page)).statuses.at(-1)?.[0] === "meanwhile");
  await until("a poll is held", () => between.underWay("bfcache") === 1);
  await holdfast.set("bfcache", `"after"`);
  await until("it hears the next", async () => (await watched(page)).statuses.at(-1)?.[0] === "after");
  const statuses = (await watched(page)).statuses.map(([value]) => value);
  assert.deepEqual(statuses, shown.at(-1) ? ["before", "meanwhile", "after"] : ["meanwhile", "after"]);
  t.diagnostic(shown.at(-1) ? "the browser kept the page" : "the browser loaded the page anew");
});

test("page_that_is_kept_and_shown_again_asks_at_once", limit, async (t) => {
  const between = await proxy(t, holdfast.public);
  between.plan.push("bad_gateway");
  const page = await loaded(t, chromium, other.localhost, holdfast.public);
  // The pause after the failure is random. With the clock stopped, no timer ends it.
  await pause(page);
  await watch(page, between.url, "kept");
  await page.clock.runFor(1);
  await state(page, "retrying");
  await holdfast.set("kept", `"meanwhile"`);
  await page.evaluate(() => {
    dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
    dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
  });
  await page.clock.runFor(1);
  assert.deepEqual(await values(page, 1), ["meanwhile"]);

  // The browser may have ended the poll that was under way without an event, so the page sends it again.
  await until("the next is held", () => between.underWay("kept") === 1);
  const polls = between.polls.length;
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
  await page.clock.runFor(1);
  await until("it asks anew", () => between.polls.length === polls + 1);
  assert.deepEqual(await leftovers(page), [1, 1]);
});

test("twenty_watches_of_one_page_are_all_held_over_one_http2_connection", limit, async (t) => {
  const address = await nginx(t, holdfast.public);
  const secure = await browser({ args: [`--host-resolver-rules=MAP ${NAME}:443 ${address}`] });
  const page = await open(t, secure, other.localhost, { ignoreHTTPSErrors: true });
  const answers = [];
  const client = await page.context().newCDPSession(page);
  client.on("Network.responseReceived", ({ response }) => answers.push(`${response.protocol} over ${response.connectionId}`));
  await client.send("Network.enable");
  await page.addScriptTag({ url: `https://${NAME}/holdfast.js` });
  const names = Array.from({ length: 20 }, (_, n) => `many${n}`);
  for (const name of names) await watch(page, `https://${NAME}`, name, {}, name);
  // Over HTTP/1.1 only six would be held, and the others would wait in the browser.
  await holdfast.waiters(20);
  for (const name of names) await holdfast.set(name, `"${name}"`, `,"final":true`);
  for (const name of names) assert.deepEqual(await values(page, 1, name), [name]);
  await holdfast.waiters(0);
  await until("all answers are counted", () => answers.length === 21);
  assert.equal(new Set(answers).size, 1, "one connection");
  assert.match(answers[0], /^h2 over [1-9]/);
  assert.deepEqual(await leftovers(page), [0, 0]);
  assert.deepEqual(page.complaints, []);
});
