"""Requests and replies: JSON, a line each, one request a connection.

A request is `{"version": 1, "verb": "up", "args": {...}}`. The supervisor answers with any number
of `{"progress": {...}}` and ends with one `{"result": ...}` or `{"error": {...}}`. After the result
of `console` the connection carries the console's bytes, raw, both ways. A client that hangs up
cancels what it asked for. On the thin client's path: imports json alone.
"""

from __future__ import annotations

import json

from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOL = 1
# A request is a verb and its words; 1 MiB leaves room for an environment and a long text to type.
REQUEST_LIMIT = 1 << 20


def encode(message: dict[str, Any]) -> bytes:
    """`message` as a line."""
    # ASCII: a path that is not UTF-8 has half surrogate pairs in it, which only \u can say.
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def request(verb: str, args: dict[str, Any]) -> bytes:
    return encode({"version": PROTOCOL, "verb": verb, "args": args})


def decode_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Verb and arguments of a request line.

    Raises: UsageError when it is none, or of another version.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("verb"), str):
        raise UsageError("the request has no verb")
    if message.get("version") != PROTOCOL:
        raise UsageError(
            f"the supervisor speaks version {PROTOCOL}, the client {message.get('version')}",
            hint="`qlaunch supervisor restart` starts the installed version; machines run on",
        )
    args = message.get("args", {})
    if not isinstance(args, dict):
        raise UsageError("the request's arguments are not a table")
    return message["verb"], args
