"""Holds docs/openapi.yaml against answers of the program. Prints each difference, and fails if there is one.

Each answer must be one that the document has, with its headers and its schema. Each answer that the document has must have
come. So must each example: the schemas accept it.
"""

import json
import socket
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import yaml
from jsonschema import Draft202012Validator

METHODS = {"get", "post", "delete", "head", "options"}

document = yaml.safe_load(Path(sys.argv[1]).read_text())
fixtures = Path(sys.argv[2])
# The nodes by the names below, each as INTERNAL,PUBLIC.
nodes = {name: places.split(",") for name, places in (arg.split("=", 1) for arg in sys.argv[3:-1])}
token = sys.argv[-1]

differences = []
seen = set()


def at(part):
    """Returns the part of the document that a reference stands for."""
    while "$ref" in part and len(part) == 1:
        found = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def check_schema(what, schema, value):
    whole = {"allOf": [schema], "components": document["components"]}
    for error in Draft202012Validator(whole).iter_errors(value):
        differences.append(f"{what}: {error.json_path}: {error.message}")


def check_answer(path, method, status, headers, body):
    """Checks one answer of the program."""
    what = f"{method} {path} {status}"
    responses = document["paths"][path][method.lower()]["responses"]
    if str(status) not in responses:
        differences.append(f"{what} is not in the document: {body}")
        return
    seen.add((path, method.lower(), str(status)))
    response = at(responses[str(status)])
    for name, header in response.get("headers", {}).items():
        value = headers.get(name)
        header = at(header)
        if value is None and header.get("required"):
            differences.append(f"{what} has no {name}")
        elif value is not None:
            typed = int(value) if at(header["schema"]).get("type") == "integer" else value
            check_schema(f"{what} {name}", header["schema"], typed)
    media = headers.get("content-type", "").split(";")[0]
    content = response.get("content", {})
    if media not in content:
        differences.append(f"{what} is {media}: {body}")
    elif media == "application/json":
        check_schema(f"{what} {body}", content[media]["schema"], json.loads(body))


def check_examples():
    def walk(part, where):
        if not isinstance(part, dict):
            return
        if "schema" in part:
            examples = [one["value"] for one in part.get("examples", {}).values()]
            for example in examples + [part[name] for name in ("example",) if name in part]:
                check_schema(f"example of {where}", part["schema"], example)
        for name, inner in part.items():
            walk(inner, f"{where} {name}")

    walk(document["paths"], "paths")
    walk(document["components"], "components")


