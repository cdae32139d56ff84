"""`qlaunch autostart`; what it does with systemd is in test_systemd_service."""

from __future__ import annotations

from pathlib import Path

from tests.definitions import qlaunch


def test_a_machine_without_a_profile_does_not_start_by_itself(own_place: Path) -> None:
    assert qlaunch("autostart", "nobody", "on").status == 4
    assert qlaunch("autostart", "nobody", "maybe").status == 2
