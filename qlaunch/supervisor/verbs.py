"""The words of the control socket, and what carries each out."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from qlaunch.supervisor import requests, waiting
from qlaunch.supervisor.request import Request

Verb = Callable[[Request], Awaitable[Any]]

# Three of 24 MiB that most supervisors never need: imported by who first asks for them.
_LATE = {
    "snapshots": {
        "snapshot-create": "create",
        "snapshot-rename": "rename",
        "snapshot-edit": "edit",
        "snapshot-delete": "delete",
        "snapshot-prune": "prune",
        "snapshot-sync": "sync",
        "revert": "revert",
        "jobs": "jobs",
    },
    "saving": {"save": "save"},
    "settings": {"set": "change"},
    "prodding": {"dump": "dump", "inject": "inject"},
    "media": {"media": "change"},
    "displays": {
        "display-password": "password",
        "display-clients": "clients",
        "screen": "screen",
    },
    "nics": {"nic-attach": "attach", "nic-detach": "detach", "nic-set": "change"},
    "forwards": {"forward": "forward"},
    "addresses": {"ip": "addresses"},
    "through": {"dial": "dial"},
    "usb": {f"usb-{verb}": verb for verb in ("look", "attach", "detach", "slots", "redirect")},
    "disks": {
        "disk-attach": "attach",
        "disk-detach": "detach",
        "disk-resize": "resize_disk",
        "disk-move": "move_disk",
    },
}


def _late(module: str, function: str) -> Verb:
    async def verb(request: Request) -> Any:
        room = importlib.import_module(f"qlaunch.supervisor.{module}")
        return await getattr(room, function)(request)

    return verb


VERBS: dict[str, Verb] = {
    "ps": requests.ps,
    "usage": requests.usage,
    "status": requests.status,
    "up": requests.up,
    "down": requests.down,
    "kill": requests.kill,
    "restart": requests.restart,
    "reset": requests.reset,
    "pause": requests.pause,
    "resume": requests.resume,
    "wait": waiting.wait,
    "screenshot": requests.screenshot,
    "send-key": requests.send_key,
    "type": requests.type_text,
    "qmp": requests.qmp,
    "hmp": requests.hmp,
    "console": requests.console,
    "supervisor": waiting.supervisor,
    **{
        verb: _late(module, function)
        for module, functions in _LATE.items()
        for verb, function in functions.items()
    },
}
