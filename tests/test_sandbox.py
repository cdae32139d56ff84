"""What a QEMU may touch of this computer: asked of one that runs, over its own monitor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qlaunch.argv import confine
from qlaunch.errors import CommandError, RefusedError
from qlaunch.facts.confinement import beside, program
from qlaunch.host import landlock
from qlaunch.host.process import Process
from qlaunch.store import machines, paths
from tests.prerequisites import both_qemus, require
from tests.rig import PROFILE, Rig, write_profile
from tests.test_supervisor_users import NOBODY, reachable_by_nobody

needs_landlock = pytest.mark.skipif(
    landlock.abi() < landlock.TCP, reason="[landlock] this kernel's Landlock knows no TCP"
)


# ---- the kernel's part --------------------------------------------------------------------------


@needs_landlock
async def test_a_confined_program_reads_and_writes_only_what_it_was_given(own_place: Path) -> None:
    (own_place / "read").mkdir()
    (own_place / "read/a").write_text("a\n")
    (own_place / "write").mkdir()
    (own_place / "other").write_text("b\n")
    script = (
        "cat read/a; echo x 2>/dev/null >read/a || echo kept; echo y >write/b && cat write/b;"
        " cat other 2>/dev/null || echo hidden; ls /root /home >/dev/null 2>&1 || echo closed;"
        " kill -0 $PPID 2>/dev/null || echo alone"
    )
    allowed = program(read=(f"{own_place}/read",), write=(f"{own_place}/write", "/nowhere"))
    assert await said(script, allowed, own_place) == "a\nkept\ny\nhidden\nclosed\nalone\n"
    # Whoever started it is as free as before.
    assert (own_place / "other").read_text() == "b\n"


async def said(script: str, allowed: Any, folder: Path) -> str:
    output = os.memfd_create("output")
    process = Process.spawn(
        ["sh", "-c", script], stdout_fd=output, stderr_fd=output, cwd=str(folder),
        confinement=allowed,
    )  # fmt: skip
    await process.wait()
    text = os.pread(output, 1 << 16, 0).decode()
    os.close(output)
    return text


@needs_landlock
async def test_a_program_that_dies_with_us_outlives_the_thread_that_started_it() -> None:
    argv = ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", "exec 0<&-; sleep 0.3; exit 7"]
    process = Process.spawn(argv, confinement=program(), dies_with_us=True)
    assert await process.wait() == 7


def test_a_program_that_is_not_there_is_told_as_ever() -> None:
    with pytest.raises(Exception, match="nowhere cannot be started: No such file"):
        Process.spawn(["/usr/nowhere"], confinement=program())


# ---- the plan's part ----------------------------------------------------------------------------


def test_arguments_of_the_profiles_own_open_what_they_name() -> None:
    named = confine._named(("-drive", "file=/vm/a,format=raw", "-serial", "file:/tmp/b", "-x", "/"))
    assert list(named) == ["/vm/a", "/tmp/b"]


def test_an_emulator_in_somebodys_home_opens_no_more_than_its_folder() -> None:
    assert list(beside("/home/ann/qemu")) == ["/home/ann/qemu"]
    assert list(beside("/home/ann/q/qemu")) == ["/home/ann/q/qemu", "/home/ann/q"]
    assert "/opt/q/share" in list(beside("/opt/q/bin/qemu"))


# ---- escapes from a QEMU ------------------------------------------------------------------------


def qmp(rig: Rig, command: str, **arguments: Any) -> Any:
    return rig.ask("qmp", name="demo", command=command, arguments=arguments)


def image_outside(rig: Rig, place: Path, port: int) -> None:
    file = {"driver": "file", "filename": str(place / "outside.img")}
    qmp(rig, "blockdev-add", **{"driver": "raw", "node-name": "probe", "file": file})


def passwd(rig: Rig, place: Path, port: int) -> None:
    file = {"driver": "file", "filename": "/etc/passwd"}
    node = {"driver": "raw", "node-name": "probe1", "read-only": True, "file": file}
    qmp(rig, "blockdev-add", **node)


def new_file(rig: Rig, place: Path, port: int) -> None:
    try:
        qmp(rig, "screendump", filename=str(place / "new"))
    finally:
        backend = {"type": "file", "data": {"out": str(place / "new2")}}
        qmp(rig, "chardev-add", id="probe2", backend=backend)


def tcp(rig: Rig, place: Path, port: int) -> None:
    address = {"type": "inet", "data": {"host": "127.0.0.1", "port": str(port)}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    qmp(rig, "chardev-add", id="probe3", backend=backend)


def listener(rig: Rig, place: Path, port: int) -> None:
    address = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    qmp(rig, "chardev-add", id="probe4", backend=backend)


def memory_file(rig: Rig, place: Path, port: int) -> None:
    qmp(rig, "pmemsave", val=0, size=4096, filename=str(place / "memory"))


PROBES: tuple[Callable[[Rig, Path, int], None], ...] = (
    image_outside, passwd, new_file, tcp, listener, memory_file,
)  # fmt: skip


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def outside(own_place: Path) -> Path:
    place = own_place / "elsewhere"
    place.mkdir()
    (place / "outside.img").write_bytes(bytes(1 << 20))
    return place


@needs_landlock
@pytest.mark.qemu
@both_qemus
def test_a_qemu_cannot_leave_its_machine(
    rig: Rig, outside: Path, port: int, qemu_binary: str
) -> None:
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    rig.ready()
    for probe in PROBES:
        with pytest.raises(CommandError, match=r"[Pp]ermission denied|Failed to connect"):
            probe(rig, outside, port)
    assert sorted(each.name for each in outside.iterdir()) == ["outside.img"]
    security = rig.ask("status", name="demo")["security"]
    assert security["confined"] == f"seccomp, landlock (ABI {landlock.abi()})"
    assert security["network"] == "no TCP"
    assert security["gaps"] == ["TCG is no security boundary (QEMU docs: security)"]
    assert rig.row()["confined"] == security["confined"].split(", ")
    # The next supervisor knows as much.
    rig.kill_supervisor()
    assert rig.row()["confined"] == security["confined"].split(", ")
    wish = {"id": "net9", "backend": "user", "model": "e1000"}
    with pytest.raises(RefusedError, match="right to TCP"):
        rig.ask("nic-attach", name="demo", wish=wish, persist=False)


@needs_landlock
@pytest.mark.qemu
@pytest.mark.kvm
def test_kvm_does_all_of_it_confined(rig: Rig) -> None:
    text = PROFILE.replace('accel = "tcg"', 'accel = "kvm"')
    write_profile("demo", text=text.replace('controller = "none"', 'controller = "ich9-ehci1"'))
    rig.up()
    rig.ready()
    assert rig.row()["accel"] == "kvm"
    assert rig.ask("status", name="demo")["security"]["gaps"] == []
    rig.ask("snapshot-create", name="demo", snapshot="one", memory=True)
    rig.ask("revert", name="demo", snapshot="one")
    rig.responds()
    rig.ask("screenshot", name="demo", format="png")


@pytest.mark.qemu
def test_a_profile_can_do_without_and_then_everybody_sees_it(
    rig: Rig, outside: Path, port: int
) -> None:
    write_profile("demo", "[security]\nsandbox = false\n")
    rig.up()
    for probe in PROBES:
        probe(rig, outside, port)
    assert rig.row()["confined"] == []
    assert "not confined" in rig.row()["warnings"][0]["message"]
    assert "sandbox = false" in rig.ask("status", name="demo")["security"]["gaps"][0]
    assert "-sandbox" not in cmdline(rig.row()["pid"])


@needs_landlock
@pytest.mark.qemu
def test_a_profile_can_open_single_folders(rig: Rig, outside: Path, port: int) -> None:
    write_profile("demo", f'[security]\nwrite = ["{outside}"]\n')
    rig.up()
    image_outside(rig, outside, port)
    new_file(rig, outside, port)
    with pytest.raises(CommandError):
        passwd(rig, outside, port)


# ---- what others see ----------------------------------------------------------------------------


def cmdline(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def listening(pid: int) -> list[str]:
    """The TCP and UDP sockets of a process that wait for somebody."""
    mine = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        mine.add(os.readlink(entry.path))
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if f"socket:[{words[9]}]" in mine and words[3] in ("0A", "07"):
                found.append(f"{kind} {words[1]}")
    return found


@pytest.mark.qemu
@both_qemus
def test_a_qemu_listens_on_nothing(rig: Rig, qemu_binary: str) -> None:
    text = PROFILE.replace("[video]", "[display]\nspice = true\nvnc = true\n[video]")
    write_profile("demo", text=text)
    rig.up("demo", f'machine.emulator="{qemu_binary}"')
    assert listening(rig.row()["pid"]) == []


@pytest.mark.qemu
def test_a_password_is_in_no_command_line_environment_log_or_file(
    rig: Rig, own_place: Path
) -> None:
    secret = "qlaunchprobe" + os.urandom(8).hex()
    (own_place / "secret").write_text(secret)
    word = '{ env = "DEMO_PASSWORD" }'
    text = PROFILE.replace("[video]", f"[display]\nvnc = true\npassword = {word}\n[video]")
    write_profile("demo", text=text)
    rig.up(env={"DEMO_PASSWORD": secret})
    write_profile("other", text=text.replace(word, f'{{ file = "{own_place}/secret" }}'))
    rig.up("other")
    assert holders(secret.encode(), own_place) == [str(own_place / "secret")]


def holders(secret: bytes, place: Path) -> list[str]:
    """The processes that show the secret to everybody, and our files that hold it."""
    files = [path for path in place.rglob("*") if path.is_file()]
    for process in Path("/proc").glob("[0-9]*"):
        files += [process / "cmdline", process / "environ"]
    found = []
    for path in files:
        try:
            if secret in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue  # it has ended
    return found


# Tells what another user can read or connect to below a folder.
PROWLER = """
import os, socket, stat, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
for path in sys.stdin.read().split("\\0"):
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISSOCK(kind):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
        elif stat.S_ISREG(kind):
            open(path, "rb").close()
        elif stat.S_ISDIR(kind):
            os.listdir(path)
        print(path)
    except OSError:
        pass
