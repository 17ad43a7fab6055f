// Reads QR codes by a real decoder, as a phone's camera does.

import jsQR from "jsqr";
import { PNG } from "pngjs";

/** Returns the text of the code in a screenshot. The code must be dark on light, so that every scanner can read it. */
export function textOf(png) {
  const { data, width, height } = PNG.sync.read(png);
  return jsQR(new Uint8ClampedArray(data), width, height, { inversionAttempts: "dontInvert" })?.data;
}
