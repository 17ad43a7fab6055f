// Tests of the examples, started as their first lines say, and used by a screen, a phone and a stranger.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, get } from "node:http";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { browser, example, examples, html, limit, open, packages, program, site, tab, until } from "./harness.mjs";
import { textOf } from "./qr.mjs";

const pageOf = (name, { public: base } = holdfast) => [html, readFileSync(examples + name, "utf8").replaceAll("http://127.0.0.1:11000", base)];

// The commands by the language of the backend.
const commands = {
  python: [process.env.PYTHON ?? "/usr/bin/python3", `${examples}login.py`],
  node: [process.execPath, `${examples}login.mjs`],
};
const start = (language, { env, ...more } = {}) =>
  example({ command: commands[language], ...more, env: { HOLDFAST_PUBLIC_URL: signing.public, HOLDFAST_INTERNAL_URL: signing.internal, KEY_SECRET_FILE: secrets, ...env } });

// `holdfast` serves the pages that wait for any key. `signing` serves the logins, which use signed keys.
let chromium, holdfast, signing, other;
const names = ["plain", "jquery", "events", "socket"];
const pages = Object.fromEntries(names.map((name) => [`/${name}.html`, () => pageOf(`${name}.html`)]));
const directory = mkdtempSync(`${tmpdir()}/holdfast-examples-`);
const secrets = `${directory}/key-secret`;
writeFileSync(secrets, "the-first-secret-signs-as-holdfast-has-it\nanother-secret-that-verifies-as-well-as-it\n");
after(() => rmSync(directory, { recursive: true }));
const logins = {};
before(async () => {
  [chromium, holdfast, signing, other] = await Promise.all([
    browser(), program(), program({ args: ["--key-secret-file", secrets] }), site(pages),
  ]);
  for (const language of Object.keys(commands)) logins[language] = await start(language);
});

const shows = (page, selector, text) =>
  until(`${selector} is ${text}`, async () => (await page.locator(selector).textContent()) === text);

// --- pages that wait -------------------------------------------------------------------------------------------------

/**
 * Opens a page of `examples/` on another origin, and waits until its get is held. The package of the same version
 * answers for jQuery's own site.
 */
async function waiting(t, name, key) {
  const context = await chromium.newContext();
  t.after(() => context.close());
  await context.route("https://code.jquery.com/jquery-4.0.0.min.js", (route) =>
    route.fulfill({ path: `${packages}jquery/dist/jquery.min.js`, headers: { "access-control-allow-origin": "*" } }));
  const page = await tab(context, `${other.origin}/${name}?key=${key}`);
  await holdfast.waiters(1);
  return page;
}

for (const name of names) {
  test(`${name}_page_shows_each_status_in_order_and_ends_at_the_final_one`, limit, async (t) => {
    const page = await waiting(t, `${name}.html`, `${name}-order`);
    await shows(page, "#key", `${name}-order`);
    await shows(page, "#state", "waiting");
    const values = [`"one"`, `{"two":"<b>2</b>"}`, `3`];
    for (const [count, value] of values.entries()) {
      await holdfast.set(`${name}-order`, value, count === 2 ? `,"final":true` : "");
      await until(`${count + 1} statuses are shown`, async () => (await page.locator("#statuses li").count()) === count + 1);
      if (count < 2) await holdfast.waiters(1);
    }
    await shows(page, "#state", "final");
    assert.deepEqual(await page.locator("#statuses li").allTextContents(), values);
    await holdfast.waiters(0);
    assert.deepEqual(page.complaints, []);
  });

  test(`${name}_page_stops_when_its_key_is_deleted`, limit, async (t) => {
    const page = await waiting(t, `${name}.html`, `${name}-gone`);
    await holdfast.forget(`${name}-gone`);
    await shows(page, "#state", "gone");
    await holdfast.waiters(0);
    assert.deepEqual(page.complaints, []);
  });
}

test("socket_page_hears_of_two_keys_until_both_are_over", limit, async (t) => {
  const context = await chromium.newContext();
  t.after(() => context.close());
  const page = await tab(context, `${other.origin}/socket.html?key=socket-a&key=socket-b`);
  await holdfast.waiters(2);
  await holdfast.set("socket-b", `"b"`);
  await until("it is shown", async () => (await page.locator("#statuses li").count()) === 1);
  await holdfast.set("socket-a", `"a"`, `,"final":true`);
  await holdfast.waiters(1);
  await holdfast.forget("socket-b");
  await shows(page, "#state", "gone");
  await holdfast.waiters(0);
  assert.deepEqual(await page.locator("#statuses li").allTextContents(), [`socket-b: "b"`, `socket-a: "a"`]);
  assert.deepEqual(page.complaints, []);
});

