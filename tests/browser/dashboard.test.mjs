// Tests of the page for operators, `GET /` of the internal listener. It is used as an operator uses it, with two nodes
// over a Redis, while gets and sets happen.

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { browser, limit, open, packages, program, screenshots, until } from "./harness.mjs";
import { redis as server } from "./redis.mjs";

const axe = readFileSync(`${packages}axe-core/axe.min.js`, "utf8");
const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

const dir = mkdtempSync(join(tmpdir(), "holdfast-dashboard-"));
process.on("exit", () => rmSync(dir, { recursive: true, force: true }));

/** A key that would run a script if the page showed it as HTML, and an address that would make an element. */
const hostile = `<img/src=x/onerror=alert(1)>`;
const stranger = `x@http://<b>stranger:1`;

let chromium, redis, one, other, lonely;
before(async () => {
  mkdirSync(screenshots, { recursive: true });
  [chromium, redis] = await Promise.all([browser(), server()]);
  // The third node has its own list of nodes, with a stranger on it. After a while the node logs an error about that.
  const lie = () => redis.command("HSET", "lonely:all nodes", stranger, String(Date.now() + 10_000)).catch(() => {});
  setInterval(lie, 2000).unref();
  [one, other, lonely] = await Promise.all([node(), node(), node({ args: ["--redis-prefix", "lonely:"] }), lie()]);
});

/** Starts a node over that Redis. */
function node({ t, args = [] } = {}) {
  return program({ t, args: ["--redis", redis.url, "--peer-timeout", "1s", ...args] });
}

/** Opens the page of a node in a new profile, and waits until it shows data. `page.asked` has the requested URLs. */
async function dashboard(t, { of = one, ready = "#inside:not([hidden])", ...options } = {}) {
  const page = await open(t, chromium, "about:blank", { viewport: sizes.desktop, ...options });
  page.asked = [];
  page.on("request", (request) => page.asked.push(request.url()));
  page.violations = [];
  await page.exposeFunction("violated", (what) => page.violations.push(what));
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => window.violated(`${event.violatedDirective} ${event.blockedURI}`)));
  await page.goto(`${of.internal}/`);
  await page.waitForSelector(ready);
  return page;
}

/** Checks that nothing was refused, nothing failed, and nothing was requested from another host. */
function clean(page, of = one, complaints = []) {
  assert.deepEqual(page.violations, []);
  assert.deepEqual(page.complaints.filter((complaint) => !complaints.some((expected) => expected.test(complaint))), []);
  const elsewhere = page.asked.filter((url) => !url.startsWith(`${of.internal}/`) && !url.startsWith("data:"));
  assert.deepEqual(elsewhere, []);
}

const host = (of) => new URL(of.internal).host;
const text = (page, selector) => page.locator(selector).first().textContent();
/** Returns the text of a cell in the row of a node. */
const cell = (page, of, column) => page.locator(`#nodes tr:has-text("${host(of)}") td[data-column="${column}"]`).textContent({ timeout: 1000 }).catch(() => "");
const rows = (page) => page.locator("#nodes tr").count();
/** Waits until the page shows `count` nodes. */
const knows = (page, count) => until(`${count} nodes are shown`, async () => (await rows(page)) === count);

async function search(page, key) {
  await page.fill("#key", key);
  await page.click("#search button");
  await page.waitForSelector("#found > *");
}
const found = (page) => text(page, "#found");

/** Holds a get, as a page does. */
function hold(t, of, key, more) {
  const ending = new AbortController();
  t.after(() => ending.abort());
  fetch(of.get({ key, wait: 25, ...more }), { signal: ending.signal }).catch(() => {});
  return () => ending.abort();
}

async function check(page, what, viewport) {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])]), [], what);
  assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= viewport.width, `${what}: nothing makes the page wider`);
}

