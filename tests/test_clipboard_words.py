"""What `clipboard` says where there is no guest to ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qlaunch.cli.main import main
from tests.cli_peer import Peer, supervisor

LACKS = {"agent": "spice", "connected": False, "missing": "in the guest, the package spice-vdagent"}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with supervisor() as peer:
        yield peer


@pytest.mark.parametrize(
    "status, said",
    [
        ({"state": "stopped"}, "is not running"),
        ({"state": "running", "agents": [LACKS]}, "the package spice-vdagent"),
        ({"state": "running", "agents": []}, "it lacks a channel for it"),
        (
            {"state": "running", "agents": [{**LACKS, "connected": True}], "display": []},
            "shows no screen",
        ),
    ],
)
def test_what_is_missing_is_named(
    peer: Peer, capsys: pytest.CaptureFixture[str], status: dict[str, Any], said: str
) -> None:
    peer.result("status", {"name": "xp", **status})
    assert main(["clipboard", "get", "xp"]) == 5
    assert said in capsys.readouterr().err
