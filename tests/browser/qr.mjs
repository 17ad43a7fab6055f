// A real decoder of QR codes, as a phone's camera has one.

import jsQR from "jsqr";
import { PNG } from "pngjs";

/** What the code in a screenshot says; dark on light, as every scanner reads it. */
export function textOf(png) {
  const { data, width, height } = PNG.sync.read(png);
  return jsQR(new Uint8ClampedArray(data), width, height, { inversionAttempts: "dontInvert" })?.data;
}
