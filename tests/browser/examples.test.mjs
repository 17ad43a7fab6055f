// The examples, used as people use them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, test } from "node:test";
import { browser, examples, limit, packages, program, site, tab, until } from "./harness.mjs";

const html = { "content-type": "text/html; charset=utf-8" };
const pageOf = (name) => () => [html, readFileSync(examples + name, "utf8").replaceAll("http://127.0.0.1:11000", holdfast.public)];

let chromium, holdfast, other;
before(async () => {
  [chromium, holdfast, other] = await Promise.all([
    browser(), program(), site({ "/plain.html": pageOf("plain.html"), "/jquery.html": pageOf("jquery.html") }),
  ]);
});

const shows = (page, selector, text) =>
  until(`${selector} is ${text}`, async () => (await page.locator(selector).textContent()) === text);

/** A page of `examples/` on another origin, once its get is held; jQuery's own site is played by the package of that version. */
async function waiting(t, name, key) {
  const context = await chromium.newContext();
  t.after(() => context.close());
  await context.route("https://code.jquery.com/jquery-4.0.0.min.js", (route) =>
    route.fulfill({ path: `${packages}jquery/dist/jquery.min.js`, headers: { "access-control-allow-origin": "*" } }));
  const page = await tab(context, `${other.origin}/${name}?key=${key}`);
  await holdfast.waiters(1);
  return page;
}

for (const name of ["plain", "jquery"]) {
  test(`${name}_page_shows_each_status_in_order_and_ends_at_the_final_one`, limit, async (t) => {
    const page = await waiting(t, `${name}.html`, `${name}-order`);
    await shows(page, "#key", `${name}-order`);
    await shows(page, "#state", "waiting");
    const values = [`"one"`, `{"two":"<b>2</b>"}`, `3`];
    for (const [count, value] of values.entries()) {
      await holdfast.set(`${name}-order`, value, count === 2 ? `,"final":true` : "");
      await until(`${count + 1} statuses are shown`, async () => (await page.locator("#statuses li").count()) === count + 1);
      if (count < 2) await holdfast.waiters(1);
    }
    await shows(page, "#state", "final");
    assert.deepEqual(await page.locator("#statuses li").allTextContents(), values);
    await holdfast.waiters(0);
    assert.deepEqual(page.complaints, []);
  });

  test(`${name}_page_stops_when_its_key_is_deleted`, limit, async (t) => {
    const page = await waiting(t, `${name}.html`, `${name}-gone`);
    await holdfast.forget(`${name}-gone`);
    await shows(page, "#state", "gone");
    await holdfast.waiters(0);
    assert.deepEqual(page.complaints, []);
  });
}
