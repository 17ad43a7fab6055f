#!/usr/bin/env python3
"""Signs in by a QR code, like WeChat: a whole backend in one file, without a framework. login.mjs is the same in Node.

    cargo install --locked --path .                       (installs holdfast, once)
    openssl rand -base64 32 > key-secret                  (holdfast and this file sign keys with it)
    openssl rand -hex 32 > internal-token                 (this file sends it to holdfast, so nobody else sets a status)
    holdfast --key-secret-file key-secret --internal-token-file internal-token &    (on 127.0.0.1:11000 and 11001)
    export HOLDFAST_TOKEN=$(cat internal-token)
    pip install segno && python3 examples/login.py        (then open http://127.0.0.1:8000/)

A screen shows a code. Ann is signed in on her phone already. The phone scans the code and confirms, and the screen is
signed in. There are three names, and none is of use without the next:
- The id in the code names the login. Everybody near may see it.
- The key is that id, signed. The screen's page polls with it.
- The ticket comes with the confirmation. It is good once, for a minute, and only with the cookie of the browser that
  showed the code.
"""

import base64
import hashlib
import hmac
import html
import json
import re
import secrets
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import environ
from urllib.parse import parse_qsl, urlsplit

try:
    import segno
except ImportError:
    sys.exit("login.py: the package segno is missing: pip install segno (Debian: apt-get install python3-segno)")

PORT = int(environ.get("PORT", 8000))                               # 0 means any free port
HOST = environ.get("HOST", "127.0.0.1")
PUBLIC = environ.get("HOLDFAST_PUBLIC_URL", "http://127.0.0.1:11000").rstrip("/")         # for pages
INTERNAL = environ.get("HOLDFAST_INTERNAL_URL", "http://127.0.0.1:11001").rstrip("/")     # for this backend only
TOKEN = environ.get("HOLDFAST_TOKEN")                               # a token in the --internal-token-file of holdfast
KEY_SECRET = environ.get("KEY_SECRET_FILE", "key-secret")            # the --key-secret-file of holdfast
LOGIN_LIFE = int(environ.get("LOGIN_LIFE", 300))                    # seconds until a code expires
TICKET_LIFE, SESSION_LIFE = 60, 3600
ORIGIN = environ.get("ORIGIN")                                      # for browsers, like https://example.com


try:
    with open(KEY_SECRET) as lines:
        SECRET = next(filter(None, map(str.strip, lines)))          # the first one signs
except (OSError, StopIteration) as error:
    sys.exit(f"login.py: no secret in {KEY_SECRET} ({error}): openssl rand -base64 32 > {KEY_SECRET}")


def random():
    return secrets.token_urlsafe(16)                                # 128 bits, so nobody can guess it


class Refusal(Exception):
    def __init__(self, status, text):
        self.status, self.text = status, text


class Memory:
    """Entries that are kept for a while in this process. If you run several processes, use a database. All entries live
    equally long, so the oldest come first and expire first. If it is full, it refuses new entries: a flood of new
    visitors must not push out people who are signing in. But one address can fill it, and lock out all others for
    LOGIN_LIFE. So put a limit for each address in front, such as nginx's `limit_req`. Each connection has a thread, and
    nothing limits their number here, so use `limit_conn` as well."""

    def __init__(self, seconds, most=10_000):
        self.seconds, self.most, self.entries, self.lock = seconds, most, {}, threading.Lock()

    def put(self, name, entry):
        with self.lock:
            now = time.monotonic()
            while self.entries and (oldest := next(iter(self.entries))) and self.entries[oldest][1] <= now:
                del self.entries[oldest]
            if len(self.entries) >= self.most:
                raise Refusal(503, "Too many at once. Try again later.")
            self.entries[name] = entry, now + self.seconds
            return name

    def get(self, name):
        entry, until = self.entries.get(name, (None, 0))
        return entry if until > time.monotonic() else None

    def take(self, name):
        with self.lock:                                             # only one of two threads gets it
            entry, until = self.entries.pop(name, (None, 0))
        return entry if until > time.monotonic() else None


logins = Memory(LOGIN_LIFE)         # id -> Login
tickets = Memory(TICKET_LIFE)       # ticket -> (browser, user)
sessions = Memory(SESSION_LIFE)     # session -> user


class Login:
    def __init__(self, browser):
        self.browser, self.id, self.lock = browser, random(), threading.Lock()
        self.phone = self.version = self.ticket = None
        self.over = None            # the phone's answer, when it is carried out: ("confirmed" or "refused", text)


# --- holdfast ---------------------------------------------------------------------------------------------------------

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))       # no proxy to the internal listener


