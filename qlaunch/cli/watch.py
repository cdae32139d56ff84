"""Something printed again and again: on a terminal in its place, elsewhere one below the other."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HOME = "\x1b[H\x1b[J"


def repeat(show: Callable[[], None], pause: float, count: int | None = None) -> None:
    """Call `show` every `pause` seconds, `count` times or until Ctrl-C."""
    shown = 0
    in_place = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    while True:
        if in_place:
            sys.stdout.write(_HOME)
        show()
        sys.stdout.flush()
        shown += 1
        if count is not None and shown >= count:
            return
        time.sleep(pause)


def on_change(show: Callable[[], None], folder: str, longest: float) -> None:
    """The same whenever something in `folder` changes, and every `longest` seconds."""
    from qlaunch.host.inotify import Watch

    os.makedirs(folder, mode=0o700, exist_ok=True)
    with Watch(folder) as watch:

        def show_and_wait() -> None:
            show()
            sys.stdout.flush()
            watch.wait(longest)

        repeat(show_and_wait, 0.0)