test("numbers_and_lines_move_while_gets_and_sets_happen", limit, async (t) => {
  const page = await dashboard(t);
  await knows(page, 2);
  assert.match(await text(page, "#summary"), /^2 nodes/);
  // Every few seconds each node holds a get of its own to check the whole path, and counts it as a waiter for a moment.
  for (const of of [one, other]) await until("nobody waits", async () => (await cell(page, of, "Waiters")) === "0");
  const leave = [hold(t, other, "moves-a"), hold(t, other, "moves-b"), hold(t, one, "moves-a")];
  await until("the waiters are shown", async () => (await cell(page, other, "Waiters")) === "2" && (await cell(page, one, "Waiters")) === "1");
  await until("their keys are shown", async () => (await cell(page, other, "Keys")) === "2");
  await until("their sum stands over the chart", async () => (await text(page, "figure:has-text('Waiters') .now")) === "3");
  const drawn = () => page.locator("figure:has-text('Waiters') .line").evaluateAll((all) => all.map((line) => line.getAttribute("d")));
  const moved = (line) => new Set(line.match(/ [\d.]+/g)).size > 1;
  // Each node counts its waiters every 2 s for the lines. A waiter that is answered sooner may be missing in them.
  await until("each node has counted its waiters", async () => (await drawn()).every(moved));
  await one.set("moves-a", `1`);
  await until("sets and gets are counted", async () => parseFloat(await cell(page, one, "Sets/s")) > 0 || parseFloat(await text(page, "figure:has-text('Sets') .now")) > 0);
  const streams = new AbortController();
  t.after(() => streams.abort());
  const stream = new URL("/status/events?key=moves-stream", one.get({ key: "k" }));
  await fetch(stream, { signal: streams.signal });
  await until("a stream is told apart", async () => (await cell(page, one, "Waiters")) === "11 stream");
  streams.abort();
  leave.forEach((go) => go());
  await until("they are gone", async () => (await text(page, "figure:has-text('Waiters') .now")) === "0");
  const lines = await drawn();
  assert.equal(lines.length, 2, "a line for each node");
  for (const line of lines) assert.match(line, /^M[\d.]+ [\d.]+.*L/s);
  assert.ok(lines.every(moved), `they went up and down: ${lines}`);
  clean(page);
});

test("a_node_that_comes_is_shown_and_one_that_goes_is_not", limit, async (t) => {
  const page = await dashboard(t);
  await knows(page, 2);
  const third = await node({ t });
  await knows(page, 3);
  assert.equal(await cell(page, third, "Ready"), "ready");
  await until("all are well", async () => (await text(page, "#summary")) === "3 nodes · all well");
  third.terminate();
  await third.exited;
  await knows(page, 2);
  clean(page);
});

test("a_node_that_drained_is_not_shown_as_gone_although_it_ended_before_the_others_knew", limit, async (t) => {
  const page = await dashboard(t);
  const third = await node({ t });
  await knows(page, 3);
  // The answer is changed to that of a node which has not read the list of nodes again.
  let silent = true;
  await page.route("**/nodes*", async (route) => {
    const answer = await (await route.fetch()).json();
    if (silent) {
      answer.nodes = answer.nodes.filter((report) => report.address !== third.internal);
      answer.unreachable = [third.internal];
    }
    await route.fulfill({ json: answer });
  });
  await until("it is silent", async () => (await text(page, "#summary")) === "3 nodes · 1 without an answer");
  third.terminate();
  await third.exited;
  silent = false;
  await knows(page, 2);
  await until("all are well", async () => (await text(page, "#summary")) === "2 nodes · all well");
  clean(page);
});

test("a_node_that_is_killed_stays_as_gone_until_another_has_its_address", limit, async (t) => {
  const page = await dashboard(t);
  const third = await node({ t });
  await knows(page, 3);
  await third.kill();
  const summary = "2 nodes · 1 gone without a drain";
  await until("it is gone", async () => (await text(page, "#summary")) === summary, 40_000);
  assert.match(await cell(page, third, "State"), /^gone since \d\d:\d\d:\d\d, without a drain$/);
  const successor = await node({ t, args: third.listeners });
  await until("its successor is there", async () => (await text(page, "#summary")) === "3 nodes · all well", 40_000);
  clean(page);
  successor.terminate();
  await successor.exited;
});

