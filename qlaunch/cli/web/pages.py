"""The files that the browser gets: our page, and noVNC, which draws the console.

noVNC (MPL-2.0) is not ours and not in our sources: it comes from npm or Debian's package. See
tools/fetch-novnc.
"""

from __future__ import annotations

import os

from qlaunch.errors import HostError

_HERE = os.path.dirname(os.path.abspath(__file__))
_STATIC = os.path.join(_HERE, "static")
# What came with this package, and where Debian and Fedora put theirs.
NOVNC = (os.path.join(_HERE, "novnc"), "/usr/share/novnc", "/usr/share/webapps/novnc")
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Without having logged in: what the form to log in needs.
OPEN = frozenset({"login.html", "login.js", "page.css", "icon.svg"})


def find_novnc() -> str:
    """The folder of noVNC. Raises: HostError when it is not installed."""
    for folder in NOVNC:
        if os.path.isfile(os.path.join(folder, "core", "rfb.js")):
            return folder
    raise HostError(
        "noVNC, which draws the console in a browser, is not installed",
        hint="sudo apt install novnc, or tools/fetch-novnc in a checkout",
    )


def read(path: str, novnc: str) -> tuple[str, bytes] | None:
    """The kind and content of a file of the page; None when there is no such file."""
    folder, name = _STATIC, path
    if path.startswith("novnc/"):
        folder, name = novnc, path.removeprefix("novnc/")
        if not name.startswith(("core/", "vendor/")):
            return None
    kind = KINDS.get(os.path.splitext(name)[1])
    if kind is None or "\0" in name:
        return None
    full = os.path.realpath(os.path.join(folder, name))
    if not full.startswith(os.path.realpath(folder) + os.sep):
        return None
    try:
        with open(full, "rb") as file:
            return kind, file.read()
    except (OSError, ValueError):
        return None
