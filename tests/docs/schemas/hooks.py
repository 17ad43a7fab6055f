"""Requests that the schemas of OpenAPI cannot forbid, and that the program refuses."""

import schemathesis


def whole(value):
    """JSON Schema takes 5.0 for an integer. The program refuses it as a number of seconds or a version."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def map_body(_, body):
    return whole(body)


@schemathesis.hook
def filter_path_parameters(_, parameters):
    """Schemathesis replaces characters of a key that a path may not have by others, which no key may have."""
    return "\ufffd" not in str((parameters or {}).get("key", ""))
