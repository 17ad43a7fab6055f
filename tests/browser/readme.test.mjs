// Runs the pages of README.md and docs/ as they are written there. Only the address of holdfast is replaced.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { before, beforeEach, test } from "node:test";
import { blank, browser, html, limit, open, program, site, until } from "./harness.mjs";

let chromium, holdfast, other;
const pages = {};
before(async () => {
  [chromium, holdfast] = await Promise.all([browser(), program()]);
  other = await site(pages);
});

const text = (name) => "\n" + readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
const documents = ["README.md", "docs/page.md", "docs/qr-login.md"].map(text).join("");

/** Returns the first block of code in a language under a heading, with the address of the test's holdfast. */
function block(heading, language) {
  const section = documents.split(`\n${heading}\n`)[1];
  assert.ok(section, `no document has ${heading}`);
  const code = section.split("```" + language + "\n")[1]?.split("```\n")[0];
  assert.ok(code, `${heading} has no ${language}`);
  return code.replaceAll("http://127.0.0.1:11000", holdfast.public).replaceAll("//127.0.0.1:11000", `//${new URL(holdfast.public).host}`);
}

/** Opens a page with this body. `page.said` has the lines that it wrote on the console. */
async function page_with(t, path, body) {
  pages[path] = [html, blank + body];
  const page = await open(t, chromium, `${other.localhost}/elsewhere`);
  page.said = [];
  page.on("console", async (message) => page.said.push(await Promise.all(message.args().map((arg) => arg.jsonValue()))));
  await page.goto(other.localhost + path);
  return page;
}

const said = (page, what) => until(`the page says ${what}`, () => page.said.some((line) => JSON.stringify(line).includes(what)));

/** Checks that the page writes two statuses that are set while it waits, and does not wait after the second. */
async function hears(page) {
  await holdfast.waiters(1);
  await holdfast.set("demo", `"one"`);
  await said(page, `"one"`);
  await holdfast.waiters(1);
  await holdfast.set("demo", `"two"`, `,"final":true`);
  await said(page, `"two"`);
  await holdfast.waiters(0);
  assert.deepEqual(page.complaints, []);
}

// The documents use one key only, so give it the same status before each test.
beforeEach(() => holdfast.set("demo", `"before"`));

const ways = {
  library: () => block("## holdfast.js", "html"),
  plain_script: () => block("## Plain script", "html"),
  jquery: () => `<script src="/jquery.js"></script><script>${block("## jQuery", "js")}</script>`,
  fetch: () => `<script type="module">${block("## fetch", "js")}</script>`,
  assignment: () => `<script>${block("## Assignment", "js")}</script>`,
  events: () => `<script type="module">${block("## EventSource", "js")}</script>`,
};
for (const [name, body] of Object.entries(ways)) {
  test(`page_by_${name}_hears_all_to_the_end`, limit, async (t) => {
    const page = await page_with(t, `/${name}`, body());
    await said(page, `"before"`);
    await hears(page);
  });
}

test("page_by_socket_hears_of_both_keys_to_the_end", limit, async (t) => {
  const code = block("## WebSocket", "js");
  assert.ok(code.trimEnd().split("\n").length <= 30, "docs/page.md shows at most 30 lines");
  const page = await page_with(t, "/socket", `<script type="module">${code}</script>`);
  await said(page, `["demo","before"]`);
  await holdfast.waiters(2);
  await holdfast.set("demo-2", `"one"`);
  await said(page, `["demo-2","one"]`);
  await holdfast.set("demo", `"two"`, `,"final":true`);
  await holdfast.waiters(1);
  await holdfast.forget("demo-2");
  await holdfast.waiters(0);
  assert.deepEqual(page.complaints, []);
});

test("first_page_of_the_readme_shows_the_status", limit, async (t) => {
  const page = await page_with(t, "/first", block("### The first page", "html"));
  await until("it is shown", async () => (await page.title()) === "before");
  assert.deepEqual(page.complaints, []);
});

test("page_by_module_hears_the_first_status", limit, async (t) => {
  const page = await page_with(t, "/module", `<script type="module">${block("## holdfast.js", "js")}</script>`);
  await said(page, `["first status","before"]`);
  await holdfast.waiters(0);
  assert.deepEqual(page.complaints, []);
});

test("login_in_twenty_lines_signs_in", limit, async (t) => {
  const directory = mkdtempSync(`${tmpdir()}/holdfast-readme-`);
  t.after(() => rmSync(directory, { recursive: true }));
  writeFileSync(`${directory}/secret`, "of-the-tests-of-readme-and-long-enough");
  const signing = await program({ t, args: ["--key-secret-file", `${directory}/secret`] });
  const login = block("# A QR login in twenty lines", "html").replaceAll(holdfast.public, signing.public);
  assert.equal(login.trimEnd().split("\n").length, 20);
  // Play the backend, which the document does not show.
  const ids = [];
  const redeemed = [];
  const page = await open(t, chromium, `${other.localhost}/elsewhere`);
  await page.route("**/login/code", async (route) => {
    const { id, key } = await (await fetch(`${signing.internal}/keys`, { method: "POST" })).json();
    ids.push(id);
    return route.fulfill({ json: { key, svg: `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="code"></svg>` } });
  });
  await page.route("**/login", (route) => (redeemed.push(route.request().postData()), route.fulfill({ status: 204 })));
  pages["/login-page"] = [html, blank + login];
  await page.goto(`${other.localhost}/login-page`);
  await signing.waiters(1);

  // If the phone refuses, the page gets a new code.
  const first = await signing.set(ids[0], `{"state":"scanned"}`, `,"after":0`);
  await until("it is shown", async () => (await page.textContent("#state")) === "scanned");
  await assert.rejects(signing.set(ids[0], `{"state":"scanned"}`, `,"after":0`), /409/, "a second phone");
  await signing.set(ids[0], `{"state":"refused"}`, `,"after":${first.version},"final":true`);
  await until("a new code", () => ids.length === 2);

  await signing.waiters(1);
  const { version } = await signing.set(ids[1], `{"state":"scanned"}`, `,"after":0`);
  await signing.set(ids[1], `{"state":"confirmed","ticket":"t-81f3"}`, `,"after":${version},"final":true`);
  await page.waitForURL(`${other.localhost}/`);
  assert.deepEqual(redeemed, ["t-81f3"]);
  assert.deepEqual(page.complaints, []);
});
