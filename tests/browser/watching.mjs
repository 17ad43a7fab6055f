// What the tests of holdfast.js need besides the harness: a page that watches, and what it heard.

import { open, until } from "./harness.mjs";

/** A page of the site `at` that has loaded holdfast.js from `base`. */
export async function loaded(t, chromium, at, base, options) {
  const page = await open(t, chromium, at, options);
  await page.addScriptTag({ url: `${base}/holdfast.js` });
  return page;
}

/** Watches `key` in the page, as `name`; then `watched(page, name)` tells what its listeners heard. */
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

/** What the listeners of a watch heard so far, and what its handle says. */
export const watched = (page, name = "watched") =>
  page.evaluate((name) => {
    const { watch, ...heard } = window[name];
    return { ...heard, state: watch.state, last: watch.last };
  }, name);

/** Waits until a watch has told `wanted`, a state that may have passed since. */
export const told = (page, wanted, name = "watched") =>
  until(`the watch told ${wanted}`, async () => (await watched(page, name)).states.some(([state]) => state === wanted));

/** Waits until a watch's state is `wanted`, one that it stays in. */
export const state = (page, wanted, name = "watched") =>
  until(`the watch is ${wanted}`, () => page.evaluate(({ wanted, name }) => window[name].watch.state === wanted, { wanted, name }));

/** Waits until a watch has heard `count` statuses, and gives their values. */
export async function values(page, count, name = "watched") {
  const statuses = await until(`${count} statuses were heard`, async () => {
    const { statuses } = await watched(page, name);
    return statuses.length >= count && statuses;
  });
  return statuses.map(([value]) => value);
}

/** What polls leave in a page if they leak: how many names in the window, how many script tags. One of each is there while a poll is. */
export const leftovers = (page) =>
  page.evaluate(() => [
    Object.keys(window).filter((name) => name.startsWith("holdfast_")).length,
    [...document.querySelectorAll("script")].filter((script) => script.src.includes("/status/get")).length,
  ]);

/** Waits until the page has heard the end of its poll, and rests. */
export const rests = (page) => until("the page rests", async () => (await leftovers(page)).every((count) => count === 0));

/** Has the browser say that it has a network, or none, without an event. */
export const online = (page, isOnline) =>
  page.evaluate((isOnline) => Object.defineProperty(navigator, "onLine", { configurable: true, get: () => isOnline }), isOnline);

/** Stops the page's clock: no timer runs but by `page.clock`. */
export async function pause(page) {
  await page.clock.install();
  await page.clock.pauseAt(Date.now() + 3_600_000);
}
