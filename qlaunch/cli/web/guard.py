"""Who may use the page: where a request came from, and whether it knows the secret.

Decides only; time is handed in. Three things keep others out: the name by which the browser called
us (a page elsewhere that has its own name resolved to this address is refused), where the page that
asks was loaded from, and a cookie that only who knew the secret was given.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from attrs import Factory, define

from qlaunch.machine.doorman import Doorman

# Sessions that are remembered; the oldest makes way. A browser keeps its own until it is closed.
MOST_SESSIONS = 256
LONGEST_SECRET = 1024


def fresh_secret() -> str:
    """Nobody guesses it."""
    return urlsafe_b64encode(os.urandom(24)).decode()


@define(kw_only=True)
class Guard:
    """The door of one server. `names` are those by which browsers may call it."""

    secret: str
    port: int
    tls: bool
    names: frozenset[str]
    _tickets: dict[str, None] = Factory(dict)
    _sessions: dict[str, None] = Factory(dict)
    _doorman: Doorman = Factory(Doorman)

    @property
    def cookie(self) -> str:
        """Its name: browsers do not tell the ports of a host apart."""
        return f"qlaunch-{self.port}"

    def is_called_right(self, host: str | None) -> bool:
        """Whether the browser meant us: `host` is what it says, `name:port`."""
        parts = _split(f"//{host}")
        if parts is None:
            return False
        name, port = parts
        return name in self.names and (port or (443 if self.tls else 80)) == self.port

    def is_own_page(self, origin: str | None, host: str | None) -> bool:
        """Whether the page that opens a connection is ours. Browsers always say its origin."""
        scheme = "https" if self.tls else "http"
        return origin is not None and host is not None and origin == f"{scheme}://{host}"

    def knows(self, cookies: str | None) -> bool:
        """Whether the browser has logged in."""
        try:
            found = SimpleCookie(cookies or "").get(self.cookie)
        except CookieError:
            return False
        return found is not None and found.value in self._sessions

    def delay(self, address: str, now: float) -> float | None:
        """The seconds until `address` may try a secret; None when it is not to be heard at all."""
        delay = self._doorman.arrive(address, now)
        return None if delay == "refused" else delay

    def waited(self, address: str, now: float) -> None:
        """The delay is over."""
        self._doorman.waited(address, now)

    def log_in(self, secret: str, address: str, now: float) -> str | None:
        """A ticket for who knows the secret, None for who does not."""
        given = secret[:LONGEST_SECRET].encode(errors="replace")
        if not hmac.compare_digest(given, self.secret.encode()):
            self._doorman.failed(address, now)
            return None
        return _remember(self._tickets)

    def take(self, ticket: str) -> str | None:
        """The session for a ticket, which is good once; None for a wrong one."""
        if ticket not in self._tickets:
            return None
        del self._tickets[ticket]
        return _remember(self._sessions)

    def set_cookie(self, session: str) -> str:
        """The header that gives a browser its session."""
        end = "; Secure" if self.tls else ""
        return f"{self.cookie}={session}; Path=/; HttpOnly; SameSite=Strict{end}"


def _remember(names: dict[str, None]) -> str:
    name = fresh_secret()
    names[name] = None
    for old in list(names)[:-MOST_SESSIONS]:
        del names[old]
    return name


def names_of(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """The names by which browsers call a server that listens on `host`."""
    found = {_plain(each) for each in (host, *more) if each}
    if is_loopback(host):
        found |= {"localhost", "127.0.0.1", "::1"}
    return frozenset(found)


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def headers_for(kind: str, *, private: bool) -> Mapping[str, str]:
    """What keeps a browser from doing more with an answer than showing it in our page."""
    return {
        "Content-Type": kind,
        "Cache-Control": "no-store" if private else "no-cache",
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
            " connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        ),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def _split(address: str) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(address)
        return _plain(parts.hostname or ""), parts.port
    except ValueError:
        return None


def _plain(name: str) -> str:
    return name.strip("[]").rstrip(".").lower()
