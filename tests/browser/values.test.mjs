// Checks that every value of fixtures/values arrives in a page as JSON.parse returns it there, and pollutes nothing.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { before, test } from "node:test";
import { browser, fixtures, limit, program, site, tab } from "./harness.mjs";

let holdfast, page;
before(async () => {
  const [chromium, started, other] = await Promise.all([browser(), program(), site()]);
  holdfast = started;
  // All values use one page. So if a value leaves something behind, the next ones show it.
  page = await tab(await chromium.newContext(), other.origin);
  await page.evaluate(() => (window.prototypes = describe()), await page.addScriptTag({ content: `${differences} ${describe} ${receive}` }));
});

/** Runs in the page. Returns the differences of `a` and `b` in structure, each as a path and the reason. */
function differences(a, b, path = "value") {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) {
    return Object.is(a, b) ? [] : [`${path}: ${String(a)} is not ${String(b)}`];
  }
  // Finds a value that set a prototype instead of a member, and an object in place of an array.
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b) || Array.isArray(a) !== Array.isArray(b)) {
    return [`${path}: another prototype`];
  }
  const names = Reflect.ownKeys(a);
  if (JSON.stringify(names) !== JSON.stringify(Reflect.ownKeys(b))) {
    return [`${path}: members ${JSON.stringify(names)} are not ${JSON.stringify(Reflect.ownKeys(b))}`];
  }
  return names.flatMap((name) => {
    const [mine, theirs] = [a, b].map((object) => Object.getOwnPropertyDescriptor(object, name));
    const same = mine.writable === theirs.writable && mine.enumerable === theirs.enumerable && mine.configurable === theirs.configurable;
    return same ? differences(mine.value, theirs.value, `${path}[${JSON.stringify(name)}]`) : [`${path}[${name}]: another kind of member`];
  });
}

/** Runs in the page. Returns the prototypes from which all values inherit, as text. */
function describe() {
  return [Object, Array, String, Number, Boolean, Function]
    .map(({ prototype }) => `${Reflect.ownKeys(prototype).map(String)} < ${Object.getPrototypeOf(prototype) === Object.prototype}`)
    .join("\n");
}

/** Runs in the page. Compares the value that the script at `src` passes or assigns to JSON.parse of `text`. */
function receive(src, text) {
  return new Promise((resolve) => {
    const script = document.createElement("script");
    let called = 0;
    delete window.answer;
    window.cb = (answer) => (called++, (window.answer = answer));
    script.onload = () => {
      const found = window.answer === undefined ? ["no answer"] : differences(window.answer.value, JSON.parse(text));
      const members = JSON.stringify(Object.keys(window.answer ?? {}));
      if (members !== '["code","message","value","version","final"]') found.push(`answer of ${members}`);
      if (called > 1) found.push(`${called} calls`);
      if (describe() !== window.prototypes) found.push("a prototype was changed");
      if ({}.polluted !== undefined) found.push("everything is polluted");
      resolve(found);
    };
    script.onerror = () => resolve(["script error"]);
    script.src = src;
    document.head.append(script);
  });
}

const files = readdirSync(`${fixtures}values`).filter((name) => name.endsWith(".json"));

for (const file of files) {
  test(`value_${file.replace(".json", "")}_arrives_as_json_parse_makes_it`, limit, async () => {
    const bytes = readFileSync(`${fixtures}values/${file}`);
    await holdfast.set(file, bytes);
    page.complaints.length = 0;
    for (const form of [{ callback: "cb" }, { assign: "answer" }]) {
      const src = holdfast.get({ key: file, ...form });
      const found = await page.evaluate(({ src, text }) => receive(src, text), { src, text: bytes.toString() });
      assert.deepEqual(found, [], Object.keys(form)[0]);
    }
    assert.deepEqual(page.complaints, []);
  });
}

test("walk_sees_what_it_is_there_for", limit, async () => {
  // Check that the comparison finds differences. Otherwise its empty results would prove nothing.
  const found = await page.evaluate(() =>
    [
      [{ __proto__: { x: 1 } }, JSON.parse('{"__proto__":{"x":1}}')],
      [0, -0],
      [[1], { 0: 1 }],
      [{ a: 1, b: 2 }, { b: 2, a: 1 }],
      ["\ud83c", "\ufffd"],
      [{ a: [{ b: null }] }, { a: [{ b: undefined }] }],
    ].map(([a, b]) => differences(a, b).length),
  );
  assert.deepEqual(found, [1, 1, 1, 1, 1, 1]);
});

test("big_value_is_exactly_at_the_limit", () => {
  assert.equal(readFileSync(`${fixtures}values/64-kib-string.json`).length, 65536);
});
