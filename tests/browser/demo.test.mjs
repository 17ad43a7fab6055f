// Tests of the demo, used as a person uses it, with a screen and a phone beside it. The code is read from the screen's
// pixels, and the shell line is run by a shell.

import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { before, test } from "node:test";
import { browser, limit, open, packages, program, screenshots, shell, until } from "./harness.mjs";
import { textOf } from "./qr.mjs";
import { leftovers } from "./watching.mjs";

const axe = readFileSync(`${packages}axe-core/axe.min.js`, "utf8");
const sizes = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

let chromium, holdfast;
before(async () => {
  mkdirSync(screenshots, { recursive: true });
  [chromium, holdfast] = await Promise.all([browser(), program({ args: ["--demo"] })]);
});

const text = (page, selector) => page.locator(selector).first().textContent();
const attribute = (page, selector, name) => page.locator(selector).first().getAttribute(name);
const is = async (page, wanted) => {
  let seen;
  await until(`the state is ${wanted}`, async () => (seen = await attribute(page, "[data-state]", "data-state")) === wanted).catch((error) => {
    throw new Error(`${error.message}, but ${seen}`);
  });
};
const idOf = (link) => new URL(link).searchParams.get("id");

/**
 * Opens the screen in a new profile, and waits until its get is held. If its Content-Security-Policy forbids something,
 * the console shows an error.
 */
async function screen(t, { from = holdfast, prepare, ...options } = {}) {
  const page = await open(t, chromium, "about:blank", { viewport: sizes.desktop, ...options });
  page.bodies = [];
  page.on("response", (response) => /\/status\/get\?/.test(response.url()) && page.bodies.push(response.text().catch(() => "")));
  await prepare?.(page);
  await page.goto(`${from.public}/demo`);
  await held(page, from);
  return page;
}

const link = (page) => attribute(page, "#link", "href");
/** Waits until the page has asked for the next status, and the program holds its get. */
async function held(page, from = holdfast) {
  await until("a get is asked", async () => /&wait=25$/.test(await page.locator("#wire li:has(.held) .asked").first().textContent({ timeout: 100 }).catch(() => "")));
  const id = encodeURIComponent(idOf(await link(page)));
  await until("the program holds it", async () => {
    const { waiters = {} } = await (await fetch(`${from.internal}/keys/${id}`)).json();
    return Object.keys(waiters).length > 0;
  });
}

/** Opens the link of the screen's code on a phone, in a new profile. */
const phone = async (t, url, { prepare, ...options } = {}) => {
  const page = await open(t, chromium, "about:blank", { viewport: sizes.phone, hasTouch: true, isMobile: true, ...options });
  await prepare?.(page);
  await page.goto(url);
  return page;
};

/** Returns the text that a scanner reads from the pixels of the code as shown. */
async function decoded(page) {
  await until("the code is drawn", () => page.evaluate(() => document.getElementById("qr").complete && document.getElementById("qr").naturalWidth > 0));
  return textOf(await page.screenshot());
}

async function check(page, what, viewport) {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  assert.deepEqual(grave.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])]), [], what);
  assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= viewport.width, `${what}: nothing makes the page wider`);
}

test("what_the_phone_confirms_is_on_the_screen_with_the_name_that_was_typed", limit, async (t) => {
  const page = await screen(t);
  await is(page, "waiting");
  assert.match(await link(page), new RegExp(`^${holdfast.public}/demo/phone\\?id=demo-\\d{13}-[A-Za-z0-9]{22}$`));
  assert.match(await text(page, "#left"), /^(2:00|1:5\d)$/);
  const other = await phone(t, await link(page));
  await is(other, "asking");
  await is(page, "scanned");
  assert.equal(await text(page, "#state"), "Scanned. Confirm on your phone");
  assert.ok(await page.locator("#left").isVisible(), "the countdown goes on");
  assert.equal(await text(other, "#where"), new URL(holdfast.public).host);

  const name = `Zoë <b>"小安"</b>`;
  await held(page);
  await other.fill("#name", name);
  await other.tap("#confirm");
  await is(other, "done");
  assert.ok(await other.locator("#note").isHidden());
  await is(page, "confirmed");
  assert.equal(await text(page, "#state"), `Signed in as ${name}`);
  assert.equal(await page.locator("#state *").count(), 0, "a name is text");

  const before = idOf(await link(page));
  await page.click("#again");
  await is(page, "waiting");
  assert.notEqual(idOf(await link(page)), before);
  await other.reload();
  await is(other, "done");
  assert.deepEqual([page.complaints, other.complaints], [[], []]);
});

