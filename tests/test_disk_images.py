"""Images made, shown, checked and made smaller, as a person types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qlaunch.host.image_facts import image_facts
from qlaunch.store import paths
from tests import leftovers
from tests.rig import PROFILE, Rig, qlaunch, until, write_profile

pytestmark = pytest.mark.qemu

MIB = 1 << 20


def call(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    process = qlaunch(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, (words, out, err)
    return subprocess.CompletedProcess(words, status, out.decode(), err.decode())


def say(*words: str, status: int = 0) -> Any:
    return json.loads(call("disk", *words, "--json", status=status).stdout)


def told(*words: str) -> str:
    return call("disk", *words, status=6).stderr


def write(path: Path, *commands: str) -> None:
    words = [part for command in commands for part in ("-c", command)]
    form = "raw" if path.suffix == ".img" else "qcow2"
    subprocess.run(
        ["qemu-io", "-f", form, *words, str(path)], check=True, stdout=subprocess.DEVNULL
    )


def same(path: Path, command: str) -> bool:
    words = ["qemu-io", "-f", "raw" if path.suffix == ".img" else "qcow2", "-c", command, str(path)]
    done = subprocess.run(words, capture_output=True, check=False)
    return done.returncode == 0 and b"verification failed" not in done.stdout


def info(path: Path) -> dict[str, Any]:
    words = ["qemu-img", "info", "--output=json", str(path)]
    found: dict[str, Any] = json.loads(
        subprocess.run(words, capture_output=True, check=True).stdout
    )
    return found


# ---- create, info -------------------------------------------------------------------------------


def test_what_is_made_is_what_was_asked_for(own_place: Path) -> None:
    base, top, raw = (own_place / name for name in ("base.qcow2", "top.qcow2", "data.img"))
    assert say("create", str(base), "64MiB") == {
        "file": str(base), "format": "qcow2", "size": 64 * MIB, "backing": None,
    }  # fmt: skip
    say("create", str(top), "--backing", str(base))
    say("create", str(raw), "1TiB", "--format", "raw")
    assert info(top)["virtual-size"] == 64 * MIB
    assert info(top)["full-backing-filename"] == str(base)
    assert info(raw)["virtual-size"] == 1 << 40
    found = say("info", str(base))
    assert found["below"] == [str(top)]
    assert [layer["path"] for layer in say("info", str(top))["layers"]] == [str(top), str(base)]
    assert f"{top} stands on it" in call("disk", "info", str(base)).stdout


def test_what_cannot_be_made_leaves_nothing(own_place: Path) -> None:
    there = own_place / "there.qcow2"
    say("create", str(there), "1MiB")
    before = there.read_bytes()
    other = str(own_place / "x.qcow2")
    refusals = [
        ((str(there), "2MiB"), 5, "exists already"),
        ((other,), 2, "how large"),
        ((other, "1000"), 2, "has no unit"),
        ((other, "1000B"), 2, "whole number of sectors"),
        ((other, "512KiB", "--backing", str(there)), 2, "is less than"),
        ((other, "--backing", str(own_place / "no.qcow2")), 4, "no.qcow2"),
        ((str(own_place / "no/x.qcow2"), "1MiB"), 1, "no/x.qcow2"),
    ]
    for words, status, message in refusals:
        err = call("disk", "create", *words, status=status).stderr
        assert message in err
        assert "bug" not in err
    assert there.read_bytes() == before
    assert not os.path.lexists(other)


def test_the_disks_of_a_machine_before_and_after_its_first_start(rig: Rig) -> None:
    write_profile("demo", text=PROFILE.replace('template = "@demo"', ""))
    assert "the first start makes it" in call("disk", "info", "demo").stdout
    assert "not been made yet" in call("disk", "check", "demo").stdout
    rig.up()
    assert "the running machine writes to it" in call("disk", "check", "demo").stdout
    found = say("info", "demo")["disks"]
    assert [(disk["disk"], disk["bus"]) for disk in found] == [("disk0", "ide")]
    assert found[0]["layers"][0]["size"] == MIB
    rig.kill()
    assert "good" in call("disk", "check", "demo").stdout


# ---- check --------------------------------------------------------------------------------------


def test_leaks_are_harmless_and_repaired_on_request(own_place: Path) -> None:
    path = own_place / "leaky.qcow2"
    say("create", str(path), "8MiB")
    write(path, "write -P 1 0 1M")
    with path.open("r+b") as file:  # the L1 table forgets what the refcounts know
        file.seek(40)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        file.write(bytes(8))
    found = say("check", str(path))
    assert found["good"]
    assert found["images"][0]["leaks"] > 0
    assert "harmless" in call("disk", "check", str(path)).stdout
    assert say("check", str(path), "--repair")["images"][0]["repaired"] > 0
    assert "good" in call("disk", "check", str(path)).stdout


def test_errors_are_an_error(own_place: Path) -> None:
    path = own_place / "bad.qcow2"
    say("create", str(path), "8MiB")
    write(path, "write -P 1 0 1M")
    with path.open("r+b") as file:  # the first refcount block says that nothing is used
        file.seek(48)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        block = int.from_bytes(file.read(8), "big")
        file.seek(block)
        file.write(bytes(64))
    process = qlaunch("disk", "check", str(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"error" in out
    assert b"--repair" in err
    call("disk", "check", str(path), "--repair")
    assert same(path, "read -P 1 0 1M")


# ---- compact ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.img"])
def test_compacting_gives_back_space_and_changes_no_byte(own_place: Path, name: str) -> None:
    path = own_place / name
    say("create", str(path), "16MiB", "--format", "raw" if name.endswith("img") else "qcow2")
    write(path, "write -P 7 0 2M", "write -P 0 2M 10M", "write -P 9 15M 64k")
    path.chmod(0o640)
    row = say("compact", str(path))["images"][0]
    assert row["won"] >= 9 * MIB
    assert same(path, "read -P 7 0 2M")
    assert same(path, "read -P 0 2M 10M")
    assert same(path, "read -P 9 15M 64k")
    assert path.stat().st_mode & 0o777 == 0o640
    assert "nothing to win" in call("disk", "compact", str(path)).stderr
    assert os.listdir(own_place).count(name) == 1


def test_an_overlay_stays_an_overlay(own_place: Path) -> None:
    base, top = own_place / "base.qcow2", own_place / "top.qcow2"
    say("create", str(base), "8MiB")
    write(base, "write -P 3 0 1M")
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", str(top)]
    subprocess.run(words, check=True)
    write(top, "write -P 5 4M 2M", "discard 4M 1M")
    say("compact", str(top))
    assert info(top)["backing-filename"] == "base.qcow2"
    assert same(top, "read -P 3 0 1M")
    assert same(top, "read -P 5 5M 1M")
    assert "must stay as it is" in told("compact", str(base))


def test_what_must_not_be_compacted_is_refused(rig: Rig, own_place: Path) -> None:
    path = own_place / "inside.qcow2"
    say("create", str(path), "8MiB")
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(path)], check=True)
    assert "internal snapshots" in told("compact", str(path))
    os.link(path, own_place / "twin.qcow2")
    assert "another name" in told("compact", str(path))
    rig.up()
    image = os.path.join(paths.machine_data("demo"), "disk0.qcow2")
    for word in ("demo", image):
        process = qlaunch("disk", "compact", word, stderr=subprocess.PIPE)
        assert process.communicate(timeout=60)[1]
        assert process.returncode != 0


def test_an_interrupted_compaction_changes_nothing(own_place: Path) -> None:
    path = own_place / "large.qcow2"
    say("create", str(path), "2GiB")
    write(path, "write -P 7 0 256M", "write -P 8 1G 256M")
    before = path.stat()
    process = qlaunch("disk", "compact", str(path), stderr=subprocess.PIPE)
    until(lambda: any(".part" in name or name.startswith(".") for name in os.listdir(own_place)),
          "the new image to be begun")  # fmt: skip
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert [name for name in os.listdir(own_place) if "large" in name] == ["large.qcow2"]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    # One that was killed is cleared away by the next.
    process = qlaunch("disk", "compact", str(path), stderr=subprocess.PIPE)
    until(lambda: sum("large" in name for name in os.listdir(own_place)) == 2, "it to begin again")
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not leftovers.find(str(path)), "the end of its qemu-img")
    # A process that ends has no command line any more, and for a moment still its files.
    until(lambda: image_facts(str(path), want_write=True).holder is None, "its locks to go")
    say("compact", str(path))
    assert [name for name in os.listdir(own_place) if "large" in name] == ["large.qcow2"]
    assert same(path, "read -P 7 0 256M")
    assert same(path, "read -P 8 1G 256M")