def ask(node, path, method, target=None, body=None, listener=0, **headers):
    """Sends a request and checks the answer. The path is the document's, the target what is sent."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    host, port = nodes[node][listener].rsplit(":", 1)
    conn = HTTPConnection(host, int(port), timeout=30)
    if isinstance(body, (dict, list)):
        body, headers = json.dumps(body), {"content-type": "application/json", **headers}
    if node in ("signed", "broken") and "authorization" not in headers and listener == 0:
        headers["authorization"] = f"Bearer {token}"
    conn.request(method, target or path, body, headers)
    answer = conn.getresponse()
    text = answer.read().decode()
    conn.close()
    check_answer(path, method, answer.status, {k.lower(): v for k, v in answer.getheaders()}, text)
    return answer.status, text


def begin(node, path, length, sent):
    """Sends the head of a request and so many bytes of its body. Returns the socket."""
    host, port = nodes[node][0].rsplit(":", 1)
    conn = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    conn.sendall(head.encode() + b" " * sent)
    return conn


def ask_in_part(node, path, length):
    """Sends a request whose body has this length and does not come, and checks the answer."""
    conn = begin(node, path, length, 1)
    answer = b""
    while chunk := conn.recv(65536):
        answer += chunk
    conn.close()
    head, body = answer.decode().split("\r\n\r\n", 1)
    lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    check_answer(path, "POST", int(lines[0].split()[1]), headers, body)


def fill_bodies(node, path):
    """Asks while two other bodies have nearly all of the 128 KiB for bodies. 16 KiB of each do not count."""
    for _ in range(20):
        others = [begin(node, path, 120_000, sent) for sent in (100_000, 63_000)]
        for _ in range(20):
            if ask(node, path, "POST", body={"id": "a" * 20_000})[0] == 507:
                break
        for conn in others:
            conn.close()
        if (path, "post", "507") in seen:
            return


def check_sets():
    path = "/status/set"
    ask("plain", path, "POST", body={"key": "k", "value": 1})
    ask("plain", path, "POST", body=[{"key": "k", "value": 1, "ttl": 60}, {"key": "l", "value": None, "final": True}])
    form = {"content_type": "application/x-www-form-urlencoded"}
    ask("plain", path, "POST", body="key=k&value=1", **form)
    ask("plain", path, "POST", body={"key": "k", "valu": 1})
    ask("plain", path, "POST", body={"key": "k", "value": 1, "after": 1})
    ask("plain", path, "POST", body={"key": "k", "value": 1, "before": 1})
    ask("plain", path, "POST", body=[{"key": "k", "value": 1, "after": 1}, {"key": "l", "value": 1}])
    ask("plain", path, "POST", body="hello", content_type="text/plain")
    ask("plain", path, "POST", body={"key": "k", "value": 1}, origin="https://a.example")
    ask("signed", path, "POST", body={"key": "k", "value": 1}, authorization="Bearer wrong")
    ask("signed", path, "POST", body={"key": "full", "value": 1})
    ask("signed", path, "POST", body={"key": "other", "value": 1})
    ask("broken", path, "POST", body={"key": "k", "value": 1})
    ask_in_part("plain", path, 1 << 30)
    ask_in_part("plain", path, 2)


def check_keys():
    path = "/keys/{key}"
    ask("plain", path, "GET", "/keys/k")
    ask("plain", path, "GET", "/keys/nothing")
    ask("plain", path, "GET", "/keys/a%20b")
    ask("plain", path, "GET", "/keys/k?node=another")
    ask("plain", path, "DELETE", "/keys/l")
    ask("plain", path, "GET", "/keys/l")
    ask("plain", path, "DELETE", "/keys/a%20b")
    ask("signed", path, "DELETE", "/keys/other")
    for method in ("GET", "DELETE"):
        ask("signed", path, method, "/keys/k", authorization="Bearer wrong")
        ask("plain", path, method, "/keys/k", origin="https://a.example")
        ask("broken", path, method, "/keys/k")


def check_new_keys():
    path = "/keys"
    status, text = ask("signed", path, "POST")
    ask("signed", path, "POST", body={"id": "full", "ttl": 60})
    ask("signed", path, "POST", body={"id": "a b"})
    ask("signed", path, "POST", body="hello", content_type="text/plain")
    ask("signed", path, "POST", authorization="Bearer wrong")
    ask("signed", path, "POST", origin="https://a.example")
    ask("plain", path, "POST")
    ask_in_part("signed", path, 1 << 30)
    ask_in_part("signed", path, 2)
    fill_bodies("signed", path)
    return json.loads(text)["key"]


def check_gets(key):
    path = "/status/get"

    def get(node, query):
        return ask(node, path, "GET", f"{path}?{query}", listener=1)

    get("plain", "key=k")
    get("plain", "key=nothing&wait=0.1")
    get("plain", "wait=1")
    get("plain", "key=l&wait=1")
    get("signed", "key=unsigned")
    get("signed", f"key={quote(key)}&wait=0")
    get("broken", "key=k&wait=0")
    held = threading.Thread(target=get, args=("plain", "key=held&wait=20"))
    held.start()
    while ask("plain", "/keys/{key}", "GET", "/keys/held")[0] != 200:
        pass
    get("plain", "key=held&wait=20")
    ask("plain", "/status/set", "POST", body={"key": "held", "value": 1})
    held.join()


def check_operators():
    for name in ("live", "ready", "path"):
        path = f"/health/{name}"
        ask("plain", path, "GET")
        ask("broken", path, "GET")
        ask("plain", path, "GET", origin="https://a.example")
    ask("draining", "/health/ready", "GET")
    for node in ("plain", "draining"):
        ask(node, "/healthz", "GET", listener=1)
    for path in ("/nodes", "/metrics"):
        ask("plain", path, "GET")
        ask("plain", path, "GET", origin="https://a.example")
        ask("signed", path, "GET", authorization="Bearer wrong")
    ask("plain", "/nodes", "GET", "/nodes?samples=1")
    ask("plain", "/nodes", "GET", "/nodes?node=another")


def check_fixtures():
    for file in sorted(fixtures.glob("*.json.http")):
        head, body = file.read_text().split("\n\n", 1)
        lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines[1:])
        headers = {name: value.replace("SECONDS", "1") for name, value in headers.items()}
        body = body.replace(":VERSION", ":1763812345678").replace(":LAST", ":1763812345677").replace(":MS", ":576")
        check_answer("/status/get", "GET", int(lines[0].split()[1]), headers, body)


check_examples()
check_fixtures()
check_sets()
check_keys()
check_gets(check_new_keys())
check_operators()
for path, item in document["paths"].items():
    for method in METHODS & item.keys():
        for status in item[method]["responses"]:
            if (path, method, status) not in seen:
                differences.append(f"{method.upper()} {path} {status} is in the document, and never came")
print("\n".join(differences))
sys.exit(bool(differences))