test("wire_shows_each_poll_and_each_script_as_it_came", limit, async (t) => {
  const page = await screen(t);
  const id = idOf(await link(page));
  await holdfast.set(id, `{"state":"scanned","more":[1,{"a":null}],"text":"é\\"</script>"}`);
  await is(page, "scanned");
  await held(page);
  await holdfast.set(id, `{"state":"refused"}`, `,"final":true`);
  await is(page, "refused");
  assert.deepEqual((await page.locator("#wire .answered").allTextContents()).reverse(), await Promise.all(page.bodies));
  const asked = (await page.locator("#wire .asked").allTextContents()).reverse();
  for (const line of asked) assert.match(line, new RegExp(`^GET /status/get\\?key=${id}\\.\\d{13}\\.[\\w-]{43}&callback=holdfast_\\w+&last=\\d+&wait=(0|25)$`));
  assert.match(asked.at(-1), /&last=\d{13}&wait=25$/);
  assert.equal(await page.locator("#wire .held").count(), 0);
  assert.match(await text(page, "#wire .ended"), /^\d+\.\d s later$/);
  assert.equal(await page.locator("#wire .why").count(), 2 * asked.length, "each line is explained");
  assert.deepEqual([await leftovers(page), page.complaints], [[0, 0], []]);
});

for (const [way, route] of [["events", "/status/events"], ["socket", "/status/ws"]]) {
  test(`switch_to_${way}_goes_on_from_the_same_version_and_shows_what_passes`, limit, async (t) => {
    const page = await screen(t);
    const id = idOf(await link(page));
    await page.check(`[name="way"][value="${way}"]`);
    const first = page.locator("#wire li").first();
    await until("it asks by the new way", async () => (await first.locator(".asked").textContent()).includes(route));
    await until("the program answers", async () => (await first.locator(".answered").count()) > 0);
    // The page has left the script, which the program holds.
    const left = page.locator("#wire li").nth(1);
    assert.equal(await left.locator(".held").count(), 0);
    assert.equal(await text(left, ".ended"), "left by the page; the server holds it until it has an answer");
    const [label, note] = await Promise.all([".ways label >> nth=2", "#way-note"].map((at) => page.locator(at).boundingBox()));
    assert.ok(note.y - label.y - label.height >= 6, "the note has a distance from the choices");
    await holdfast.set(id, `{"state":"scanned"}`);
    await is(page, "scanned");
    await until("the script has come", async () => /^\d+\.\d s later$/.test(await text(left, ".ended")));
    assert.match(await text(left, ".answered"), /^It came after the page had stopped listening/);
    await page.screenshot({ path: `${screenshots}way-${way}.png` });
    await holdfast.set(id, `{"state":"confirmed","user":"Zoë"}`, `,"final":true`);
    await is(page, "confirmed");
    const shown = (await first.locator(".answered").allTextContents()).join("");
    for (const state of ["scanned", "confirmed"]) assert.ok(shown.includes(`"value":{"state":"${state}"`), shown);
    await until("it has ended", async () => (await first.locator(".ended").count()) === 1);
    // The bytes are those that are shown.
    const sent = await first.locator(".asked, .sent").allTextContents();
    const bytes = Buffer.byteLength([...sent, shown].join(""));
    assert.equal(await text(page, `#bytes-${way}`), `${bytes} B`);
    // The next code is waited for in the same way.
    await page.click("#again");
    await is(page, "waiting");
    await until("it asks by the same way", async () => (await first.locator(".asked").textContent()).includes(route));
    assert.deepEqual(page.complaints, []);
  });
}

test("line_as_shown_signs_in_from_a_terminal", limit, async (t) => {
  const page = await screen(t, { permissions: ["clipboard-read", "clipboard-write"] });
  await page.focus("#copy");
  await page.keyboard.press("Enter");
  await until("the button says so", async () => (await text(page, "#copy")) === "Copied");
  const line = await text(page, "#curl");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), line);
  assert.equal(JSON.parse(await shell(line)).delivered, 1);
  await is(page, "confirmed");
  assert.equal(await text(page, "#state"), "Signed in as Terminal");
});