test("search_finds_who_holds_a_key_on_another_node", limit, async (t) => {
  const page = await dashboard(t);
  await knows(page, 2);
  await search(page, "nobody's");
  assert.match(await found(page), /^Nobody waits for it, and nothing is known under it\./);
  const key = "a/b?c=\"d\"&é".replace("é", "%");
  hold(t, other, key);
  await other.waiters(1);
  await search(page, key);
  await until("it is found there", async () => (await search(page, key), (await found(page)).includes(`${host(other)}`)));
  assert.match(await found(page), /Statusnone yet.*Waiters1 in all/s);
  // More digits than a JavaScript number can hold.
  const { version } = await one.set(key, `{"n": 123456789012345678901234567890}`, `,"final":true,"ttl":90`);
  await until("the status is found", async () => (await search(page, key), (await found(page)).includes(`Version${version}`)));
  assert.equal(await text(page, "#found pre"), `{"n": 123456789012345678901234567890}`);
  assert.match(await found(page), /Finalyes.*Ends in1 min (2|1)\d s.*Waitersnobody/s);
  await one.forget(key);
  await until("nothing is found", async () => (await search(page, key), /^Nobody waits for it, and nothing/.test(await found(page))));
  // After a deletion, only a get with a `last` above the deletion's version is held.
  const last = String(Date.now() + 50 * 60 * 1000);
  hold(t, other, key, { last });
  await until("the deletion is found", async () => (await search(page, key), /Statusdeleted, version \d+.*Waiters1 in all/.test(await found(page))));
  for (const wrong of ["..", "a b", "ü"]) {
    await page.fill("#key", wrong);
    await page.press("#key", "Enter");
    await until(`${wrong} is no key`, async () => /^That is no key/.test(await found(page)));
  }
  clean(page, one, [/status of (400|404)/]);
});

test("a_token_is_asked_for_kept_in_the_tab_and_forgotten", limit, async (t) => {
  const token = "tok-5f1c0a/+=";
  const file = join(dir, "tokens");
  writeFileSync(file, `${token}\n`);
  const guarded = await program({ t, args: ["--internal-token-file", file] });
  const ask = (headers) => fetch(`${guarded.internal}/`, { headers });
  const asked = await ask({ accept: "text/html" });
  assert.deepEqual([asked.status, asked.headers.get("www-authenticate")], [401, "Bearer"]);
  const page_text = await asked.text();
  assert.match(page_text, /^<!doctype html>/);
  assert.ok(!page_text.includes(host(guarded)) && !page_text.includes(token), "no data in it");
  assert.equal(await (await ask({ accept: "application/json" })).text(), `{"code":-5,"message":"unauthorized: send authorization: Bearer TOKEN"}`);
  const shown = await ask({ accept: "*/*", authorization: `Bearer ${token}` });
  assert.deepEqual([shown.status, await shown.text()], [200, page_text]);

  const page = await dashboard(t, { of: guarded, ready: "#ask:not([hidden])" });
  await check(page, "the token's form", sizes.desktop);
  assert.equal(await text(page, "#wrong"), "");
  for (const wrong of ["wrong", "not a héader"]) {
    await page.fill("#token", wrong);
    await page.press("#token", "Enter");
    await until("the token is refused", async () => /none of this node/.test(await text(page, "#wrong")));
    await page.evaluate(() => (document.getElementById("wrong").textContent = ""));
  }
  await page.fill("#token", token);
  await page.click("#token-form button");
  await page.waitForSelector("#inside:not([hidden])");
  assert.match(await text(page, "#summary"), /^1 node/);
  await search(page, "nothing");
  assert.match(await found(page), /^Nobody waits/);
  // Only the tab keeps the token.
  await page.reload();
  await page.waitForSelector("#inside:not([hidden])");
  assert.deepEqual(await page.evaluate(() => [localStorage.length, document.cookie, location.href]), [0, "", `${guarded.internal}/`]);
  const second = await page.context().newPage();
  await second.goto(`${guarded.internal}/`);
  await second.waitForSelector("#ask:not([hidden])");
  await page.click("#forget");
  await page.waitForSelector("#ask:not([hidden])");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.reload();
  await page.waitForSelector("#ask:not([hidden])");
  clean(page, guarded, [/status of (401|404)/]);
});

test("what_is_hostile_is_shown_as_text", limit, async (t) => {
  const page = await dashboard(t, { of: lonely });
  // A key, and a value.
  await lonely.set(hostile, JSON.stringify(`</pre><script>alert(1)</script>${"<b>".repeat(3000)}`));
  await search(page, hostile);
  assert.match(await text(page, "#found pre"), /<script>alert\(1\)<\/script>/);
  assert.match(await found(page), /and [\d,]+ characters more/);
  // A stranger that poses as a node, and the error of the node about it.
  await until("it is on the list", async () => /<b>stranger:1.*does not answer/s.test(await text(page, "#nodes")));
  await until("the error is shown", async () => /a node does not confirm updates.*<b>stranger/.test(await text(page, "#errors")));
  await until("what fails is named", async () => /does not reach <b>stranger/.test(await text(page, "#nodes")));
  assert.equal(await text(page, "#summary"), "2 nodes · 1 without an answer · 1 unwell");
  assert.equal(await page.locator("img, b, #found script").count(), 0);
  await page.screenshot({ path: `${screenshots}dashboard-trouble.png`, fullPage: true });
  await check(page, "in trouble", sizes.desktop);
  clean(page, lonely);
});

