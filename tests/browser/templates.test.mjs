// Pages that were written for WeChat's two logins by QR code, on another origin, against the templates in deploy/wires/.
// Their scripts do what public descriptions of these pages say. Only the address of the server is ours.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { blank, browser, html, limit, open, program, shell, site, until } from "./harness.mjs";

/** The page of WeChat's open platform: it redirects with the code, and says by `last` what it has seen. */
const openPage = [html, `${blank}<script src="/jquery.js"></script><script>
var seen = JSON.parse(sessionStorage.seen || "[]"), sent = [], base, uuid;
function poll(last) {
  sent.push(last || "");
  $.ajax({
    type: "GET", dataType: "script", cache: false, timeout: 60000,
    url: base + "/connect/l/qrconnect?uuid=" + uuid + (last ? "&last=" + last : ""),
    success: function () {
      var errcode = window.wx_errcode;
      seen.push(errcode);
      switch (errcode) {
        case 405: location.href = "/elsewhere?code=" + wx_code + "&state=s"; break;
        case 404: setTimeout(poll, 100, errcode); break;
        case 403: setTimeout(poll, 2000, errcode); break;
        case 402: case 500: sessionStorage.seen = JSON.stringify(seen); location.reload(); break;
        case 408: setTimeout(poll, 2000);
      }
    },
    error: function () {
      seen.push("error");
      setTimeout(poll, 5000, window.wx_errcode === 408 ? 0 : window.wx_errcode);
    },
  });
}
function begin(address, key) { base = address; uuid = key; poll(); }
</script>`];

/** The page of WeChat for the web: it says by tip=0 that it has seen the scan. */
const webPage = [html, `${blank}<img id="avatar" alt=""><script>
var seen = [], base, uuid;
function poll(tip) {
  var script = document.createElement("script");
  script.src = base + "/cgi-bin/mmwebwx-bin/login?loginicon=true&uuid=" + uuid + "&tip=" + tip + "&r=" + ~new Date + "&_=" + +new Date;
  script.onload = function () {
    script.remove();
    var code = window.code;
    seen.push(code);
    switch (code) {
      case 201: avatar.src = window.userAvatar; poll(0); break;
      case 408: poll(tip); break;
      case 200: location.href = window.redirect_uri; break;
      case 400: case 500: case 0: seen.push("refresh");
    }
  };
  script.onerror = function () { seen.push("error"); };
  document.head.appendChild(script);
}
function begin(address, key) { base = address; uuid = key; poll(1); }
</script>`];

const wires = ["open", "web"].flatMap((name) => ["--wire", new URL(`../../deploy/wires/wechat-${name}.json`, import.meta.url).pathname]);
const dot = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

let chromium, holdfast, other;
before(async () => {
  [chromium, holdfast, other] = await Promise.all([browser(), program({ args: wires }), site({ "/open": openPage, "/web": webPage })]);
});

/** Opens a page, and waits until its first poll is held. */
async function begin(t, path, key, { server = holdfast } = {}) {
  const page = await open(t, chromium, `${other.localhost}${path}`);
  await page.evaluate(({ base, key }) => window.begin(base, key), { base: server.public, key });
  await held(key, server);
  return page;
}

/** Waits until the key has one waiter. */
const held = (key, server = holdfast) =>
  until(`${key} is held`, async () => {
    const answer = await fetch(`${server.internal}/keys/${key}`);
    return answer.ok && Object.values((await answer.json()).waiters).reduce((sum, count) => sum + count, 0) === 1;
  });

const seen = (page) => page.evaluate(() => window.seen);
const sees = (page, list) => until(`the page sees ${list}`, async () => JSON.stringify(await seen(page)) === JSON.stringify(list));

test("a_page_of_the_open_platform_sees_the_scan_and_goes_on_with_the_code", limit, async (t) => {
  const page = await begin(t, "/open", "open-login");
  await holdfast.set("open-login", `{"state":"scanned"}`);
  await sees(page, [404]);
  await held("open-login");
  // The page knows of the scan, so that another such status does not reach it.
  await holdfast.set("open-login", `{"state":"scanned"}`);
  await held("open-login");
  assert.deepEqual(await page.evaluate(() => [seen, sent]), [[404], ["", 404]]);
  await holdfast.set("open-login", `{"state":"done","code":"021xyz"}`, `,"final":true`);
  await page.waitForURL(`${other.localhost}/elsewhere?code=021xyz&state=s`);
  assert.deepEqual(page.complaints, []);
});

