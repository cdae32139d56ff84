"""Who may use the page of `qlaunch web`, decided without a network."""

from __future__ import annotations

import pytest

from qlaunch.cli.verbs.web import address
from qlaunch.cli.web import pages
from qlaunch.cli.web.guard import MOST_SESSIONS, Guard, is_loopback, names_of
from qlaunch.errors import UsageError


def guard(*, tls: bool = False, port: int = 8116) -> Guard:
    return Guard(secret="open sesame", port=port, tls=tls, names=names_of("127.0.0.1"))


@pytest.mark.parametrize(
    "host, right",
    [
        ("127.0.0.1:8116", True),
        ("localhost:8116", True),
        ("LOCALHOST.:8116", True),
        ("[::1]:8116", True),
        ("localhost", False),
        ("localhost:80", False),
        ("evil.example:8116", False),
        ("127.0.0.1.evil.example:8116", False),
        ("evil.example@localhost:8116", True),  # a browser never sends this; the name is ours
        ("localhost:x", False),
        ("", False),
        (None, False),
    ],
)
def test_a_browser_must_have_called_us_by_a_name_of_ours(host: str | None, right: bool) -> None:
    assert guard().is_called_right(host) is right


def test_only_our_own_page_may_open_a_connection() -> None:
    here = "localhost:8116"
    assert guard().is_own_page(f"http://{here}", here)
    assert guard(tls=True).is_own_page(f"https://{here}", here)
    for origin in (None, "null", "http://evil.example", f"https://{here}", "http://localhost:1"):
        assert not guard().is_own_page(origin, here)


def test_a_ticket_is_good_once_and_a_session_until_the_end() -> None:
    door = guard()
    assert door.log_in("open sesam", "127.0.0.1", 0.0) is None
    assert door.log_in("", "127.0.0.1", 0.0) is None
    ticket = door.log_in("open sesame", "127.0.0.1", 0.0)
    assert ticket
    session = door.take(ticket)
    assert session
    assert session != ticket
    assert door.take(ticket) is None
    assert door.knows(f"other=1; {door.cookie}={session}")
    assert not door.knows(f"{door.cookie}={ticket}")
    assert not door.knows(f"qlaunch-1={session}")
    assert not door.knows(None)
    assert not door.knows(";;=\x00=;")
    for cookie in (door.set_cookie(session), guard(tls=True).set_cookie(session)):
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
    assert "Secure" in guard(tls=True).set_cookie(session)


def test_sessions_are_bounded_and_the_oldest_makes_way() -> None:
    door = guard()
    sessions = []
    for _ in range(MOST_SESSIONS + 1):
        ticket = door.log_in("open sesame", "127.0.0.1", 0.0)
        assert ticket
        sessions.append(door.take(ticket))
    known = [door.knows(f"{door.cookie}={session}") for session in sessions]
    assert known == [False] + [True] * MOST_SESSIONS


def test_who_guesses_has_to_wait_longer_each_time() -> None:
    door = guard()
    delays = []
    for _ in range(6):
        delay = door.delay("192.0.2.7", 0.0)
        assert delay is not None
        delays.append(delay)
        door.waited("192.0.2.7", 0.0)
        door.log_in("guess", "192.0.2.7", 0.0)
    assert delays[:3] == [0.0, 0.0, 0.0]
    assert 0 < delays[3] < delays[4] < delays[5]
    assert door.delay("192.0.2.8", 0.0) == 0.0


@pytest.mark.parametrize(
    "path",
    [
        "../guard.py", "/etc/passwd", "..%2fguard.py", "novnc/../guard.py", "novnc/core/../../x.js",
        "novnc/LICENSE.txt", "page.js\0", "", ".", "no.js", "novnc/core/rfb.py",
    ],
)  # fmt: skip
def test_no_other_file_is_read(path: str, tmp_path: object) -> None:
    assert pages.read(path, str(tmp_path)) is None


def test_the_page_is_read() -> None:
    for name in ("index.html", "login.html", "page.js", "page.css", "icon.svg"):
        found = pages.read(name, "/nonexistent")
        assert found is not None
        assert found[1]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 8116)),
        ("0.0.0.0", ("0.0.0.0", 8116)),
        ("9000", ("127.0.0.1", 9000)),
        (":9000", ("", 9000)),
    ],
)
def test_where_to_listen(text: str, wanted: tuple[str, int]) -> None:
    assert address(text) == wanted


@pytest.mark.parametrize("text", ["host:port", "host:99999", "host:"])
def test_where_not_to_listen(text: str) -> None:
    with pytest.raises(UsageError):
        address(text)


def test_what_is_this_computer_only() -> None:
    assert [is_loopback(each) for each in ("127.0.0.9", "::1", "localhost", "0.0.0.0", "")] == [
        True, True, True, False, False,
    ]  # fmt: skip