test("charts_are_read_by_keyboard_and_pointer", limit, async (t) => {
  const page = await dashboard(t);
  await knows(page, 2);
  const plot = page.getByRole("slider", { name: "Waiters, moment" });
  await plot.focus();
  await page.keyboard.press("ArrowLeft");
  const valueText = () => plot.getAttribute("aria-valuetext");
  await until("the values of a moment are there", async () => new RegExp(`^\\d\\d:\\d\\d:\\d\\d: .*${host(one)} \\d+`).test(await valueText()));
  assert.equal(await plot.getAttribute("aria-valuenow"), "-2");
  assert.ok(await page.locator("figure:has-text('Waiters') .tip").isVisible());
  await page.keyboard.press("Escape");
  await until("the tip is gone", async () => !(await page.locator("figure:has-text('Waiters') .tip").isVisible()));
  await plot.hover();
  await until("the tip is there", () => page.locator("figure:has-text('Waiters') .tip").isVisible());
  assert.match(await text(page, "figure:has-text('Waiters') .tip"), new RegExp(host(other)));
  clean(page);
});

for (const [size, viewport] of Object.entries(sizes)) {
  for (const colorScheme of ["light", "dark"]) {
    test(`page_on_a_${size}_in_the_${colorScheme}_is_readable_and_accessible`, limit, async (t) => {
      const page = await dashboard(t, { viewport, colorScheme, hasTouch: size === "phone", isMobile: size === "phone" });
      await knows(page, 2);
      const key = `login-${size}-${colorScheme}`;
      hold(t, other, key);
      await one.set(`${key}-2`, `{"user":"ann"}`);
      await search(page, key);
      await until("it is found", async () => (await search(page, key), (await found(page)).includes(host(other))));
      await page.screenshot({ path: `${screenshots}dashboard-${size}-${colorScheme}.png`, fullPage: true });
      await check(page, "the page", viewport);
      clean(page);
    });
  }
}

test("a_node_that_stops_answering_is_said_to", limit, async (t) => {
  const gone = await program({ t });
  const page = await dashboard(t, { of: gone });
  await gone.kill();
  await until("the summary says so", async () => /^This node has not answered since \d\d:\d\d:\d\d; trying again$/.test(await text(page, "#summary")));
  assert.equal(await rows(page), 1, "its last report stays");
});

// Checks the picture of the page that the documents show. With `HOLDFAST_BLESS=1` the test takes it again, which needs
// two minutes of logins. Then look at it.
test("readme_shows_the_page_in_a_small_picture", { timeout: 240_000 }, async (t) => {
  const path = "tests/browser/readme/dashboard.png";
  const shown = new URL(`../../${path}`, import.meta.url);
  if (process.env.HOLDFAST_BLESS) {
    const third = await node({ t });
    const page = await dashboard(t, { viewport: { width: 1240, height: 745 } });
    await knows(page, 3);
    const all = [one, other, third];
    const end = Date.now() + 130_000;
    // Play people who log in, at a rate that rises and falls. Each waits on one node, and is confirmed through another.
    const login = async (number) => {
      const key = `login-${number}`;
      hold(t, all[number % 3], key);
      await sleep(4000 + 8000 * Math.random());
      await all[(number + 1) % 3].set(key, `{"user":"ann"}`, `,"final":true`);
    };
    const logins = [];
    for (let number = 0; Date.now() < end; number++) {
      logins.push(login(number));
      await sleep(40 + 160 * Math.random() * (1 + Math.sin(number / 60)));
    }
    hold(t, other, "login-81f3");
    await until("it is held", async () => (await search(page, "login-81f3"), (await found(page)).includes(host(other))));
    await page.screenshot({ path: `${screenshots}readme-dashboard.png` });
    copyFileSync(`${screenshots}readme-dashboard.png`, shown);
    await Promise.all(logins);
  }
  const readme = readFileSync(new URL("../../docs/operating.md", import.meta.url), "utf8");
  assert.ok(readme.includes(`src="../${path}"`), `docs/operating.md shows ${path}`);
  assert.ok(statSync(shown).size <= 120_000, `${path} is small`);
});
