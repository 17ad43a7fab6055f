// Makes src/web/holdfast.min.js, which the program serves, from the readable source. `make web` runs this file. A test
// checks that the two files match.

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { minify } from "terser";

const web = fileURLToPath(new URL("../../src/web/", import.meta.url));

/** Returns the minified source in ES5, with the comment that names the library. */
export async function minified() {
  const { code } = await minify(readFileSync(`${web}holdfast.js`, "utf8"), {
    ecma: 5,
    compress: { passes: 3 },
    format: { comments: /^!/ },
  });
  return `${code}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(`${web}holdfast.min.js`, await minified());
