"""The VM generation id: another one whenever a guest was brought back to an earlier moment, by
which it learns that what it drew from chance, or counted, may be drawn and counted once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.machine import TEST_LIMIT, Guest, Home
from tests.prerequisites import both_qemus
from tests.rig import Rig, nothing_left
from tests.timetravel import Traveller

WISH = "machine.generation_id=true"


def generation(rig: Rig) -> str:
    answer = rig.ask("qmp", name="demo", command="query-vm-generation-id")
    return str(answer["return"]["guid"])


@pytest.mark.qemu
@both_qemus
def test_every_revert_gives_another_generation(rig: Rig, qemu_binary: str) -> None:
    rig.up("demo", WISH, f'machine.emulator="{qemu_binary}"')
    rig.ready()
    here = Traveller(rig)
    here.say("++one\r")
    ids = [generation(rig)]
    here.create("warm")
    here.create("cold", disks_only=True)
    here.create("inside", internal=True)
    rig.ask("pause", name="demo")
    rig.ask("resume", name="demo")
    assert generation(rig) == ids[0]
    for name in ("warm", "cold", "inside", "warm"):
        here.say("+two\r")
        answer = here.revert(name)
        assert "generation id" in answer["why_restarted"]
        assert here.now() == (2, "one")
        ids.append(generation(rig))
    assert len(set(ids)) == len(ids)
    rig.kill()
    here.revert("cold")
    rig.up("demo", WISH, f'machine.emulator="{qemu_binary}"')
    assert here.now() == (2, "one")
    assert generation(rig) not in ids
    rig.kill()
    assert nothing_left() == []


@pytest.mark.guest
@pytest.mark.timeout(TEST_LIMIT)
@both_qemus
def test_a_linux_guest_hears_of_it(guest_home: Home, guest_initrd: Path, qemu_binary: str) -> None:
    machine = f'generation_id = true\nemulator = "{qemu_binary}"'
    disk = '[[disk]]\nid = "one"\nbus = "virtio"\nsize = "16MiB"\n'
    hears = "dmesg | grep -q 'crng reseeded due to virtual machine fork'"
    with Guest(guest_home, guest_initrd, disk, machine=machine) as guest:
        guest.boot()
        done = guest.home.qlaunch("snapshot", "create", "guest", "one")
        assert done.status == 0, done.err
        assert guest.ask(hears)[0] == 1
        done = guest.home.qlaunch("revert", "guest", "one")
        assert done.status == 0, done.err
        guest.hang_up()  # that QEMU has ended
        guest.run(f"until {hears}; do :; done")
