"""The demo guest keeps its word: on its serial port, its screen, its disk and its power button."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from qlaunch.demo import IMAGE, build

QEMU = "qemu-system-x86_64"
TIMEOUT = 30.0

TCG_PC = ("-machine", "pc", "-accel", "tcg")
TCG_Q35 = ("-machine", "q35", "-accel", "tcg")
KVM_PC = ("-machine", "pc,smm=off", "-accel", "kvm", "-cpu", "kvm64")
IDE = {"driver": "ide-hd", "bus": "ide.0"}
VIRTIO = {"driver": "virtio-blk-pci"}

BOARDS = [
    pytest.param((TCG_PC, IDE), id="pc-ide"),
    pytest.param((TCG_PC, VIRTIO), id="pc-virtio-blk"),
    pytest.param((TCG_Q35, IDE), id="q35-sata"),
]

Board = tuple[Sequence[str], dict[str, str]]
Fault = Sequence[dict[str, object]]


class Guest:
    """A running demo guest: its serial line and its monitor."""

    def __init__(
        self, process: subprocess.Popen[bytes], serial: socket.socket, monitor: socket.socket
    ) -> None:
        self.process = process
        self._serial = serial
        self._monitor = monitor
        self._received = b""
        self._messages = b""
        self._events: list[dict[str, Any]] = []

    def greet(self) -> None:
        """Take the monitor's greeting and begin."""
        self._message()
        self.execute("qmp_capabilities")

    def send(self, text: str) -> None:
        """Type on the serial line."""
        self._serial.sendall(text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Read the serial line until the pattern is complete, and consume up to its end."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            text = self._received.decode("latin-1")
            if match := re.search(pattern, text):
                self._received = self._received[match.end() :]
                return match
            self._received += _receive(self._serial, deadline, f"{pattern!r} in {text!r}")

    def ready(self) -> re.Match[str]:
        """Wait for the start; return the match of boots, count and note."""
        state = self.expect(r"\r\nboots=(\d+) count=(\d+) note=(.*)\r\n")
        self.expect("READY\r\n")
        return state

    def execute(self, command: str, **arguments: object) -> Any:
        """Send one command to the monitor and return its answer."""
        self._monitor.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "return" not in (message := self._message()):
            assert "error" not in message, message
            self._events.append(message)
        return message["return"]

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event and return its data."""
        while not (found := [event for event in self._events if event.get("event") == name]):
            self._events.append(self._message())
        self._events.remove(found[0])
        data: dict[str, Any] = found[0]["data"]
        return data

    def type_keys(self, *qcodes: str) -> None:
        """Press keys on the keyboard, one after the other."""
        for qcode in qcodes:
            key = {"type": "qcode", "data": qcode}
            events = [{"type": "key", "data": {"down": down, "key": key}} for down in (True, False)]
            self.execute("input-send-event", events=events)

    def screen(self, scratch: Path) -> list[str]:
        """Return the 25 lines on the screen."""
        self.execute("pmemsave", val=0xB8000, size=80 * 25 * 2, filename=str(scratch))
        text = scratch.read_bytes()[::2].decode("cp437")
        return [text[start : start + 80] for start in range(0, len(text), 80)]

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while b"\n" not in self._messages:
            self._messages += _receive(self._monitor, deadline, "a monitor message")
        line, self._messages = self._messages.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message


def _receive(connection: socket.socket, deadline: float, wanted: str) -> bytes:
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    try:
        data = connection.recv(65536)
    except TimeoutError:
        data = b""
    assert data, f"waited for {wanted}"
    return data


def _blockdev(image: Path, fault: Fault) -> str:
    file: dict[str, object] = {"driver": "file", "filename": str(image)}
    if fault:
        file = {"driver": "blkdebug", "image": file, "inject-error": list(fault)}
    return json.dumps({"driver": "raw", "node-name": "disk0", "file": file})


def _options(image: Path, board: Board, fault: Fault, serial: int, monitor: int) -> list[str]:
    machine, disk = board
    device = {**disk, "drive": "disk0", "werror": "report", "bootindex": 0}
    options = ["-no-user-config", "-nodefaults", "-display", "none", "-device", "VGA"]
    options += ["-m", "16", "-compat", "deprecated-input=reject", *machine]
    options += ["-blockdev", _blockdev(image, fault), "-device", json.dumps(device)]
    options += ["-chardev", f"socket,id=com1,fd={serial}", "-serial", "chardev:com1"]
    options += ["-chardev", f"socket,id=qmp,fd={monitor}", "-mon", "chardev=qmp,mode=control"]
    return options


@contextmanager
def boot(image: Path, board: Board = (TCG_PC, VIRTIO), fault: Fault = ()) -> Iterator[Guest]:
    """Run QEMU with the guest on that image; it is gone afterwards."""
    with ExitStack() as stack:
        serial, serial_theirs = (stack.enter_context(end) for end in socket.socketpair())
        monitor, monitor_theirs = (stack.enter_context(end) for end in socket.socketpair())
        fds = (serial_theirs.fileno(), monitor_theirs.fileno())
        command = [QEMU, *_options(image, board, fault, *fds)]
        process = stack.enter_context(subprocess.Popen(command, pass_fds=fds))
        stack.callback(process.kill)
        serial_theirs.close()
        monitor_theirs.close()
        guest = Guest(process, serial, monitor)
        guest.greet()
        yield guest


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk of this test's own."""
    return Path(shutil.copyfile(IMAGE, tmp_path / "disk.img"))


def _state(image: Path) -> bytes:
    start = build.STATE_LBA * build.SECTOR
    return image.read_bytes()[start : start + build.SECTOR]


def _overwrite_state(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(build.STATE_LBA * build.SECTOR + offset)
        file.write(data)


# ---- the image ---------------------------------------------------------------------------------


@pytest.mark.skipif(not all(map(shutil.which, build.TOOLS)), reason="binutils is not installed")
def test_the_committed_image_is_what_the_source_makes() -> None:
    assert build.build() == Path(IMAGE).read_bytes()


def test_the_image_is_a_small_blank_boot_disk() -> None:
    data = Path(IMAGE).read_bytes()
    assert len(data) == build.IMAGE_SIZE
    assert data[510:512] == b"\x55\xaa"
    assert not any(data[446:510]), "QEMU would read a partition table here"
    assert not any(data[8 * build.SECTOR :]), "about 2 KiB of code, and no state yet"


# ---- the serial line and the disk ---------------------------------------------------------------


@pytest.mark.qemu
@pytest.mark.parametrize("board", BOARDS)
def test_note_and_count_survive_a_restart_once_saved(board: Board, image: Path) -> None:
    with boot(image, board) as guest:
        assert guest.ready().groups() == ("1", "0", "")
        guest.send("++")
        guest.expect("count=1\r\ncount=2\r\n")
        guest.send("hello\r")
        guest.expect("hello\r\nsaved\r\n")
        guest.send("!+?")
        guest.expect(r"!\r\ncount=3\r\nup=\d+ boots=1 count=3 note=hello!\r\n")
        guest.execute("quit")
        assert guest.process.wait(TIMEOUT) == 0
    with boot(image, board) as guest:
        assert guest.ready().groups() == ("2", "2", "hello")


@pytest.mark.qemu
def test_a_burst_of_sixteen_bytes_arrives_whole(image: Path) -> None:
    with boot(image) as guest:
        guest.ready()
        guest.send("0123456789abcdef")
        guest.expect("^0123456789abcdef")
        guest.send("+" * 16)
        guest.expect("count=16\r\n")
        guest.send("+" * 200)  # more than the FIFO holds: QEMU waits for the guest
        guest.expect("count=216\r\n")


@pytest.mark.qemu
def test_the_note_can_be_corrected_and_ends_at_sixty_characters(image: Path) -> None:
    with boot(image) as guest:
        guest.ready()
        guest.send("\b\x7fhelp\b\x7flo?")
        guest.expect(r"up=\d+ boots=1 count=0 note=helo\r\n")
        guest.send("x" * 70 + "?")
        guest.expect("note=helo" + "x" * 56 + "\r\n")


@pytest.mark.qemu
def test_enter_saves_once_however_the_line_ends(image: Path) -> None:
    with boot(image) as guest:
        guest.ready()
        guest.send("a\r\n+")
        guest.expect("^a\r\nsaved\r\ncount=1\r\n")
        guest.send("b\n+")
        guest.expect("^b\r\nsaved\r\ncount=2\r\n")


@pytest.mark.qemu
@pytest.mark.parametrize(
    "offset, data",
    [(0, b"\xaa" * build.SECTOR), (0, b"X"), (16, b"J"), (300, b"\x01"), (510, b"\x00\x00")],
    ids=["foreign", "magic", "note", "unused", "checksum"],
)
def test_a_damaged_state_sector_reads_as_fresh(offset: int, data: bytes, image: Path) -> None:
    with boot(image) as guest:
        guest.ready()
        guest.send("hello\r")
        guest.expect("saved\r\n")
    assert _state(image)[16:22] == b"hello\0"
    _overwrite_state(image, offset, data)
    with boot(image) as guest:
        assert guest.ready().groups() == ("1", "0", "")


@pytest.mark.qemu
@pytest.mark.fault
@pytest.mark.parametrize("board", BOARDS)
def test_saved_is_said_only_when_the_disk_has_taken_it(board: Board, image: Path) -> None:
    before = image.read_bytes()
    with boot(image, board, fault=[{"event": "none", "iotype": "write", "errno": 5}]) as guest:
        guest.expect("qlaunch demo\r\ndisk error\r\nboots=1 ")
        guest.expect("READY\r\n")
        guest.send("hello\r?")
        answer = guest.expect(r"hello\r\n(.*)\r\nup=\d+ boots=1 count=0 note=hello\r\n")
        assert answer[1] == "disk error"
    assert image.read_bytes() == before


@pytest.mark.qemu
@pytest.mark.fault
def test_a_failed_read_is_tried_again_at_the_start(image: Path) -> None:
    fault = {"event": "none", "iotype": "read", "sector": 1, "errno": 5, "once": True}
    with boot(image, fault=[fault]) as guest:
        assert guest.ready().groups() == ("1", "0", "")


@pytest.mark.qemu
@pytest.mark.fault
def test_a_disk_that_cannot_be_read_at_the_start_is_said(image: Path) -> None:
    with boot(image, fault=[{"event": "none", "iotype": "read", "sector": 1, "errno": 5}]) as guest:
        guest.expect("^\r\ndisk error\r\n")


@pytest.mark.qemu
@pytest.mark.fault
def test_a_state_that_cannot_be_read_is_not_written_over(image: Path) -> None:
    with boot(image) as guest:
        guest.ready()
    before = image.read_bytes()
    fault = {"event": "none", "iotype": "read", "sector": build.STATE_LBA, "errno": 5}
    with boot(image, fault=[fault]) as guest:
        guest.expect("disk error\r\nboots=1 count=0 note=\r\n")
        guest.expect("READY\r\n")
    assert image.read_bytes() == before


# ---- power --------------------------------------------------------------------------------------


@pytest.mark.qemu
@pytest.mark.parametrize("board", BOARDS)
def test_the_power_button_switches_the_machine_off(board: Board, image: Path) -> None:
    with boot(image, board) as guest:
        guest.ready()
        guest.execute("system_powerdown")
        guest.expect("^power button\r\n")
        assert guest.event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}
        assert guest.process.wait(TIMEOUT) == 0


@pytest.mark.qemu
@pytest.mark.parametrize("board", BOARDS)
def test_r_resets_and_q_switches_off(board: Board, image: Path) -> None:
    with boot(image, board) as guest:
        guest.ready()
        guest.send("r")
        guest.expect("^reset\r\n")
        assert guest.event("RESET") == {"guest": True, "reason": "guest-reset"}
        assert guest.ready()[1] == "2"
        guest.send("q")
        guest.expect("^power off\r\n")
        assert guest.event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}
        assert guest.process.wait(TIMEOUT) == 0


