// Helpers of the tests of holdfast.js: a page that watches, and the calls of its listeners.

import { open, until } from "./harness.mjs";

/** Opens a page of the site `at`, and loads holdfast.js from `base` into it. */
export async function loaded(t, chromium, at, base, options) {
  const page = await open(t, chromium, at, options);
  await page.addScriptTag({ url: `${base}/holdfast.js` });
  return page;
}

/** Watches `key` in the page, under `name`. `watched(page, name)` returns the calls of its listeners. */
export const watch = (page, base, key, options = {}, name = "watched") =>
  page.evaluate(
    ({ base, key, options, name }) => {
      const heard = (window[name] = { states: [], statuses: [], gone: [], errors: [] });
      heard.watch = holdfast.watch(base, key, {
        ...options,
        onstate: (state, answer) => heard.states.push(answer ? [state, answer.code] : [state]),
        onstatus: (value, answer) => heard.statuses.push([value, answer.version]),
        ongone: (answer) => heard.gone.push(answer.code),
        onerror: (message) => heard.errors.push(message),
      });
    },
    { base, key, options, name },
  );

/** Returns the calls of a watch's listeners so far, and the state and `last` of its handle. */
export const watched = (page, name = "watched") =>
  page.evaluate((name) => {
    const { watch, ...heard } = window[name];
    return { ...heard, state: watch.state, last: watch.last };
  }, name);

/** Waits until a watch has reported the state `wanted`, which may have passed since. */
export const told = (page, wanted, name = "watched") =>
  until(`the watch reported ${wanted}`, async () => (await watched(page, name)).states.some(([state]) => state === wanted));

/** Waits until a watch's state is `wanted`, in which it must stay. */
export const state = (page, wanted, name = "watched") =>
  until(`the watch is ${wanted}`, () => page.evaluate(({ wanted, name }) => window[name].watch.state === wanted, { wanted, name }));

/** Waits until a watch has reported `count` statuses, and returns their values. */
export async function values(page, count, name = "watched") {
  const statuses = await until(`${count} statuses were heard`, async () => {
    const { statuses } = await watched(page, name);
    return statuses.length >= count && statuses;
  });
  return statuses.map(([value]) => value);
}

/**
 * Returns the numbers of callback names in the window and of script tags. During a poll there is one of each. More of
 * them are leaks.
 */
export const leftovers = (page) =>
  page.evaluate(() => [
    Object.keys(window).filter((name) => name.startsWith("holdfast_")).length,
    [...document.querySelectorAll("script")].filter((script) => script.src.includes("/status/get")).length,
  ]);

/** Waits until the page's poll has ended, and the page pauses. */
export const rests = (page) => until("the page rests", async () => (await leftovers(page)).every((count) => count === 0));

/** Makes the browser say that it has a network or has none, without an event. */
export const online = (page, isOnline) =>
  page.evaluate((isOnline) => Object.defineProperty(navigator, "onLine", { configurable: true, get: () => isOnline }), isOnline);

/** Stops the page's clock. Its timers run only by `page.clock`. */
export async function pause(page) {
  await page.clock.install();
  await page.clock.pauseAt(Date.now() + 3_600_000);
}
