"""What the page of `qlaunch web` costs, in a real browser: from a link to the guest's picture."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from qlaunch.store import paths
from tests.bench.figures import Figure, timed
from tests.bench.place import Place
from tests.prerequisites import missing
from tests.web.browser import PAINTED, Browser

FRAME_LIMIT = 1500.0


def measure(place: Place, rounds: int, say: Any) -> Iterator[Figure]:
    """Every figure of the page; none where there is no browser."""
    if missing("web"):
        say(f"the page in a browser: skipped: {missing('web')}")
        return
    say(f"the page in a browser, {rounds} rounds")
    place.ask("up", profile=paths.find_profile("demo"), set=[], env={})
    try:
        yield timed(
            "page of one machine to its first picture, in Chromium",
            [_first_picture(place, at) for at in range(rounds)],
            limit=FRAME_LIMIT,
        )
    finally:
        place.ask("kill", name="demo")


def _first_picture(place: Place, number: int) -> float:
    """Seconds from opening the link until the guest's screen is drawn, with nothing cached."""
    server = subprocess.Popen(
        [place.qlaunch, "web", "--json", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        link = json.loads(server.stdout.readline())["url"]
        with Browser(place.folder / f"browser{number}") as browser:
            begun = time.monotonic()
            browser.go(f"{link}#demo")
            browser.until(PAINTED)
            return time.monotonic() - begun
    finally:
        server.terminate()
        server.communicate()
