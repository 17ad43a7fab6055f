// Tests of holdfast.js as a file: its syntax, its size, its types, and that it is made from the readable source.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { parse } from "acorn";
import { limit, program } from "./harness.mjs";
import { minified } from "./minify.mjs";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const source = read("../../src/web/holdfast.js");

test("script_is_es5_as_written_and_as_served", limit, async (t) => {
  const { public: base } = await program({ t });
  const served = await (await fetch(`${base}/holdfast.js`)).text();
  for (const text of [source, served]) parse(text, { ecmaVersion: 5, sourceType: "script" });
  assert.throws(() => parse("const a = () => 1", { ecmaVersion: 5 }), "the parser knows");
});

test("what_is_served_is_made_of_the_source", limit, async (t) => {
  const { public: base } = await program({ t });
  const [script, module] = await Promise.all(["js", "mjs"].map(async (form) => (await fetch(`${base}/holdfast.${form}`)).text()));
  assert.ok(script === (await minified()), "src/web/holdfast.min.js is older than its source: make web");
  assert.ok(module.startsWith(script));
});

test("each_form_is_at_most_2_kb_over_the_wire", limit, async (t) => {
  const { public: base } = await program({ t });
  for (const form of ["js", "mjs"]) {
    const { headers } = await fetch(`${base}/holdfast.${form}`, { headers: { "accept-encoding": "gzip" } });
    assert.equal(headers.get("content-encoding"), "gzip");
    const bytes = Number(headers.get("content-length"));
    t.diagnostic(`holdfast.${form}: ${bytes} bytes`);
    assert.ok(bytes > 0 && bytes <= 2048, `holdfast.${form}: ${bytes} bytes`);
  }
});

test("module_may_be_imported_where_there_is_no_page", limit, async (t) => {
  // Servers that render pages import it too. So it must touch nothing before a watch begins.
  const { public: base } = await program({ t });
  const text = await (await fetch(`${base}/holdfast.mjs`)).text();
  const module = await import(`data:text/javascript,${encodeURIComponent(text)}`);
  assert.deepEqual([typeof module.watch, typeof module.once, module.default.watch], ["function", "function", module.watch]);
});

test("types_are_those_that_pages_in_typescript_use", limit, async () => {
  const at = (path) => fileURLToPath(new URL(path, import.meta.url));
  const run = promisify(execFile)(process.execPath, [at("node_modules/typescript/bin/tsc"), "--project", at("types/tsconfig.json")]);
  const { stdout } = await run.catch((failed) => failed);
  assert.equal(stdout, "");
});
