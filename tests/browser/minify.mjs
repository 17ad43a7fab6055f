// Makes the files of the library that the program serves from the readable source: src/web/holdfast.min.js, and
// src/web/holdfast-script.min.js, which has script polls only. `make web` runs this file. A test checks that they match.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { minify } from "terser";

const web = fileURLToPath(new URL("../../src/web/", import.meta.url));

/** The names of the files, without `.min.js`. */
export const files = ["holdfast", "holdfast-script"];

/** Returns one of `files`: the minified source in ES5, with the comment that names the library. */
export async function minified(file) {
  const source = readFileSync(`${web}holdfast.js`, "utf8");
  const all = "var WIRES = true;";
  if (!source.includes(all)) throw new Error(`src/web/holdfast.js has no ${all}`);
  const { code } = await minify(file === "holdfast" ? source : source.replace(all, "var WIRES = false;"), {
    ecma: 5,
    compress: { passes: 3 },
    // The members of the library's own objects that no page uses. Some have a name that a browser uses elsewhere.
    mangle: { properties: { builtins: true, regex: /^(?:add|alive|base|end|polls|probe|settle)$/ } },
    format: { comments: /^!/ },
  });
  return `${code}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const file of files) writeFileSync(`${web}${file}.min.js`, await minified(file));
}