"""


@pytest.mark.qemu
def test_nobody_else_reads_a_file_or_reaches_a_socket(rig: Rig, own_place: Path) -> None:
    require("root", os.getuid() == 0, "only root can become another user")
    require("users", reachable_by_nobody(), "another user cannot read this program")
    text = PROFILE.replace("[video]", "[display]\nvnc = true\n[video]")
    write_profile("demo", text=text)
    rig.up()
    rig.ready()
    rig.ask("snapshot-create", name="demo", snapshot="one", memory=True)
    # The folders above are the user's own affair: here everybody may look into them.
    ours = [Path(paths.state_dir()), Path(paths.machine_data("demo")), Path(paths.runtime_dir())]
    for folder in {parent for each in ours for parent in each.parents}:
        if own_place in (folder, *folder.parents):
            folder.chmod(0o755)
    found = sorted(str(path) for each in ours for path in (each, *each.rglob("*")))
    assert any(path.endswith("qmp.sock") for path in found), found
    assert machines.log_path("demo") in found
    assert reached_by_nobody(found) == []
    # The folders alone do not decide it.
    for path in found:
        if os.path.isdir(path):
            os.chmod(path, 0o755)
    left = [path for path in reached_by_nobody(found) if not os.path.isdir(path)]
    for path in found:
        if os.path.isdir(path):
            os.chmod(path, 0o700)
    assert left == []


def reached_by_nobody(found: list[str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROWLER.format(uid=NOBODY)],
        input="\0".join(found), capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.split()
