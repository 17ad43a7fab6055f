/** Types of holdfast.mjs: the exports of holdfast.d.ts by name, and its functions also as the default export. */

export * from "./holdfast.js";

declare const holdfast: Pick<typeof import("./holdfast.js"), "watch" | "once">;
export default holdfast;
