#!/usr/bin/env python3
"""Sign in by a QR code, as with WeChat: a whole backend in one file, without a framework. login.mjs is the same in Node.

    cargo install --locked --path .                       (holdfast itself, once)
    openssl rand -base64 32 > key-secret                  (holdfast and this file sign keys with it)
    openssl rand -hex 32 > internal-token                 (this file shows it to holdfast, so that nobody else sets a status)
    holdfast --key-secret-file key-secret --internal-token-file internal-token &    (on 127.0.0.1:11000 and 11001)
    export HOLDFAST_TOKEN=$(cat internal-token)
    pip install segno && python3 examples/login.py        (then open http://127.0.0.1:8000/)

A screen shows a code; a phone, where Ann is signed in already, scans it and confirms; the screen is signed in. Three
names, each worth nothing without the next: the id in the code says which login, and everybody near may see it; the
key, which is that id signed, is what the screen's page polls with; the ticket that comes then is good once, for a minute,
with the cookie of the browser that showed the code.
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

PORT = int(environ.get("PORT", 8000))                               # 0: any that is free
HOST = environ.get("HOST", "127.0.0.1")
PUBLIC = environ.get("HOLDFAST_PUBLIC_URL", "http://127.0.0.1:11000").rstrip("/")         # for pages
INTERNAL = environ.get("HOLDFAST_INTERNAL_URL", "http://127.0.0.1:11001").rstrip("/")     # for us alone
TOKEN = environ.get("HOLDFAST_TOKEN")                               # what --internal-token-file of holdfast holds
KEY_SECRET = environ.get("KEY_SECRET_FILE", "key-secret")            # what --key-secret-file of holdfast names
LOGIN_LIFE = int(environ.get("LOGIN_LIFE", 300))                    # seconds that a code is good for
TICKET_LIFE, SESSION_LIFE = 60, 3600
ORIGIN = environ.get("ORIGIN")                                      # how browsers reach us, as in https://example.com


try:
    with open(KEY_SECRET) as lines:
        SECRET = next(filter(None, map(str.strip, lines)))          # of several the first signs
except (OSError, StopIteration) as error:
    sys.exit(f"login.py: no secret in {KEY_SECRET} ({error}): openssl rand -base64 32 > {KEY_SECRET}")


def random():
    return secrets.token_urlsafe(16)                                # 128 bits: nobody guesses that


class Refusal(Exception):
    def __init__(self, status, text):
        self.status, self.text = status, text


class Memory:
    """What is remembered for a while, in this process; where there are several, in their database. All live equally long,
    so the oldest come first and go first. Full, it refuses: a flood of new visitors must not push out who is signing in.
    But one address can fill it, and lock the others out for LOGIN_LIFE: in front of this belongs a limit for each address,
    as nginx' `limit_req`. Nor are threads bounded here: each connection has one, so it needs `limit_conn` as well."""

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
        with self.lock:                                             # of two threads one gets it
            entry, until = self.entries.pop(name, (None, 0))
        return entry if until > time.monotonic() else None


logins = Memory(LOGIN_LIFE)         # id -> Login
tickets = Memory(TICKET_LIFE)       # ticket -> (browser, user)
sessions = Memory(SESSION_LIFE)     # session -> user


class Login:
    def __init__(self, browser):
        self.browser, self.id, self.lock = browser, random(), threading.Lock()
        self.phone = self.version = self.ticket = None
        self.over = None            # what the phone has answered, once it is carried out: ("confirmed" or "refused", text)


# --- holdfast -----------------------------------------------------------------------------------------------------------

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))       # the internal listener is behind no proxy


def key_of(id, life):
    """The key to wait with for what is set under an id: docs/signed-keys.md, "Sign by yourself"."""
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
    """Sets a status after the one of version `after`, and returns its version. Out of reach (503), full (507), no answer,
    or `"stored":"unknown"`: it is tried again, which can do no harm, as the second of two sets with the same `after` is a
    conflict. With somebody else's, or, where the first was stored after all, with our own: a look tells which."""
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
            raise RuntimeError(f"holdfast refuses: {status} {told}")        # our mistake: the same again would be too
    raise Refusal(503, "That did not get through. Try again.")


# --- the screen ---------------------------------------------------------------------------------------------------------

def show_code(fields, cookies):
    # One cookie for all tabs of a browser, so that a second tab does not take the first one's login away.
    browser = cookies.get("browser") or random()
    login = Login(browser)
    link = f"{ORIGIN}/app?id={logins.put(login.id, login)}"
    key = key_of(login.id, LOGIN_LIFE + TICKET_LIFE)                # what is confirmed in the last moment is still heard
    qr = segno.make(link, micro=False, error="m").svg_inline(omitsize=True, dark="#000", light="#fff")
    return page(LOGIN, {"base": PUBLIC, "key": key, "life": LOGIN_LIFE, "link": link, "qr": qr},
                cookie("browser", browser, LOGIN_LIFE + TICKET_LIFE))


def redeem(fields, cookies):
    # Looked at before it is taken: a browser that showed another code can neither use the ticket nor use it up.
    ticket = fields.get("ticket")
    known = tickets.get(ticket)
    if not known or known[0] != cookies.get("browser") or not tickets.take(ticket):
        raise Refusal(403, "This ticket is not good, or no longer.")
    session = sessions.put(random(), known[1])                      # new at each sign-in, whatever the browser had
    return text(200, "Signed in.", cookie("session", session, SESSION_LIFE, "Strict"))


def me(fields, cookies):
    user = sessions.get(cookies.get("session"))
    return 200 if user else 401, json.dumps({"user": user}), {"content-type": "application/json"}


