// Tests of holdfast.js as a file: its syntax, its size, its types, and that it is made from the readable source.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { parse } from "acorn";
import { limit, program } from "./harness.mjs";
import { files, minified } from "./minify.mjs";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const source = read("../../src/web/holdfast.js");

test("script_is_es5_as_written_and_as_served", limit, async (t) => {
  const { public: base } = await program({ t });
  const served = await Promise.all(files.map(async (file) => (await fetch(`${base}/${file}.js`)).text()));
  for (const text of [source, ...served]) parse(text, { ecmaVersion: 5, sourceType: "script" });
  assert.throws(() => parse("const a = () => 1", { ecmaVersion: 5 }), "the parser knows");
});

test("what_is_served_is_made_of_the_source", limit, async (t) => {
  const { public: base } = await program({ t });
  for (const file of files) {
    const [script, module] = await Promise.all(["js", "mjs"].map(async (form) => (await fetch(`${base}/${file}.${form}`)).text()));
    assert.ok(script === (await minified(file)), `src/web/${file}.min.js is older than its source: make web`);
    assert.ok(module.startsWith(script));
  }
});

test("whole_library_is_at_most_2_5_kb_over_the_wire_and_scripts_alone_1_6", limit, async (t) => {
  const { public: base } = await program({ t });
  for (const [file, most] of [["holdfast", 2560], ["holdfast-script", 1638]]) {
    for (const form of ["js", "mjs"]) {
      const { headers } = await fetch(`${base}/${file}.${form}`, { headers: { "accept-encoding": "gzip" } });
      assert.equal(headers.get("content-encoding"), "gzip");
      const bytes = Number(headers.get("content-length"));
      t.diagnostic(`${file}.${form}: ${bytes} bytes`);
      assert.ok(bytes > 0 && bytes <= most, `${file}.${form}: ${bytes} bytes`);
    }
  }
});

test("file_of_scripts_alone_has_nothing_of_the_wires", limit, async () => {
  const small = await minified("holdfast-script");
  for (const word of ["WebSocket", "XMLHttpRequest", "/status/events", "/status/ws", "transport"]) {
    assert.ok(!small.includes(word), word);
    assert.ok((await minified("holdfast")).includes(word), word);
  }
});

test("module_may_be_imported_where_there_is_no_page", limit, async (t) => {
  // Servers that render pages import it too. So it must touch nothing before a watch begins.
  const { public: base } = await program({ t });
  for (const file of files) {
    const text = await (await fetch(`${base}/${file}.mjs`)).text();
    const module = await import(`data:text/javascript,${encodeURIComponent(text)}`);
    assert.deepEqual([typeof module.watch, typeof module.once, module.default.watch], ["function", "function", module.watch]);
  }
});

test("types_are_those_that_pages_in_typescript_use", limit, async () => {
  const at = (path) => fileURLToPath(new URL(path, import.meta.url));
  const run = promisify(execFile)(process.execPath, [at("node_modules/typescript/bin/tsc"), "--project", at("types/tsconfig.json")]);
  const { stdout } = await run.catch((failed) => failed);
  assert.equal(stdout, "");
});