def key_of(id, life):
    """Returns the key with which a page waits for the statuses of an id: docs/signed-keys.md, "Sign by yourself"."""
    signed = f"{id}.{int((time.time() + life) * 1000)}"
    signature = hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def ask(method, path, body=None):
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {TOKEN}"} if TOKEN else {})}
    try:
        request = urllib.request.Request(INTERNAL + path, body, headers, method=method)
        try:
            with direct.open(request, timeout=2) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, json.load(answer)
    except (OSError, ValueError, HTTPException) as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 0, {}


def set_status(id, value, **more):
    """Sets a status if the key's version is still `after`, and returns the new version. Tries again if holdfast cannot
    store it (503, 507), gives no answer, or answers `"stored":"unknown"`. That does no harm: of two sets with the same
    `after`, the second is a conflict. Then the key's status shows whether our first set was stored, or another one came
    before."""
    for pause in 0, 0.1, 0.2, 0.4, 0.8:
        time.sleep(pause)
        status, told = ask("POST", "/status/set", json.dumps({"key": id, "value": value, **more}).encode())
        if status == 200:
            return told["version"]
        if status == 409:
            status, known = ask("GET", f"/keys/{id}")
            if status == 200 and known["value"] == value:
                return known["version"]
            if status in (200, 404):
                raise Refusal(409, "This code has been answered already.")
        elif 0 < status < 500:
            raise RuntimeError(f"holdfast refuses: {status} {told}")        # our mistake, so another try would fail too
    raise Refusal(503, "That did not get through. Try again.")


# --- the screen -------------------------------------------------------------------------------------------------------

def show_code(fields, cookies):
    # One cookie for all tabs of a browser, so that a second tab does not take the first one's login away.
    browser = cookies.get("browser") or random()
    login = Login(browser)
    link = f"{ORIGIN}/app?id={logins.put(login.id, login)}"
    key = key_of(login.id, LOGIN_LIFE + TICKET_LIFE)                # for a confirmation in the last moment
    qr = segno.make(link, micro=False, error="m").svg_inline(omitsize=True, dark="#000", light="#fff")
    return page(LOGIN, {"base": PUBLIC, "key": key, "life": LOGIN_LIFE, "link": link, "qr": qr},
                cookie("browser", browser, LOGIN_LIFE + TICKET_LIFE))


def redeem(fields, cookies):
    # Check the ticket before taking it. So a browser that showed another code can neither use the ticket nor use it up.
    ticket = fields.get("ticket")
    known = tickets.get(ticket)
    if not known or known[0] != cookies.get("browser") or not tickets.take(ticket):
        raise Refusal(403, "This ticket is not good, or no longer.")
    session = sessions.put(random(), known[1])                      # always a new one, even if the browser had one
    return text(200, "Signed in.", cookie("session", session, SESSION_LIFE, "Strict"))


def me(fields, cookies):
    user = sessions.get(cookies.get("session"))
    return 200 if user else 401, json.dumps({"user": user}), {"content-type": "application/json"}


# --- the phone --------------------------------------------------------------------------------------------------------

# A real app knows its user from its own session. Here the user is always Ann, and a cookie identifies her phone.
USER = "Ann"


def show_app(fields, cookies):
    # Opening the link changes nothing, because cameras, messengers and virus scanners open links before people do. They
    # run no scripts, so the page's script reports the scan by a POST.
    return page(APP, {"user": USER, "origin": ORIGIN, "id": fields.get("id", "")},
                cookie("phone", cookies.get("phone") or random(), SESSION_LIFE))


def scanned(fields, cookies):
    login, phone = logins.get(fields.get("id")), cookies.get("phone")
    if not login or not phone:
        raise Refusal(410, "This code has expired. Ask the screen for a new one.")
    with login.lock:
        login.phone = login.phone or phone                          # the first phone takes the login
        if login.phone != phone:
            raise Refusal(409, "Another phone has scanned this code.")
        if login.over:
            raise Refusal(410, login.over[1])
        # Kept as long as the login may last from now. Otherwise the next set would find no status with its `after`.
        login.version = login.version or set_status(login.id, {"state": "scanned"}, after=0, ttl=LOGIN_LIFE)
    return text(200, "Scanned.")


def carry_out(fields, cookies, state, told, prepare):
    """Carries out the first of two presses. If the same press is repeated because its answer was lost, it is answered
    with the same text."""
    login = logins.get(fields.get("id"))
    if not login or not login.version or login.phone != cookies.get("phone"):
        raise Refusal(410, "This code is over, or not yours to answer.")
    with login.lock:
        if not login.over:                                          # another press may have come first
            value = {"state": state, **prepare(login)}
            set_status(login.id, value, after=login.version, final=True, ttl=TICKET_LIFE)
            login.over = state, told
        if login.over[0] != state:
            raise Refusal(409, "This code has been answered already.")
    return text(200, told)