# --- the phone ----------------------------------------------------------------------------------------------------------

# A real app asks its own session who this is. Here it is Ann, and a cookie tells her phone from another.
USER = "Ann"


def show_app(fields, cookies):
    # Opening the link changes nothing: cameras, messengers and virus scanners look at links ahead of people. They run no
    # scripts, so the page's script tells of the scan, by a POST.
    return page(APP, {"user": USER, "origin": ORIGIN, "id": fields.get("id", "")},
                cookie("phone", cookies.get("phone") or random(), SESSION_LIFE))


def scanned(fields, cookies):
    login, phone = logins.get(fields.get("id")), cookies.get("phone")
    if not login or not phone:
        raise Refusal(410, "This code has expired. Ask the screen for a new one.")
    with login.lock:
        login.phone = login.phone or phone                          # the first takes it
        if login.phone != phone:
            raise Refusal(409, "Another phone has scanned this code.")
        if login.over:
            raise Refusal(410, login.over[1])
        # Kept for as long as the login may last from now, or the next status would find nothing to come after.
        login.version = login.version or set_status(login.id, {"state": "scanned"}, after=0, ttl=LOGIN_LIFE)
    return text(200, "Scanned.")


def carry_out(fields, cookies, state, told, prepare):
    """Once, whichever of two presses comes first. The same again, as its answer was lost, is told the same."""
    login = logins.get(fields.get("id"))
    if not login or not login.version or login.phone != cookies.get("phone"):
        raise Refusal(410, "This code is over, or not yours to answer.")
    with login.lock:
        if not login.over:                                          # looked at only now: another press may have had the lock
            value = {"state": state, **prepare(login)}
            set_status(login.id, value, after=login.version, final=True, ttl=TICKET_LIFE)
            login.over = state, told
        if login.over[0] != state:
            raise Refusal(409, "This code has been answered already.")
    return text(200, told)


def confirm(fields, cookies):
    def prepare(login):
        # The ticket is good before the page can hear of it, and it stays the same where Ann has to press again.
        if not tickets.get(login.ticket):
            login.ticket = tickets.put(random(), (login.browser, USER))
        return {"ticket": login.ticket}
    return carry_out(fields, cookies, "confirmed", "Confirmed. Look at the screen.", prepare)


def refuse(fields, cookies):
    def prepare(login):
        tickets.take(login.ticket)                                  # of a confirmation that may have got through or not
        return {}
    return carry_out(fields, cookies, "refused", "Refused. The screen stays signed out.", prepare)


# --- the pages ----------------------------------------------------------------------------------------------------------

HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in</title><link rel="icon" href="data:,"><style nonce="{{nonce}}">
  body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 24rem; margin: 2rem auto; padding: 0 1rem; text-align: center }
  svg { width: 100%; height: auto } button { font: inherit; padding: .5em 1.5em } [hidden] { display: none }
</style>"""

# A code that has expired is not replaced by itself: a page that is left open would ask for codes for ever.
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
    // Again where there was no answer, as without a network; not where the answer is no.
    const answer = await post().catch(() => later(1).then(post)).catch(() => later(3).then(post));
    if (!answer.ok) return show("failed");
    show("done", "Signed in as " + (await (await fetch("/me")).json()).user + ".");
  }
  holdfast.watch(base, key, {
    giveUpAfter: +life + 20,    // a confirmation of the last moment may be on its way for as long, set again and again
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
    """Only scripts with this page's nonce run. holdfast.js gives it to those that it inserts, so that no host needs to be
    allowed as a whole. And nobody frames a page with a Confirm button."""
    nonce = random()
    values = {"nonce": nonce, **values}
    policy = (f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
              "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'")

    def fill(found):
        return values[found[1]] if found[1] else html.escape(str(values[found[2]]))
    body = re.sub(r"{{{(\w+)}}}|{{(\w+)}}", fill, template)
    return 200, body, {"content-type": "text/html; charset=utf-8", "content-security-policy": policy, **headers}


# --- HTTP ---------------------------------------------------------------------------------------------------------------

def text(status, body, headers={}):
    return status, body, {"content-type": "text/plain; charset=utf-8", **headers}


def is_https():
    return ORIGIN.startswith("https:")


def prefix():
    return "__Host-" if is_https() else ""      # set by this host over https, and by no other that shares its domain


def cookie(name, value, seconds, site="Lax"):
    """Lax, so that it comes along a link from another site too: else the page there would set a new one, over that of the
    tabs that are open already. And no other site can use it, as each POST must come from ORIGIN."""
    secure = "; Secure" if is_https() else ""
    return {"set-cookie": f"{prefix()}{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}"}


def as_browsers_write(origin):      # in lower case, and without the port that goes without saying
    scheme, host = urlsplit(origin.lower())[:2]
    return f"{scheme}://{host.removesuffix(':443' if scheme == 'https' else ':80')}"


routes = {
    "GET /": show_code, "POST /login": redeem, "GET /me": me,
    "GET /app": show_app, "POST /app/scanned": scanned, "POST /app/confirm": confirm, "POST /app/refuse": refuse,
}


class Handler(BaseHTTPRequestHandler):
    timeout = 10                    # seconds that a slow client keeps a thread

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
        # Those that look as ours do; any other is as none.
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
        pass                        # the addresses carry ids


if __name__ == "__main__":
    server = ThreadingHTTPServer((HOST, PORT), Handler)
    listens = f"http://{HOST}:{server.server_port}"
    ORIGIN = as_browsers_write(ORIGIN or listens)
    print(f"{listens}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