test("an_id_cannot_leave_the_quotes_of_the_shell_line", limit, async (t) => {
  const id = `a'$(exit)"\\\`!#&;|b%`;
  const answer = { code: 0, message: "success", id, key: id, expires_in_ms: 120000 };
  const page = await screen(t, { prepare: (page) => page.route("**/demo/code", (route) => route.fulfill({ json: answer })) });
  assert.equal(JSON.parse(await shell(await text(page, "#curl"))).delivered, 1);
  await is(page, "confirmed");
});

test("what_the_phone_refuses_ends_the_code", limit, async (t) => {
  const page = await screen(t);
  const other = await phone(t, await link(page));
  await is(other, "asking");
  await other.tap("#refuse");
  await is(other, "doneRefused");
  await is(page, "refused");
  assert.equal(await text(page, "#again"), "New code");
  await page.click("#again");
  await is(page, "waiting");
});

test("a_second_phone_is_told_and_a_reload_of_the_first_goes_on", limit, async (t) => {
  const page = await screen(t);
  const first = await phone(t, await link(page));
  await is(first, "asking");
  const second = await phone(t, await link(page));
  await is(second, "conflict");
  assert.equal(await text(second, "#state"), "This code was used on another phone");
  assert.ok(await second.locator("#confirm").isHidden());
  await first.reload();
  await is(first, "asking");
  await first.tap("#confirm");
  await is(page, "confirmed");
  assert.equal(await text(page, "#state"), "Signed in as Ann");
});

test("an_expired_code_is_followed_by_a_new_one_and_the_old_phone_is_told", limit, async (t) => {
  const prepare = (page) => page.clock.install();
  const page = await screen(t, { prepare });
  const old = await link(page);
  const other = await phone(t, old, { prepare });
  await is(other, "asking");
  await is(page, "scanned");
  await page.clock.fastForward(121_000);
  await is(page, "expired");
  await until("a new code", async () => (await link(page)) !== old);
  assert.equal(await text(page, "#state"), "That code has expired; here is a new one");
  assert.match(await text(page, "#left"), /^(2:00|1:5\d)$/);
  await other.clock.fastForward(121_000);
  await is(other, "gone");
  assert.equal(await text(other, "#state"), "This code has expired: scan the new one");
  const third = await phone(t, await link(page));
  await is(third, "asking");
  await is(page, "scanned");
});

test("what_is_pressed_in_the_last_moment_is_on_the_screen", limit, async (t) => {
  // The script with the confirmation is still on its way when the code expires.
  let arrive;
  const arrival = new Promise((resolve) => (arrive = resolve));
  const page = await screen(t, { prepare: (page) => page.clock.install() });
  const other = await phone(t, await link(page));
  await is(other, "asking");
  await is(page, "scanned");
  let waits = false;
  await page.route("**/status/get?**wait=25", async (route) => {
    const response = await route.fetch();
    waits = true;
    await arrival;
    await route.fulfill({ response });
  });
  // The held poll is older than the route. A status that changes nothing ends it, and the next poll takes the route.
  const id = idOf(await link(page));
  const { version } = await holdfast.set(id, `{"state":"scanned"}`);
  await until("the next is held", async () => (await page.locator("#wire .asked").first().textContent()).includes(`last=${version}&`));
  await holdfast.set(id, `{"state":"confirmed","user":"Ann"}`, `,"final":true`);
  await until("its script is on its way", () => waits);
  await page.clock.fastForward(121_000);
  await is(page, "confirmed");
  arrive();
});

test("a_scanned_code_may_be_left_for_a_new_one", limit, async (t) => {
  const page = await screen(t);
  const old = await link(page);
  const other = await phone(t, old);
  await is(page, "scanned");
  await page.click("#other");
  await is(page, "waiting");
  assert.notEqual(await link(page), old);
  await other.tap("#confirm");
  await is(other, "done");
  await held(page);
  await is(page, "waiting");
});

test("a_phone_whose_answer_was_lost_is_not_told_of_another_phone_also_after_a_reload", limit, async (t) => {
  const page = await screen(t);
  const other = await phone(t, await link(page));
  await is(other, "asking");
  await other.route("**/demo/phone?*do=confirm*", async (route) => (await route.fetch(), route.abort()), { times: 1 });
  await other.tap("#confirm");
  await is(other, "lost");
  assert.equal(await other.evaluate(() => document.activeElement.id), "retry");
  await is(page, "confirmed");
  await other.reload();
  await is(other, "asking");
  await other.tap("#confirm");
  await is(other, "conflictMaybe");
});

