// Signs in by a QR code, like WeChat: a whole backend in one file, without a framework. login.py is the same in Python.
//
//     cargo install --locked --path .                   (installs holdfast, once)
//     openssl rand -base64 32 > key-secret              (holdfast and this file sign keys with it)
//     openssl rand -hex 32 > internal-token             (this file sends it to holdfast, so nobody else sets a status)
//     holdfast --key-secret-file key-secret --internal-token-file internal-token &    (on 127.0.0.1:11000 and 11001)
//     export HOLDFAST_TOKEN=$(cat internal-token)
//     npm install uqr && node examples/login.mjs        (then open http://127.0.0.1:8000/)
//
// A screen shows a code. Ann is signed in on her phone already. The phone scans the code and confirms, and the screen
// is signed in. There are three names, and none is of use without the next:
// - The id in the code names the login. Everybody near may see it.
// - The key is that id, signed. The screen's page polls with it.
// - The ticket comes with the confirmation. It is good once, for a minute, and only with the cookie of the browser that
//   showed the code.

import { createHmac, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

const { env } = process;
const PORT = Number(env.PORT ?? 8000);                              // 0 means any free port
const HOST = env.HOST ?? "127.0.0.1";
const PUBLIC = (env.HOLDFAST_PUBLIC_URL ?? "http://127.0.0.1:11000").replace(/\/$/, "");        // for pages
const INTERNAL = (env.HOLDFAST_INTERNAL_URL ?? "http://127.0.0.1:11001").replace(/\/$/, "");    // for this backend only
const TOKEN = env.HOLDFAST_TOKEN;                                   // a token in the --internal-token-file of holdfast
const KEY_SECRET = env.KEY_SECRET_FILE ?? "key-secret";              // the --key-secret-file of holdfast
const LOGIN_LIFE = Number(env.LOGIN_LIFE ?? 300);                   // seconds until a code expires
const TICKET_LIFE = 60, SESSION_LIFE = 3600;
let { ORIGIN } = env;                                               // for browsers, like https://example.com

// Loads uqr from the current directory, in which you ran `npm install`, not from the directory of this file.
const { renderSVG } = (() => {
  try { return createRequire(`${process.cwd()}/`)("uqr"); } catch {
    console.error("login.mjs: the package uqr is missing: npm install uqr");
    process.exit(1);
  }
})();

const SECRET = (() => {
  try {
    return readFileSync(KEY_SECRET, "utf8").trim().split(/\s/)[0] || exit("it is empty");     // the first one signs
  } catch ({ message }) { return exit(message); }
  function exit(why) {
    console.error(`login.mjs: no secret in ${KEY_SECRET} (${why}): openssl rand -base64 32 > ${KEY_SECRET}`);
    process.exit(1);
  }
})();

const random = () => randomBytes(16).toString("base64url");         // 128 bits, so nobody can guess it
class Refusal extends Error { constructor(status, text) { super(text); this.status = status; } }

// Entries that are kept for a while in this process. If you run several processes, use a database. All entries live
// equally long, so the oldest come first and expire first. If it is full, it refuses new entries: a flood of new
// visitors must not push out people who are signing in. But one address can fill it, and lock out all others for
// LOGIN_LIFE. So put a limit for each address in front, such as nginx's `limit_req`.
class Memory {
  #entries = new Map();
  constructor(seconds, most = 10_000) { Object.assign(this, { seconds, most }); }
  put(name, entry) {
    const now = performance.now();
    for (const [old, { until }] of this.#entries) if (until <= now) this.#entries.delete(old); else break;
    if (this.#entries.size >= this.most) throw new Refusal(503, "Too many at once. Try again later.");
    this.#entries.set(name, { entry, until: now + this.seconds * 1000 });
    return name;
  }
  get(name) { const found = this.#entries.get(name); return found?.until > performance.now() ? found.entry : undefined; }
  take(name) { const entry = this.get(name); this.#entries.delete(name); return entry; }
}
const logins = new Memory(LOGIN_LIFE);          // id -> { id, browser, phone, version, ticket, over, turn }
const tickets = new Memory(TICKET_LIFE);        // ticket -> { browser, user }
const sessions = new Memory(SESSION_LIFE);      // session -> { user }

// --- holdfast --------------------------------------------------------------------------------------------------------

// Returns the key with which a page waits for the statuses of an id: see docs/signed-keys.md, "Sign by yourself".
function keyOf(id, life) {
  const signed = `${id}.${Date.now() + life * 1000}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

async function ask(method, path, body) {
  const headers = { "content-type": "application/json", ...(TOKEN && { authorization: `Bearer ${TOKEN}` }) };
  try {
    const answer = await fetch(INTERNAL + path, { method, headers, body, signal: AbortSignal.timeout(2000) });
    return { ...(await answer.json()), status: answer.status };
  } catch (error) {
    console.error(`holdfast: ${error.cause?.message ?? error.message}`);
    return { status: 0 };
  }
}

// Sets a status if the key's version is still `after`, and returns the new version. Tries again if holdfast cannot
// store it (503, 507), gives no answer, or answers `"stored":"unknown"`. That does no harm: of two sets with the same
// `after`, the second is a conflict. Then the key's status shows whether our first set was stored, or another one came
// before.
async function setStatus(id, value, more) {
  for (const pause of [0, 100, 200, 400, 800]) {
    await sleep(pause);
    const told = await ask("POST", "/status/set", JSON.stringify({ key: id, value, ...more }));
    if (told.status === 200) return told.version;
    if (told.status === 409) {
      const known = await ask("GET", `/keys/${id}`);
      if (known.status === 200 && isDeepStrictEqual(known.value, value)) return known.version;
      if (known.status === 200 || known.status === 404) throw new Refusal(409, "This code has been answered already.");
    } else if (told.status > 0 && told.status < 500) {
      throw new Error(`holdfast refuses: ${told.status} ${told.message}`);   // our mistake: another try would fail too
    }
  }
  throw new Refusal(503, "That did not get through. Try again.");
}

// --- the screen ------------------------------------------------------------------------------------------------------

// One cookie for all tabs of a browser, so that a second tab does not take the first one's login away.
function showCode({ cookies }) {
  const browser = cookies.browser ?? random(), id = random();
  logins.put(id, { id, browser, turn: Promise.resolve() });
  const key = keyOf(id, LOGIN_LIFE + TICKET_LIFE);                  // for a confirmation in the last moment
  const link = `${ORIGIN}/app?id=${id}`;
  const values = { base: PUBLIC, key, life: LOGIN_LIFE, link, qr: renderSVG(link, { ecc: "M", border: 4 }) };
  return page(LOGIN, values, cookie("browser", browser, LOGIN_LIFE + TICKET_LIFE));
}

// Checks the ticket before taking it. So a browser that showed another code can neither use the ticket nor use it up.
function redeem({ fields, cookies }) {
  const ticket = tickets.get(fields.ticket);
  if (!ticket || ticket.browser !== cookies.browser) throw new Refusal(403, "This ticket is not good, or no longer.");
  tickets.take(fields.ticket);
  const session = sessions.put(random(), { user: ticket.user });    // always a new one, even if the browser had one
  return text(200, "Signed in.", cookie("session", session, SESSION_LIFE, "Strict"));
}

function me({ cookies }) {
  const user = sessions.get(cookies.session)?.user ?? null;
  return { status: user ? 200 : 401, body: JSON.stringify({ user }), headers: { "content-type": "application/json" } };
}

// --- the phone -------------------------------------------------------------------------------------------------------

// A real app knows its user from its own session. Here the user is always Ann, and a cookie identifies her phone.
const USER = "Ann";

// Opening the link changes nothing, because cameras, messengers and virus scanners open links before people do. They
// run no scripts, so the page's script reports the scan by a POST.
function showApp({ fields, cookies }) {
  const values = { user: USER, origin: ORIGIN, id: fields.id ?? "" };
  return page(APP, values, cookie("phone", cookies.phone ?? random(), SESSION_LIFE));
}

// Runs the steps of one login one after another, so that each step sees the result of the last.
function inTurn(login, what) {
  const done = login.turn.then(what);
  login.turn = done.catch(() => {});
  return done;
}

function scanned({ fields, cookies }) {
  const login = logins.get(fields.id);
  if (!login || !cookies.phone) throw new Refusal(410, "This code has expired. Ask the screen for a new one.");
  return inTurn(login, async () => {
    login.phone ??= cookies.phone;              // the first phone takes the login
    if (login.phone !== cookies.phone) throw new Refusal(409, "Another phone has scanned this code.");
    if (login.over) throw new Refusal(410, login.over.told);
    // Kept as long as the login may last from now. Otherwise the next set would find no status with its `after`.
    login.version ??= await setStatus(login.id, { state: "scanned" }, { after: 0, ttl: LOGIN_LIFE });
    return text(200, "Scanned.");
  });
}

// Carries out the first of two presses. If the same press is repeated because its answer was lost, it is answered with
// the same text.
function carryOut({ fields, cookies }, state, told, prepare) {
  const login = logins.get(fields.id);
  if (!login?.version || login.phone !== cookies.phone) throw new Refusal(410, "This code is over, or not yours to answer.");
  return inTurn(login, async () => {
    if (!login.over) {                          // another press may have come first
      const value = { state, ...prepare(login) };
      await setStatus(login.id, value, { after: login.version, final: true, ttl: TICKET_LIFE });
      login.over = { state, told };
    }
    if (login.over.state !== state) throw new Refusal(409, "This code has been answered already.");
    return text(200, told);
  });
}

const confirm = (request) => carryOut(request, "confirmed", "Confirmed. Look at the screen.", (login) => {
  // The ticket must be valid before the page can get it. It stays the same if Ann has to press again.
  if (!tickets.get(login.ticket)) login.ticket = tickets.put(random(), { browser: login.browser, user: USER });
  return { ticket: login.ticket };
});

const refuse = (request) => carryOut(request, "refused", "Refused. The screen stays signed out.", (login) => {
  tickets.take(login.ticket);                   // the ticket of a confirmation that may have failed
});

// --- the pages -------------------------------------------------------------------------------------------------------

const HEAD = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in</title><link rel="icon" href="data:,"><style nonce="{{nonce}}">
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 24rem; margin: 2rem auto; padding: 0 1rem; text-align: center }
  svg { width: 100%; height: auto } button { font: inherit; padding: .5em 1.5em } [hidden] { display: none }
</style>`;

// An expired code is not replaced by itself: otherwise a page that is left open would ask for codes for ever.
const LOGIN = `${HEAD}
<main data-base="{{base}}" data-key="{{key}}" data-life="{{life}}">
  <h1>Sign in</h1>
  <div id="code"><div role="img" aria-label="QR code">{{{qr}}}</div>
    <p>No phone at hand? <a href="{{link}}" target="_blank" rel="noopener">Be the phone in another tab.</a></p></div>
  <p id="state" role="status" data-state="waiting">Scan this code with the app.</p>
  <p id="trouble" hidden>No connection. Trying again.</p>
  <p id="again" hidden><a href="/">New code</a></p>
</main>
<script nonce="{{nonce}}" src="{{base}}/holdfast.js"></script>
<script nonce="{{nonce}}">
  const { base, key, life } = document.querySelector("main").dataset, find = (id) => document.getElementById(id);
  const texts = { scanned: "Scanned. Confirm on the phone.", confirmed: "Confirmed. Signing in.",
    refused: "Refused on the phone.", expired: "This code has expired.", failed: "That did not work." };
  function show(state, text = texts[state]) {
    find("state").dataset.state = state;
    find("state").textContent = text;
    find("code").hidden = true;
    find("again").hidden = !["refused", "expired", "failed"].includes(state);
  }
  async function redeem(ticket) {
    const post = () => fetch("/login", { method: "POST", body: new URLSearchParams({ ticket }) });
    const later = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    // Try again if there was no answer, for example without a network. Do not if the answer is a refusal.
    const answer = await post().catch(() => later(1).then(post)).catch(() => later(3).then(post));
    if (!answer.ok) return show("failed");
    show("done", "Signed in as " + (await (await fetch("/me")).json()).user + ".");
  }
  holdfast.watch(base, key, {
    giveUpAfter: +life + 20,    // a confirmation in the last moment may be tried for so long
    onstatus(value) {
      show(value.state);
      if (value.state === "confirmed") redeem(value.ticket).catch(() => show("failed"));
    },
    onstate(state) { find("trouble").hidden = state === "waiting" || state === "stopped"; },
    ongone() { show("expired"); },
    onerror(message) { show(message === "given up" ? "expired" : "failed"); },
  });
</script>`;

const APP = `${HEAD}
<h1>Sign in there?</h1>
<p>You are {{user}}. A screen asks to be signed in as you at <b>{{origin}}</b>. Confirm only if it is the one before you.</p>
<p id="told" role="status"></p>
<form hidden><input type="hidden" name="id" value="{{id}}">
  <span id="choice"><button formaction="/app/confirm">Confirm</button> <button formaction="/app/refuse">Refuse</button></span>
  <button id="again" formaction="/app/scanned">Try again</button></form>
<script nonce="{{nonce}}">
  const form = document.forms[0], find = (id) => document.getElementById(id);
  async function send(path) {
    form.hidden = true;
    const [status, text] = await fetch(path, { method: "POST", body: new URLSearchParams(new FormData(form)) })
      .then(async (answer) => [answer.status, await answer.text()])
      .catch(() => [503, "No connection. Try again."]);
    find("told").textContent = text;
    const isScan = path === "/app/scanned", isLost = status >= 500;
    find("again").hidden = !(find("choice").hidden = isScan && isLost);
    form.hidden = !(isLost || (isScan && status === 200));
  }
  form.onsubmit = (event) => { event.preventDefault(); send(event.submitter.getAttribute("formaction")); };
  send("/app/scanned");
</script>`;

// Fills in a page. Only scripts with its nonce run. holdfast.js gives the nonce to the scripts that it inserts, so the
// policy allows no host as a whole. No other site may show a page with a Confirm button in a frame.
function page(template, values, headers) {
  const nonce = random(), all = { nonce, ...values };
  const policy = `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'; img-src data:; ` +
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";
  const escape = (value) => String(value).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
  const body = template.replace(/{{{(\w+)}}}|{{(\w+)}}/g, (_, raw, name) => (raw ? all[raw] : escape(all[name])));
  const type = { "content-type": "text/html; charset=utf-8", "content-security-policy": policy };
  return { status: 200, body, headers: { ...type, ...headers } };
}

// --- HTTP ------------------------------------------------------------------------------------------------------------

const text = (status, body, headers) => ({ status, body, headers: { "content-type": "text/plain; charset=utf-8", ...headers } });

// A cookie with `__Host-` can be set only by this host over https, and by no other host of its domain.
const isHttps = () => ORIGIN.startsWith("https:");
const prefix = () => (isHttps() ? "__Host-" : "");

// Returns the header that sets a cookie. With Lax, the browser sends the cookie also if it follows a link on another
// site. Otherwise the page would set a new cookie, in place of the one of the open tabs. Other sites cannot use the
// cookie, because each POST must come from ORIGIN.
function cookie(name, value, seconds, site = "Lax") {
  const flags = `Path=/; Max-Age=${seconds}; HttpOnly; SameSite=${site}${isHttps() ? "; Secure" : ""}`;
  return { "set-cookie": `${prefix()}${name}=${value}; ${flags}` };
}

const routes = {
  "GET /": showCode, "POST /login": redeem, "GET /me": me,
  "GET /app": showApp, "POST /app/scanned": scanned, "POST /app/confirm": confirm, "POST /app/refuse": refuse,
};

async function answer(request) {
  const [path, ...query] = request.url.split("?");
  const route = routes[`${request.method} ${path}`];
  if (!route) throw new Refusal(404, "Not found.");
  if (request.headers.host !== new URL(ORIGIN).host) throw new Refusal(421, `Open ${ORIGIN}/`);
  if (request.method === "POST" && request.headers.origin !== ORIGIN) throw new Refusal(403, "This comes from another site.");
  if (request.method === "POST" && !(request.headers["content-length"] <= 4096)) throw new Refusal(413, "Too long.");
  let body = "";
  for await (const chunk of request) body += chunk;
  const fields = Object.fromEntries(new URLSearchParams(request.method === "POST" ? body : query.join("?")));
  // Accept only cookies of our own form, and ignore all others.
  const ours = new RegExp(`(?:^|; )${prefix()}(\\w+)=([\\w-]{22})(?=;|$)`, "g");
  const cookies = Object.fromEntries([...(request.headers.cookie ?? "").matchAll(ours)].map(([, ...pair]) => pair));
  return route({ fields, cookies });
}

const server = createServer(async (request, response) => {
  const { status, body, headers } = await answer(request).catch((error) => {
    if (error instanceof Refusal) return text(error.status, error.message);
    console.error(error);
    return text(500, "Something went wrong here.");
  });
  const always = { "cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff" };
  response.writeHead(status, { ...always, ...headers }).end(body);
});
server.listen(PORT, HOST, () => {
  const listens = `http://${HOST}:${server.address().port}`;
  ORIGIN = new URL(ORIGIN || listens).origin;       // as browsers write it: in lower case, without the default port
  console.log(`${listens}/`);
});