test("a_page_of_the_open_platform_waits_on_after_a_refusal_and_reloads_for_a_code_that_is_gone", limit, async (t) => {
  const page = await begin(t, "/open", "open-gone");
  await holdfast.set("open-gone", `{"state":"refused"}`);
  await sees(page, [403]);
  await held("open-gone");
  const reloaded = page.waitForEvent("load");
  await holdfast.forget("open-gone");
  await reloaded;
  assert.deepEqual(await seen(page), [403, 402]);
  assert.deepEqual(page.complaints, []);
});

test("a_page_of_the_open_platform_asks_again_after_a_wait_without_news", limit, async (t) => {
  const short = await program({ t, args: [...wires, "--hold", "1s"] });
  const page = await begin(t, "/open", "open-wait", { server: short });
  const sent = await until("the page asks again", async () => {
    const [seen, sent] = await page.evaluate(() => [window.seen, window.sent]);
    assert.ok(seen.every((errcode) => errcode === 408), `${seen}`);
    return seen.length > 0 && sent.length > 1 && sent;
  });
  assert.ok(sent.every((last) => last === ""), `${sent}`);
  assert.deepEqual(page.complaints, []);
});

test("a_page_of_wechat_for_the_web_shows_the_picture_and_goes_to_the_address", limit, async (t) => {
  const page = await begin(t, "/web", "web-login");
  await holdfast.set("web-login", JSON.stringify({ state: "scanned", avatar: dot }));
  await sees(page, [201]);
  assert.equal(await page.evaluate(() => avatar.src), dot);
  await held("web-login");
  await holdfast.set("web-login", JSON.stringify({ state: "scanned", avatar: dot }));
  await held("web-login");
  assert.deepEqual(await seen(page), [201]);
  await holdfast.set("web-login", JSON.stringify({ state: "done", redirect_uri: `${other.localhost}/elsewhere?ticket=1&lang=zh` }));
  await page.waitForURL(`${other.localhost}/elsewhere?ticket=1&lang=zh`);
  assert.deepEqual(page.complaints, []);
});

test("a_page_of_wechat_for_the_web_begins_anew_when_its_code_is_gone", limit, async (t) => {
  const page = await begin(t, "/web", "web-gone");
  await holdfast.set("web-gone", `{"state":"scanned"}`);
  await sees(page, [201]);
  await held("web-gone");
  await holdfast.forget("web-gone");
  await sees(page, [201, 400, "refresh"]);
});

test("a_hostile_member_stays_a_string_in_the_page", limit, async (t) => {
  const hostile = `\u2028</script><script>window.hit=1</script>";window.hit=1;//'\\`;
  const page = await begin(t, "/web", "web-hostile");
  await page.evaluate(() => (document.getElementById("avatar").id = "hidden", window.avatar = {}));
  await holdfast.set("web-hostile", JSON.stringify({ state: "scanned", avatar: hostile }));
  await sees(page, [201]);
  assert.deepEqual(await page.evaluate(() => [window.userAvatar, window.hit]), [hostile, undefined]);
  assert.deepEqual(page.complaints, []);
});

// Programs that read these answers do not run them: they search for the assignments.
test("a_client_that_searches_the_text_finds_the_assignments", limit, async () => {
  await holdfast.set("text", JSON.stringify({ state: "done", code: "021xyz", redirect_uri: "https://a.example/?ticket=1" }));
  const openText = await shell(`curl -s '${holdfast.public}/connect/l/qrconnect?uuid=text'`);
  assert.match(openText, /window\.wx_errcode=(\d+);window\.wx_code=["'](.*?)["'];/);
  const webText = await shell(`curl -s '${holdfast.public}/cgi-bin/mmwebwx-bin/login?uuid=text&tip=1'`);
  assert.match(webText, /window\.code=200;/);
  assert.equal(/window\.redirect_uri="(\S+?)";/.exec(webText)[1], "https://a.example/?ticket=1");
});