test("a_phone_with_an_expired_code_is_told_by_the_server", limit, async (t) => {
  const other = await phone(t, `${holdfast.public}/demo/phone?id=demo-1700000000000-aG9sZGZhc3QsIGEgZGVtbw`);
  await is(other, "gone");
  await other.goto(`${holdfast.public}/demo/phone`);
  await is(other, "noCode");
  await other.goto(`${holdfast.public}/demo/phone?id=order-1`);
  await is(other, "mistake");
  assert.equal(await text(other, "#state"), "That did not work: id: must be an id of the demo");
});

test("the_screen_outlives_a_restart_of_a_program_with_a_secret", limit, async (t) => {
  const secrets = join(mkdtempSync(join(tmpdir(), "holdfast-")), "secrets");
  t.after(() => rmSync(dirname(secrets), { recursive: true }));
  writeFileSync(secrets, "x".repeat(32));
  const args = ["--demo", "--key-secret-file", secrets];
  const old = await program({ t, args: [...args, "--drain-quiet", "100ms"] });
  const page = await screen(t, { from: old });
  const code = await link(page);
  // Record every text, because the page shows this one only while the program drains.
  await page.evaluate(() => {
    window.told = new Set();
    const note = () => told.add(document.querySelector("#state").textContent);
    new MutationObserver(note).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  old.terminate();
  await until("the restart is shown", () => page.evaluate(() => told.has("The server is restarting; trying again")));
  await page.screenshot({ path: `${screenshots}desktop-light-retrying.png` });
  assert.equal(await old.exited, 0);
  const young = await program({ t, args: [...args, ...old.listeners] });
  await is(page, "waiting");
  await held(page, young);
  assert.equal(await link(page), code);
  const other = await phone(t, await link(page));
  await other.tap("#confirm");
  await is(page, "confirmed");
});

test("after_a_restart_that_forgets_the_secret_there_is_a_new_code", limit, async (t) => {
  const old = await program({ t, args: ["--demo"] });
  const page = await screen(t, { from: old });
  const code = await link(page);
  await old.kill();
  const young = await program({ t, args: ["--demo", ...old.listeners] });
  await is(page, "expired");
  await until("the new code", async () => (await link(page)) !== code);
  await held(page, young);
});

test("without_a_network_both_pages_say_so_and_go_on_when_it_is_back", limit, async (t) => {
  const page = await screen(t);
  const other = await phone(t, await link(page));
  await is(other, "asking");
  await is(page, "scanned");
  await other.context().setOffline(true);
  await other.tap("#confirm");
  await is(other, "lost");
  await page.context().setOffline(true);
  await is(page, "offline");
  assert.equal(await text(page, "#state"), "No network; going on when it is back");
  await page.context().setOffline(false);
  await is(page, "scanned");
  await other.context().setOffline(false);
  await other.tap("#retry");
  await is(other, "done");
  await is(page, "confirmed");
});

test("a_phone_is_told_when_the_page_was_not_waiting", limit, async (t) => {
  const page = await screen(t);
  const other = await phone(t, await link(page));
  await is(other, "asking");
  await page.close();
  await holdfast.waiters(0);
  await other.tap("#confirm");
  await is(other, "done");
  assert.match(await text(other, "#note"), /was not waiting/);
});

test("the_keyboard_is_enough", limit, async (t) => {
  const page = await screen(t);
  const other = await phone(t, await link(page));
  await is(other, "asking");
  const focused = () => other.evaluate(() => document.activeElement.id);
  for (let presses = 0; (await focused()) !== "confirm"; presses++) {
    assert.ok(presses < 10, `the focus is at ${await focused()}`);
    await other.keyboard.press("Tab");
  }
  await other.keyboard.press("Enter");
  await is(other, "done");
  assert.equal(await focused(), "state", "where the buttons go, the focus stays in the page");
  await is(page, "confirmed");
  await page.focus("#again");
  await page.keyboard.press("Enter");
  await is(page, "waiting");
  assert.equal(await page.evaluate(() => document.activeElement.id), "title");
  assert.deepEqual([page.complaints, other.complaints], [[], []]);
});

test("the_code_leads_a_phone_to_the_address_that_it_reaches", limit, async (t) => {
  const lan = "http://192.168.1.5:11000";
  const page = await screen(t, {
    prepare: (page) =>
      page.route("**/demo", async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: (await response.text()).replace(`name="holdfast-phone" content=""`, `name="holdfast-phone" content="${lan}"`) });
      }),
  });
  assert.match(await link(page), new RegExp(`^${lan}/demo/phone\\?id=demo-`));
  assert.equal(await decoded(page), await link(page));
  assert.ok(await page.locator("#loopback").isHidden());
  const plain = await screen(t);
  assert.match(await text(plain, "#loopback"), /--public 0\.0\.0\.0:11000$/);
});