test("events_page_begins_again_after_a_proxy_answered_502", limit, async (t) => {
  // A browser gives up an EventSource at such an answer. The first two requests get one.
  const context = await chromium.newContext();
  t.after(() => context.close());
  let refused = 0;
  await context.route("**/status/events?*", (route) => (refused < 2 ? (refused++, route.fulfill({ status: 502 })) : route.continue()));
  const page = await tab(context, `${other.origin}/events.html?key=events-502`);
  await shows(page, "#state", "retrying");
  await holdfast.waiters(1);
  await holdfast.set("events-502", `"one"`, `,"final":true`);
  await shows(page, "#state", "final");
  assert.equal(refused, 2);
});

test("socket_page_connects_again_after_a_drain_and_after_a_kill", limit, async (t) => {
  const first = await program({ t });
  const context = await chromium.newContext();
  t.after(() => context.close());
  pages["/socket-again.html"] = pageOf("socket.html", first);
  const page = await tab(context, `${other.origin}/socket-again.html?key=socket-again`);
  const statuses = (count) => until(`${count} statuses are shown`, async () => (await page.locator("#statuses li").count()) === count);
  await first.waiters(1);
  await first.set("socket-again", `1`);
  await statuses(1);
  first.terminate();
  await first.exited;
  const second = await program({ t, args: first.listeners });
  await second.waiters(1);
  await second.set("socket-again", `2`);
  await statuses(2);
  await second.kill();
  const third = await program({ t, args: first.listeners });
  await third.waiters(1);
  await third.set("socket-again", `3`, `,"final":true`);
  await shows(page, "#state", "final");
  assert.deepEqual(await page.locator("#statuses li").allTextContents(), ["1", "2", "3"]);
  await third.waiters(0);
});

// --- the sign-in -----------------------------------------------------------------------------------------------------

const is = (screen, state) =>
  until(`the screen is ${state}`, async () => (await screen.locator("#state").getAttribute("data-state")) === state);

/** Returns the text that a camera reads from the screen. */
const photograph = async (screen) => textOf(await screen.locator("#code svg").screenshot());

/** Opens the link on a phone, or in one more tab of it, and waits for the answer to the scan. It may be a refusal. */
async function scan(t, link, context) {
  const phone = await (context ? tab(context, link) : open(t, chromium, link));
  await until("the phone is answered", () => phone.locator("#told").textContent());
  return phone;
}
const press = (phone, name) => phone.getByRole("button", { name }).click();

/** Sends a request from the page to its server. Returns the status and the body. */
const ask = (page, path, fields) =>
  page.evaluate(
    async ([path, fields]) => {
      const answer = await fetch(path, fields && { method: "POST", body: new URLSearchParams(fields) });
      return [answer.status, await answer.text()];
    },
    [path, fields],
  );
/** Opens one more tab of this page's browser, which follows a link on another site to `address`. */
async function follow(page, address) {
  const came = await tab(page.context(), other.localhost);
  await came.evaluate((address) => document.body.append(Object.assign(document.createElement("a"), { href: address, textContent: "to it" })), address);
  await came.getByRole("link").click();
  await came.waitForURL(address);
  return came;
}

/**
 * Starts a proxy between a backend and holdfast, and returns its address. `pass` gets the body of a request, and a
 * function that forwards the request. It returns the status, the body, and whether the end of the answer is cut off.
 */