def confirm(fields, cookies):
    def prepare(login):
        # The ticket must be valid before the page can get it. It stays the same if Ann has to press again.
        if not tickets.get(login.ticket):
            login.ticket = tickets.put(random(), (login.browser, USER))
        return {"ticket": login.ticket}
    return carry_out(fields, cookies, "confirmed", "Confirmed. Look at the screen.", prepare)


def refuse(fields, cookies):
    def prepare(login):
        tickets.take(login.ticket)                                  # the ticket of a confirmation that may have failed
        return {}
    return carry_out(fields, cookies, "refused", "Refused. The screen stays signed out.", prepare)


# --- the pages --------------------------------------------------------------------------------------------------------

HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in</title><link rel="icon" href="data:,"><style nonce="{{nonce}}">
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 24rem; margin: 2rem auto; padding: 0 1rem; text-align: center }
  svg { width: 100%; height: auto } button { font: inherit; padding: .5em 1.5em } [hidden] { display: none }
</style>"""

# An expired code is not replaced by itself: otherwise a page that is left open would ask for codes for ever.
LOGIN = HEAD + """
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
</script>"""

APP = HEAD + """
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
</script>"""


def page(template, values, headers):
    """Fills in a page. Only scripts with its nonce run. holdfast.js gives the nonce to the scripts that it inserts, so
    the policy allows no host as a whole. No other site may show a page with a Confirm button in a frame."""
    nonce = random()
    values = {"nonce": nonce, **values}
    policy = (f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
              "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'")

    def fill(found):
        return values[found[1]] if found[1] else html.escape(str(values[found[2]]))
    body = re.sub(r"{{{(\w+)}}}|{{(\w+)}}", fill, template)
    return 200, body, {"content-type": "text/html; charset=utf-8", "content-security-policy": policy, **headers}


# --- HTTP -------------------------------------------------------------------------------------------------------------

def text(status, body, headers={}):
    return status, body, {"content-type": "text/plain; charset=utf-8", **headers}


def is_https():
    return ORIGIN.startswith("https:")


def prefix():
    return "__Host-" if is_https() else ""      # only this host can set it, over https, and no other host of its domain


def cookie(name, value, seconds, site="Lax"):
    """Returns the header that sets a cookie. With Lax, the browser sends the cookie also if it follows a link on
    another site. Otherwise the page would set a new cookie, in place of the one of the open tabs. Other sites cannot
    use the cookie, because each POST must come from ORIGIN."""
    secure = "; Secure" if is_https() else ""
    return {"set-cookie": f"{prefix()}{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}"}


def as_browsers_write(origin):      # in lower case, without the default port
    scheme, host = urlsplit(origin.lower())[:2]
    return f"{scheme}://{host.removesuffix(':443' if scheme == 'https' else ':80')}"


routes = {
    "GET /": show_code, "POST /login": redeem, "GET /me": me,
    "GET /app": show_app, "POST /app/scanned": scanned, "POST /app/confirm": confirm, "POST /app/refuse": refuse,
}


class Handler(BaseHTTPRequestHandler):
    timeout = 10                    # seconds that a slow client may keep a thread

    def answer(self):
        path, _, query = self.path.partition("?")
        route = routes.get(f"{self.command} {path}")
        if not route:
            raise Refusal(404, "Not found.")
        if self.headers.get("host") != urlsplit(ORIGIN).netloc:
            raise Refusal(421, f"Open {ORIGIN}/")
        if self.command == "POST":
            if self.headers.get("origin") != ORIGIN:
                raise Refusal(403, "This comes from another site.")
            length = self.headers.get("content-length", "")
            if not re.fullmatch("[0-9]{1,4}", length) or int(length) > 4096:
                raise Refusal(413, "Too long.")
            query = self.rfile.read(int(length)).decode(errors="replace")
        # Accept only cookies of our own form, and ignore all others.
        ours = rf"(?:^|; ){prefix()}(\w+)=([\w-]{{22}})(?=;|$)"
        return route(dict(parse_qsl(query)), dict(re.findall(ours, self.headers.get("cookie", ""), re.ASCII)))

    def do_GET(self):
        try:
            status, body, headers = self.answer()
        except Refusal as refusal:
            status, body, headers = text(refusal.status, refusal.text)
        except Exception:
            traceback.print_exc()
            status, body, headers = text(500, "Something went wrong here.")
        self.send_response(status)
        always = {"cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}
        for name, value in {**always, **headers, "content-length": len(body.encode())}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET

    def log_message(self, *_):
        pass                        # nothing, because the addresses contain ids


if __name__ == "__main__":
    server = ThreadingHTTPServer((HOST, PORT), Handler)
    listens = f"http://{HOST}:{server.server_port}"
    ORIGIN = as_browsers_write(ORIGIN or listens)
    print(f"{listens}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
