// The demo page, used as a person uses it: its curl line pasted into a shell, its buttons pressed.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { before, test } from "node:test";
import { browser, limit, open, program, screenshots, shell, until } from "./harness.mjs";

let chromium, holdfast;
before(async () => {
  mkdirSync(screenshots, { recursive: true });
  [chromium, holdfast] = await Promise.all([browser(), program({ args: ["--demo"] })]);
});

/** The demo page in a new profile, once it waits. What its content security policy forbids is an error on the console. */
async function demo(t, { from = holdfast, query = "", ...options } = {}) {
  const page = await open(t, chromium, `${from.public}/demo${query}`, options);
  await from.waiters(1);
  return page;
}

const text = (page, selector) => page.locator(selector).first().textContent();
const state = (page, wanted) => until(`state is ${wanted}`, async () => (await page.locator("#state").getAttribute("data-state")) === wanted);
const statuses = (page, count) => until(`${count} statuses are shown`, async () => (await page.locator(".status").count()) === count);

test("curl_line_as_shown_brings_the_status_to_the_page", limit, async (t) => {
  const page = await demo(t);
  const bodies = [];
  page.on("response", (response) => bodies.push(response.text()));
  assert.match(await text(page, "#key"), /^[A-Za-z0-9_-]{22}$/);
  await state(page, "waiting");

  const receipt = JSON.parse(await shell(await text(page, "#curl-set")));
  assert.equal(receipt.delivered, 1);
  await statuses(page, 1);
  assert.equal(await text(page, ".status pre"), `"hello"`);
  assert.match(await text(page, ".status .about"), new RegExp(`waited \\d+( ms|\\.\\d s).*version ${receipt.version}$`));
  await state(page, "answered");
  await holdfast.waiters(1);

  await shell(await text(page, "#curl-final"));
  await statuses(page, 2);
  assert.match(await text(page, ".status .about"), /final$/);
  await state(page, "stopped");
  await holdfast.waiters(0);

  // The second poll carried the version that the first brought, and the page shows the scripts as they came.
  assert.match(await text(page, ".wire .asked"), new RegExp(`^GET /status/get\\?key=[\\w-]{22}&callback=holdfast_[0-9a-f]{16}&last=${receipt.version}$`));
  assert.deepEqual((await page.locator(".wire .answered").allTextContents()).reverse(), await Promise.all(bodies));

  const left = await page.evaluate(() => [Object.keys(window).filter((name) => name.startsWith("holdfast")), document.querySelectorAll("script[src*=status]").length]);
  assert.deepEqual(left, [[], 0], "callbacks and tags are gone");
  assert.deepEqual(page.complaints, []);
});

test("value_is_shown_as_text", limit, async (t) => {
  const page = await demo(t, { query: "?key=markup" });
  await holdfast.set("markup", `{"html":"</pre><img src=x onerror=alert(1)><b>bold</b>","__proto__":{"a":1},"n":[1,{}]}`);
  await statuses(page, 1);
  const wanted = JSON.stringify(JSON.parse(`{"html":"</pre><img src=x onerror=alert(1)><b>bold</b>","__proto__":{"a":1},"n":[1,{}]}`), null, 2);
  assert.equal(await text(page, ".status pre"), wanted);
  assert.equal(await page.locator("img, .status pre *").count(), 0);
  assert.deepEqual(page.complaints, []);
});

test("key_of_the_address_cannot_leave_the_quotes_of_the_shell_line", limit, async (t) => {
  const key = `a'$(exit)"\\\`!#&;|b%`;
  const page = await demo(t, { query: `?key=${encodeURIComponent(key)}` });
  assert.equal(await text(page, "#key"), key);
  assert.equal(JSON.parse(await shell(await text(page, "#curl-set"))).delivered, 1);
  await statuses(page, 1);
});

test("key_that_is_a_mistake_stops_the_page_and_says_why", limit, async (t) => {
  const page = await open(t, chromium, `${holdfast.public}/demo?key=a%20b`);
  await state(page, "stopped");
  assert.equal(await text(page, "#state"), "Stopped: key: not printable ASCII");
});

test("deleted_key_stops_the_page", limit, async (t) => {
  const page = await demo(t, { query: "?key=deleted" });
  await holdfast.forget("deleted");
  await state(page, "stopped");
  assert.equal(await text(page, "#state"), "Stopped: gone");
});

test("timeout_is_followed_by_the_next_poll", limit, async (t) => {
  const brief = await program({ t, args: ["--demo", "--hold", "1s"] });
  const page = await demo(t, { from: brief });
  await until("a second poll", async () => (await page.locator(".wire").count()) > 1);
  assert.match(await text(page, ".wire:nth-child(2) .answered"), /"code":-1,"message":"timeout"/);
  await state(page, "waiting");
  await brief.waiters(1);
  assert.deepEqual(page.complaints, []);
});

test("page_outlives_a_restart_of_the_program", limit, async (t) => {
  const old = await program({ t, args: ["--demo"] });
  const page = await demo(t, { from: old, query: "?key=restart" });
  old.terminate();
  await state(page, "retrying");
  await page.screenshot({ path: `${screenshots}retrying.png` });
  assert.equal(await old.exited, 0);
  const address = (url) => new URL(url).host;
  const young = await program({ t, args: ["--demo", "--public", address(old.public), "--internal", address(old.internal)] });
  await young.waiters(1);
  await young.set("restart", `"still here"`);
  await statuses(page, 1);
  assert.equal(await text(page, ".status pre"), `"still here"`);
});

test("copy_button_copies_the_line", limit, async (t) => {
  const page = await demo(t, { permissions: ["clipboard-read", "clipboard-write"] });
  const button = page.locator("[data-copies=curl-final]");
  await button.focus();
  await page.keyboard.press("Enter");
  await until("the button says so", async () => (await button.textContent()) === "Copied");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await text(page, "#curl-final"));
});

test("page_is_not_there_without_demo", limit, async (t) => {
  const plain = await program({ t });
  for (const path of ["/demo", "/demo/demo.css", "/demo/demo.js"]) assert.equal((await fetch(plain.public + path)).status, 404);
});

const sizes = { phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 800 } };
for (const [name, viewport] of Object.entries(sizes)) {
  for (const colorScheme of ["light", "dark"]) {
    test(`page_fits_a_${name}_in_${colorScheme}`, limit, async (t) => {
      const page = await demo(t, { viewport, colorScheme });
      const shot = (step) => page.screenshot({ path: `${screenshots}${name}-${colorScheme}-${step}.png`, fullPage: step !== "waiting" });
      const key = await text(page, "#key");
      await shot("waiting");
      await holdfast.set(key, `{"state":"scanned","user":{"name":"Zoë","avatar":"https://example.com/a/very/long/address/that/has/no/place/to/break.png"}}`);
      await statuses(page, 1);
      await shot("answered");
      await holdfast.set(key, `"confirmed"`, `,"final":true`);
      await state(page, "stopped");
      await shot("stopped");
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), viewport.width, "nothing makes the page wider");
      assert.deepEqual(page.complaints, []);
    });
  }
}