test("in_a_chinese_browser_all_of_it_is_chinese", limit, async (t) => {
  for (const colorScheme of ["light", "dark"]) {
    const options = { locale: "zh-CN", colorScheme };
    const page = await screen(t, options);
    assert.equal(await attribute(page, "html", "lang"), "zh-CN");
    assert.equal(await text(page, "#state"), "请用手机扫码登录");
    const other = await phone(t, await link(page), options);
    await is(other, "asking");
    assert.equal(await other.inputValue("#name"), "小安");
    await is(page, "scanned");
    await held(page);
    for (const [at, name] of [[page, "desktop"], [other, "phone"]]) {
      await at.screenshot({ path: `${screenshots}zh-${name}-${colorScheme}.png` });
      const untold = await at.evaluate(() => document.body.innerText.split("\n").filter((line) => /^[ -~]{24,}$/.test(line) && !/^GET |^curl |^\/\*\*\//.test(line)));
      assert.deepEqual(untold, []);
    }
    await other.tap("#confirm");
    await is(page, "confirmed");
    assert.equal(await text(page, "#state"), "已登录：小安");
  }
});

const long = "Wolfeschlegelsteinhausenbergerdorff-Ann X";
for (const [size, viewport] of Object.entries(sizes)) {
  for (const colorScheme of ["light", "dark"]) {
    test(`both_pages_fit_a_${size}_in_${colorScheme}_and_are_accessible`, limit, async (t) => {
      // The pages' own policy would forbid the script that checks accessibility.
      const options = { viewport, colorScheme, bypassCSP: true };
      const page = await screen(t, options);
      const shots = async (at, name) => {
        await check(at, name, viewport);
        await at.screenshot({ path: `${screenshots}${size}-${colorScheme}-${name}.png`, fullPage: size === "phone" });
      };
      assert.equal(await decoded(page), await link(page), "a scanner reads it");
      await shots(page, "waiting");
      const other = await phone(t, await link(page), options);
      await is(other, "asking");
      await is(page, "scanned");
      await held(page);
      await shots(page, "scanned");
      await shots(other, "phone-asking");
      await other.fill("#name", long.slice(0, 40));
      await other.tap("#confirm");
      await is(other, "done");
      await is(page, "confirmed");
      await shots(page, "confirmed");
      await shots(other, "phone-done");

      await page.click("#again");
      await held(page);
      const second = await phone(t, await link(page), options);
      await is(second, "asking");
      await other.goto(await link(page));
      await is(other, "conflict");
      await shots(other, "phone-conflict");
      await second.tap("#refuse");
      await is(second, "doneRefused");
      await shots(second, "phone-refused");
      await is(page, "refused");
      await shots(page, "refused");
      await page.click("#again");
      await held(page);
      await page.context().setOffline(true);
      await is(page, "offline");
      await shots(page, "offline");
      if (size === "phone") {
        await page.click("summary");
        await check(page, "the wire", viewport);
        const narrow = { width: 360, height: 740 };
        const third = await phone(t, await link(await screen(t, options)), options);
        await is(third, "asking");
        for (const at of [page, third]) {
          await at.setViewportSize(narrow);
          await check(at, "a narrow phone", narrow);
        }
      }
    });
  }
}

// Checks the pictures that README.md shows. With `HOLDFAST_BLESS=1` the test takes them again. Then look at them.
test("readme_shows_the_screen_and_the_phone_in_small_pictures", limit, async (t) => {
  const page = await screen(t, { viewport: { width: 1000, height: 700 } });
  await page.screenshot({ path: `${screenshots}readme-screen.png` });
  const other = await phone(t, await link(page), { viewport: { width: 360, height: 560 } });
  await is(other, "asking");
  await other.screenshot({ path: `${screenshots}readme-phone.png` });
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  for (const name of ["screen", "phone"]) {
    const path = `tests/browser/readme/${name}.png`;
    const shown = new URL(`../../${path}`, import.meta.url);
    if (process.env.HOLDFAST_BLESS) copyFileSync(`${screenshots}readme-${name}.png`, shown);
    assert.ok(readme.includes(`src="${path}"`), `README.md shows ${path}`);
    assert.ok(statSync(shown).size <= 120_000, `${path} is small`);
  }
});