async function between(t, pass) {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const giveOn = async () => {
      const answer = await fetch(signing.internal + request.url, body ? { method: "POST", body } : {});
      return [answer.status, await answer.text()];
    };
    const [status, told, isCut = false] = await pass(body, giveOn);
    response.writeHead(status, { "content-length": told.length + isCut });
    response.write(told, () => (isCut ? response.destroy() : response.end()));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${server.address().port}`;
}

const signedIn = async (page) => JSON.parse((await ask(page, "/me"))[1]).user;

/**
 * Gets a code without a browser, as a program does. Returns its id, and a function that posts as a phone that has
 * opened the link but runs no script.
 */
async function codeOf(origin) {
  const body = await (await fetch(origin)).text();
  const [, id] = body.match(/\/app\?id=([\w-]{22})/);
  const opened = await fetch(`${origin}/app?id=${id}`);
  assert.equal(opened.status, 200);
  const cookie = opened.headers.get("set-cookie").split(";")[0];
  const post = (path, headers) => fetch(origin + path, { method: "POST", body: new URLSearchParams({ id }), headers: { cookie, ...headers } });
  return { id, post };
}

/** Gets the first status newer than `last` under the key of this screen, as the page does, but from outside of it. */
async function overhear(screen, last = 0) {
  const key = await screen.locator("main").getAttribute("data-key");
  const answer = await (await fetch(signing.get({ key, last }))).json();
  assert.equal(answer.code, 0);
  return answer;
}

for (const language of Object.keys(commands)) {
  const screenOf = (t, { url } = logins[language]) => open(t, chromium, url);

  test(`${language}_signs_the_screen_in_when_the_phone_confirms`, limit, async (t) => {
    const screen = await screenOf(t);
    const link = await photograph(screen);
    assert.match(link, /^http:\/\/127\.0\.0\.1:\d+\/app\?id=[\w-]{22}$/);
    assert.equal(link, await screen.locator("#code a").getAttribute("href"));
    const key = await screen.locator("main").getAttribute("data-key");
    const id = new URL(link).searchParams.get("id");
    assert.match(key, new RegExp(`^${id}\\.\\d{13}\\.[\\w-]{43}$`));
    assert.equal((await (await fetch(signing.get({ key: id }))).json()).code, -4, "who sees the code hears nothing");

    const phone = await scan(t, link);
    await is(screen, "scanned");
    await press(phone, "Confirm");
    await shows(phone, "#told", "Confirmed. Look at the screen.");
    await shows(screen, "#state", "Signed in as Ann.");
    assert.equal(await signedIn(screen), "Ann");

    const cookies = await screen.context().cookies();
    assert.deepEqual(cookies.map(({ name }) => name).sort(), ["browser", "session"]);
    for (const { name, httpOnly, sameSite } of cookies) {
      assert.deepEqual([httpOnly, sameSite], [true, name === "session" ? "Strict" : "Lax"]);
    }
    assert.deepEqual([screen.complaints, phone.complaints], [[], []]);
  });

  test(`${language}_ticket_is_good_once_and_in_the_browser_of_its_code_alone`, limit, async (t) => {
    const screen = await screenOf(t);
    const stranger = await screenOf(t);
    // The screen's page must not redeem the ticket before the stranger has tried.
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await screen.route("**/login", async (route) => (await held, route.continue()));

    const phone = await scan(t, await photograph(screen));
    await is(screen, "scanned");
    await press(phone, "Confirm");
    await is(screen, "confirmed");
    const { value: { ticket } } = await overhear(screen);
    assert.match(ticket, /^[\w-]{22}$/);

    assert.equal((await ask(stranger, "/login", { ticket }))[0], 403);
    assert.equal(await signedIn(stranger), null);
    release();
    await is(screen, "done");
    assert.equal((await ask(screen, "/login", { ticket }))[0], 403);
    assert.equal((await ask(screen, "/login", { ticket: "guessed" }))[0], 403);
    assert.equal(await signedIn(screen), "Ann");
  });

  test(`${language}_screen_stays_signed_out_when_the_phone_refuses`, limit, async (t) => {
    const screen = await screenOf(t);
    const phone = await scan(t, await photograph(screen));
    await press(phone, "Refuse");
    await shows(phone, "#told", "Refused. The screen stays signed out.");
    await is(screen, "refused");
    assert.deepEqual([screen.complaints, phone.complaints], [[], []]);
    assert.equal(await signedIn(screen), null);
  });

  test(`${language}_second_phone_on_the_same_code_is_told`, limit, async (t) => {
    const screen = await screenOf(t);
    const link = await photograph(screen);
    const phone = await scan(t, link);
    const second = await scan(t, link);
    await shows(second, "#told", "Another phone has scanned this code.");
    assert.equal(await second.locator("form").isVisible(), false);
    const id = new URL(link).searchParams.get("id");
    assert.equal((await ask(second, "/app/confirm", { id }))[0], 410);
    // The first phone may load its page again, and go on.
    await phone.reload();
    await press(phone, "Confirm");
    await is(screen, "done");
  });

  test(`${language}_opening_the_link_without_running_its_script_changes_nothing`, limit, async () => {
    const { id } = await codeOf(logins[language].origin);
    assert.equal((await fetch(`${signing.internal}/keys/${id}`)).status, 404);
  });

  test(`${language}_post_from_another_site_is_refused`, limit, async () => {
    const { origin } = logins[language];
    const { post } = await codeOf(origin);
    for (const path of ["/app/scanned", "/app/confirm", "/app/refuse", "/login"]) {
      for (const headers of [{}, { origin: "null" }, { origin: other.origin }]) assert.equal((await post(path, headers)).status, 403);
    }
    for (const path of ["/app/scanned", "/app/confirm"]) assert.equal((await post(path, { origin })).status, 200);
  });

  test(`${language}_phone_is_told_of_a_status_that_came_between`, limit, async (t) => {
    const screen = await screenOf(t);
    const link = await photograph(screen);
    const phone = await scan(t, link);
    await signing.set(new URL(link).searchParams.get("id"), `{"state":"refused"}`);
    await press(phone, "Confirm");
    await shows(phone, "#told", "This code has been answered already.");
    await is(screen, "refused");
  });

  test(`${language}_set_that_was_stored_without_being_confirmed_is_made_again_without_harm`, limit, async (t) => {
    // Each set is forwarded, and the first answer to it is lost. The scan is answered `"stored":"unknown"` instead. The
    // confirmation gets an answer that is cut off.
    const lost = new Set();
    const address = await between(t, async (body, giveOn) => {
      const answer = await giveOn();
      if (!body || lost.has(body)) return answer;
      lost.add(body);
      return lost.size === 1 ? [503, `{"code":-6,"message":"unavailable","stored":"unknown"}`] : [...answer, true];
    });
    const screen = await screenOf(t, await start(language, { t, env: { HOLDFAST_INTERNAL_URL: address } }));
    const phone = await scan(t, await photograph(screen));
    await shows(phone, "#told", "Scanned.");
    await press(phone, "Confirm");
    await shows(phone, "#told", "Confirmed. Look at the screen.");
    await is(screen, "done");
    assert.equal(lost.size, 2);
  });

  test(`${language}_same_answer_twice_is_told_the_same_and_the_other_one_comes_too_late`, limit, async (t) => {
    // The answer to the confirmation is lost on its way to the phone, which still shows the button.
    const screen = await screenOf(t);
    const link = await photograph(screen);
    const phone = await scan(t, link);
    await phone.route("**/app/confirm", async (route) => (await route.fetch(), route.abort()), { times: 1 });
    await press(phone, "Confirm");
    await shows(phone, "#told", "No connection. Try again.");
    await is(screen, "done");
    await press(phone, "Confirm");
    await shows(phone, "#told", "Confirmed. Look at the screen.");
    const id = new URL(link).searchParams.get("id");
    assert.deepEqual(await ask(phone, "/app/refuse", { id }), [409, "This code has been answered already."]);
    await phone.reload();
    await shows(phone, "#told", "Confirmed. Look at the screen.");
    assert.equal(await phone.locator("form").isVisible(), false);
  });

  test(`${language}_confirm_and_refuse_together_agree_with_the_screen`, limit, async (t) => {
    // The confirmation is held on its way to holdfast until the other tab has refused.
    let release;
    const held = new Promise((resolve) => (release = resolve));
    let isUnderWay = false;
    const address = await between(t, async (body, giveOn) => {
      if (body.includes("confirmed")) (isUnderWay = true), await held;
      return giveOn();
    });
    const screen = await screenOf(t, await start(language, { t, env: { HOLDFAST_INTERNAL_URL: address } }));
    const link = await photograph(screen);
    const phone = await scan(t, link);
    const second = await scan(t, link, phone.context());
    await shows(second, "#told", "Scanned.");
    await press(phone, "Confirm");
    await until("the confirmation is under way", () => isUnderWay);
    const sent = second.waitForRequest("**/app/refuse");
    await press(second, "Refuse");
    await sent;
    assert.equal(await signedIn(second), null);     // by then the backend has read the refusal
    release();
    await shows(phone, "#told", "Confirmed. Look at the screen.");
    await shows(second, "#told", "This code has been answered already.");
    await is(screen, "done");
  });

  test(`${language}_other_tabs_that_come_from_another_site_take_no_login_away`, limit, async (t) => {
    const screen = await screenOf(t);
    await follow(screen, logins[language].url);
    const link = await photograph(screen);
    const phone = await scan(t, link);
    await follow(phone, link);
    await press(phone, "Confirm");
    await shows(phone, "#told", "Confirmed. Look at the screen.");
    await is(screen, "done");
  });

  test(`${language}_pages_that_lose_the_network_try_again`, limit, async (t) => {
    const screen = await screenOf(t);
    await screen.route("**/login", (route) => route.abort(), { times: 1 });
    const context = await chromium.newContext();
    t.after(() => context.close());
    await context.route("**/app/scanned", (route) => route.abort(), { times: 1 });
    const phone = await scan(t, await photograph(screen), context);
    await shows(phone, "#told", "No connection. Try again.");
    assert.equal(await phone.getByRole("button").count(), 1);
    await press(phone, "Try again");
    await shows(phone, "#told", "Scanned.");
    assert.equal(await phone.getByRole("button").count(), 2);
    await press(phone, "Confirm");
    await is(screen, "done");
  });

  test(`${language}_phone_is_told_when_holdfast_is_out_of_reach`, limit, async (t) => {
    const { origin } = await start(language, { t, env: { HOLDFAST_INTERNAL_URL: "http://127.0.0.1:1" } });
    const answer = await (await codeOf(origin)).post("/app/scanned", { origin });
    assert.deepEqual([answer.status, await answer.text()], [503, "That did not get through. Try again."]);
  });

  test(`${language}_code_that_has_expired_is_told_on_both_sides_and_replaced`, limit, async (t) => {
    const screen = await open(t, chromium, "about:blank");
    await screen.clock.install();
    await screen.goto((await start(language, { t, env: { LOGIN_LIFE: "1" } })).url);
    const link = await screen.locator("#code a").getAttribute("href");
    const shown = performance.now();
    await until("the code has expired", () => performance.now() > shown + 1000);
    const phone = await scan(t, link);
    await shows(phone, "#told", "This code has expired. Ask the screen for a new one.");
    assert.equal(await phone.locator("form").isVisible(), false);
    // The screen waits a little longer, because a confirmation in the last moment may be under way.
    await screen.clock.fastForward(15_000);
    await is(screen, "waiting");
    await screen.clock.fastForward(10_000);
    await is(screen, "expired");
    await screen.getByRole("link", { name: "New code" }).click();
    await until("another code is shown", async () => ![null, link].includes(await screen.locator("#code a").getAttribute("href")));
    assert.deepEqual(screen.complaints, []);
  });

  test(`${language}_shows_holdfast_its_token`, limit, async (t) => {
    writeFileSync(`${directory}/tokens`, "of-the-examples\n");
    const guarded = await program({ t, args: ["--internal-token-file", `${directory}/tokens`, "--key-secret-file", secrets] });
    const env = { HOLDFAST_PUBLIC_URL: guarded.public, HOLDFAST_INTERNAL_URL: guarded.internal };
    const screen = await screenOf(t, await start(language, { t, env: { ...env, HOLDFAST_TOKEN: "of-the-examples" } }));
    await scan(t, await photograph(screen));
    await is(screen, "scanned");
  });

  test(`${language}_behind_https_has_secure_cookies_that_no_other_host_can_set`, limit, async (t) => {
    const { url } = await start(language, { t, env: { ORIGIN: "https://Login.Example.com:443/" } });
    const visit = (cookie) =>
      new Promise((resolve, reject) =>
        get(url, { headers: { host: "login.example.com", cookie } }, (answer) => resolve(answer.resume().headers["set-cookie"][0])).on("error", reject));
    const first = await visit("browser=planted-planted-plante");
    assert.match(first, /^__Host-browser=(?!planted)[\w-]{22}; Path=\/; Max-Age=360; HttpOnly; SameSite=Lax; Secure$/);
    assert.equal(await visit(first.split(";")[0]), first, "a second tab has the same");
    assert.equal((await fetch(url)).status, 421);
  });

  test(`${language}_reads_requests_as_the_other_one_does`, limit, async (t) => {
    const { origin } = await start(language, { t, env: { ORIGIN: "" } });
    const phoneOf = async (cookie) => (await fetch(`${origin}/app`, { headers: { cookie } })).headers.get("set-cookie").split(";")[0];
    const whole = `phone=${"p".repeat(22)}`;
    for (const cookie of [whole, `a=b; ${whole}`, `phone=; ${whole}; c`]) assert.equal(await phoneOf(cookie), whole);
    for (const cookie of ["phone=", "phone", `${whole}p`, `${whole}=`, `x${whole}`]) assert.match(await phoneOf(cookie), /^phone=(?!p{22})[\w-]{22}$/);
    assert.match(await (await fetch(`${origin}/app?id=a?b`)).text(), /value="a\?b"/);
    const post = async (length) => (await fetch(`${origin}/login`, { method: "POST", headers: { origin }, body: "t".repeat(length) })).status;
    assert.deepEqual([await post(4096), await post(4097)], [403, 413]);
  });
}
