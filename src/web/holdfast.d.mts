/** Types of holdfast.mjs: what holdfast.d.ts has, by name, and as the default. */

export * from "./holdfast.js";

declare const holdfast: Pick<typeof import("./holdfast.js"), "watch" | "once">;
export default holdfast;