@pytest.mark.qemu
@pytest.mark.kvm
def test_it_runs_under_kvm(image: Path) -> None:
    with boot(image, (KVM_PC, VIRTIO)) as guest:
        guest.ready()
        guest.send("+hello\r")
        guest.expect("hello\r\nsaved\r\n")
        guest.execute("system_powerdown")
        guest.expect("^power button\r\n")
        assert guest.event("SHUTDOWN")["reason"] == "guest-shutdown"
        assert guest.process.wait(TIMEOUT) == 0
    assert _state(image)[:22] == b"QLDEMO1\n" + struct.pack("<II", 1, 1) + b"hello\0"


# ---- keyboard and screen -------------------------------------------------------------------------


@pytest.mark.qemu
@pytest.mark.parametrize("board", BOARDS)
def test_on_the_keyboard_r_and_q_are_letters_inside_a_note_only(board: Board, image: Path) -> None:
    with boot(image, board) as guest:
        guest.ready()
        guest.type_keys("h", "r", "q", "x", "backspace", "ret")
        guest.expect("^hrqx\b \b\r\nsaved\r\n")
        guest.type_keys("r")
        guest.expect("^reset\r\n")
        assert guest.ready()[3] == "hrq"
        guest.type_keys("q")
        guest.expect("^power off\r\n")


