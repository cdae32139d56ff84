"""What a guest has written stays written: after a kill, on a full disk, under a limit."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.guest.machine import LIMIT, TEST_LIMIT, Guest, Home

pytestmark = [pytest.mark.guest, pytest.mark.timeout(TEST_LIMIT)]

MIB = 1 << 20
WRITTEN = 16 * MIB
SMALL = """\
[[disk]]
id = "disk0"
path = "{folder}/disk0.qcow2"
size = "64MiB"
"""
TWO = """\
[[disk]]
id = "disk0"
size = "16MiB"

[[disk]]
id = "slow"
size = "16MiB"
bps_write = "1MiB"
"""
# A file system of its own that is too small for what the guest will write.
MOUNT = """
mount --make-rprivate / 2>/dev/null  # in a root that is no mount point there is none to make so
mount -t tmpfs -o size=20m tmpfs "$0" && head -c 12M /dev/zero >"$0/ballast" && exec "$@"
"""


def test_what_the_guest_has_flushed_survives_a_kill(guest_home: Home, guest_initrd: Path) -> None:
    with Guest(guest_home, guest_initrd, TWO, words="bare=1") as guest:
        boot = guest.boot()
        guest.run(f"echo {boot} | dd of=/dev/vda bs=512 seek=99 conv=fsync 2>/dev/null")
        guest.hang_up()
        guest.qlaunch("kill")
        assert guest.boot() != boot
        assert boot in guest.run("dd if=/dev/vda bs=512 skip=99 count=1 2>/dev/null | head -n1")
        # The same machine shows that a limit holds: 3 MiB at 1 MiB a second.
        clock = "cut -d. -f1 /proc/uptime"
        write = "dd if=/dev/zero of=/dev/vdb bs=64k count=48 oflag=direct 2>/dev/null"
        begun, ended = guest.run(f"{clock}; {write}; {clock}").split()
        assert int(ended) - int(begun) >= 1


@pytest.fixture
def small_folder(guest_home: Home) -> Path:
    """A folder where only what `guest_home.prefix` starts sees the small file system."""
    folder = guest_home.place / "small"
    folder.mkdir()
    user = () if os.getuid() == 0 else ("--user", "--map-root-user")
    guest_home.prefix = (
        "unshare",
        "--mount",
        "--propagation",
        "unchanged",
        *user,
        "sh",
        "-c",
        MOUNT,
        str(folder),
    )
    return folder


def test_a_full_disk_of_the_host_stops_the_guest_and_loses_nothing(
    guest_home: Home, guest_initrd: Path, small_folder: Path
) -> None:
    with Guest(
        guest_home, guest_initrd, SMALL.format(folder=small_folder), words="bare=1"
    ) as guest:
        guest.up()
        guest_home.prefix = ()
        guest.ready()
        pattern = f"seq 1 3000000 | head -c {WRITTEN}"
        number = guest.tell(f"{pattern} | dd of=/dev/vda bs=64k conv=fsync 2>/dev/null")
        guest.await_log("BLOCK_IO_ERROR", LIMIT * 2)
        guest.await_state("io-error")
        status = guest.status()
        assert status["state"] == "io-error"
        Path(f"/proc/{status['pid']}/root{small_folder}/ballast").unlink()
        guest.qlaunch("resume")
        assert guest.answer(number, LIMIT * 2)[0] == 0
        assert guest.state() == "running"
        guest.run("echo 3 >/proc/sys/vm/drop_caches")
        expected = hashlib.md5(written_pattern()).hexdigest()
        assert expected in guest.run(f"head -c {WRITTEN} /dev/vda | md5sum", LIMIT * 2)


def written_pattern() -> bytes:
    return b"".join(b"%d\n" % number for number in range(1, 3_000_001))[:WRITTEN]