@pytest.mark.qemu
@pytest.mark.parametrize("board", BOARDS)
def test_the_screen_shows_what_the_serial_line_says(
    board: Board, image: Path, tmp_path: Path
) -> None:
    with boot(image, board) as guest:
        guest.ready()
        guest.send("+++hello??")
        guest.expect("(?s)note=.*note=")  # the first answer is on the screen once the second comes
        screen = guest.screen(tmp_path / "screen")
        assert screen[0].strip().startswith("qlaunch demo")
        assert re.search("uptime .* boots .* count", screen[10])
        assert re.fullmatch(r" *│ +00:00:\d\d +│ +│ +1 +│ +│ +3 +│ *", screen[11])
        assert re.search("note .* not saved", screen[14])
        assert re.fullmatch(r" *│  hello +│ *", screen[15])
        assert screen[24].strip().endswith("boots=1 count=3 note=hello")
        picture = tmp_path / "screen.png"
        guest.execute("screendump", filename=str(picture), format="png")
        assert struct.unpack(">II", picture.read_bytes()[16:24]) == (720, 400)


@pytest.mark.qemu
def test_the_clock_runs(image: Path) -> None:
    with boot(image) as guest:
        guest.ready()
        up = 0
        while up < 1:
            guest.send("?")
            up = int(guest.expect(r"up=(\d+) boots=1 count=0 note=\r\n")[1])
