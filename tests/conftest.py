"""Every test lives in folders of its own, leaves nothing running, and says what it needs."""

from __future__ import annotations

import difflib
import os
import shutil
import signal
import socket
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests import leftovers, prerequisites
from tests.guest import image, machine
from tests.lab import Lab, LabError
from tests.rig import Rig
from tests.rig import rig as running_rig

GOLDEN_DIR = Path(__file__).parent / "golden"
_KEPT_VARIABLES = frozenset({"QLAUNCH_REQUIRE", "QLAUNCH_QEMU10"})
_FOREIGN_VARIABLES = ("DBUS_SESSION_BUS_ADDRESS", "NOTIFY_SOCKET", "INVOCATION_ID", "NO_COLOR")

Golden = Callable[[str, str], None]

# A shell that starts us in the background has us ignore Ctrl-C, and every child would do so too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# No deadline: a shared computer may be slow. In CI the examples are the same in every run.
settings.register_profile(
    "qlaunch", deadline=None, derandomize=bool(os.environ.get("CI")), database=None
)
settings.load_profile("qlaunch")


# ---- folders and environment --------------------------------------------------------------------


@pytest.fixture(scope="session")
def shared_cache() -> Iterator[Path]:
    """XDG_CACHE_HOME of the whole run: what QEMU can do is asked once and not in every test."""
    folder = tempfile.mkdtemp(prefix="ql-cache-", dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_place(shared_cache: Path) -> Iterator[Path]:
    """A folder per test with HOME and the XDG folders below it; gone afterwards, and so must be
    every process that the test started.

    The path is short: a unix socket's has 107 bytes.
    """
    place = Path(tempfile.mkdtemp(prefix="ql-", dir="/tmp"))
    test_id = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        _move_in(patch, place, shared_cache, test_id)
        before = leftovers.last_pid()
        yield place
        left = leftovers.reap(test_id, f"{place}/") if leftovers.last_pid() != before else []
    shutil.rmtree(place, ignore_errors=True)
    if left:
        pytest.fail("left running (and killed now):\n  " + "\n  ".join(left), pytrace=False)


def _move_in(patch: pytest.MonkeyPatch, place: Path, cache: Path, test_id: str) -> None:
    for name in list(os.environ):
        if name.startswith("QLAUNCH_") and name not in _KEPT_VARIABLES:
            patch.delenv(name)
    for name in _FOREIGN_VARIABLES:
        patch.delenv(name, raising=False)
    folders = {
        "HOME": "home",
        "XDG_CONFIG_HOME": "config",
        "XDG_DATA_HOME": "data",
        "XDG_STATE_HOME": "state",
        "XDG_RUNTIME_DIR": "run",
    }
    for variable, folder in folders.items():
        (place / folder).mkdir(mode=0o700)
        patch.setenv(variable, str(place / folder))
    patch.setenv("XDG_CACHE_HOME", str(cache))
    patch.setenv("LC_ALL", "C.UTF-8")
    patch.setenv("QLAUNCH_TEST_ID", test_id)


@pytest.fixture
def runtime_dir(own_place: Path) -> Path:
    """XDG_RUNTIME_DIR of this test: the place for sockets."""
    return own_place / "run"


@pytest.fixture
def original_environ() -> Mapping[str, str]:
    """The environment as pytest got it, for a test that needs the user's real session."""
    return prerequisites.ORIGINAL_ENVIRON


@pytest.fixture
def rig(own_place: Path) -> Iterator[Rig]:
    """A real supervisor, started when the test first asks it something. It may have no bug."""
    with running_rig() as here:
        yield here
    assert "a bug:" not in here.log(), here.log()


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- prerequisites ------------------------------------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    prerequisites.require_markers(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if prerequisites.required("all") and not prerequisites.may_skip(reason):
        report.outcome = "failed"
        report.longrepr = f"QLAUNCH_REQUIRE=all lets nothing be skipped: {reason}"


@pytest.fixture
def qemu_binary(request: pytest.FixtureRequest) -> str:
    """The QEMU under test: the installed one, or the one that `both_qemus` says."""
    word = getattr(request, "param", "qemu")
    if word == "qemu10":
        return _path_of_qemu10()
    path = prerequisites.qemu()
    prerequisites.require("qemu", path, "qemu-system-x86_64 is not installed")
    assert path
    return path


@pytest.fixture
def qemu10() -> str:
    """QEMU 10, which lies beside the installed one."""
    return _path_of_qemu10()


def _path_of_qemu10() -> str:
    path = prerequisites.qemu10()
    prerequisites.require("qemu10", path, "QEMU 10 is not there: tools/fetch-qemu10 brings it")
    assert path
    return path


# ---- the Linux guest ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def guest_initrd() -> Iterator[Path]:
    """The Linux guest's initial RAM disk, made once."""
    with image.built() as path:
        yield path


@pytest.fixture(scope="session")
def desktop_initrd(guest_initrd: Path) -> Iterator[Path]:
    """The same with a desktop in it: `start-desktop` begins an X server and the SPICE agent."""
    prerequisites.require("spice", not prerequisites.missing("spice"), "no desktop")
    programs = ("Xvfb", "spice-vdagentd", "spice-vdagent", "xclip", "xkbcomp", "xrandr", "aplay")
    trees = ("/usr/share/X11/xkb",)
    with image.extended(guest_initrd, *programs, scripts=["start-desktop"], trees=trees) as made:
        yield made


@pytest.fixture
def guest_home(shared_cache: Path) -> Iterator[machine.Home]:
    """A user of qlaunch for one test with Linux guests."""
    with machine.home(shared_cache) as user:
        yield user


# ---- systemd ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A computer with a real systemd. No test leaves anything in it."""
    with ExitStack() as stack:
        try:
            here = stack.enter_context(Lab())
        except LabError as error:
            prerequisites.require("systemd", False, f"no systemd can be booted here: {error}")
            raise
        yield here


# ---- golden files -------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="rewrite golden files that differ")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden("argv/xp.txt", text)`: text must be what tests/golden/argv/xp.txt holds.

    `make golden` writes the files anew.
    """
    rewrite = bool(request.config.getoption("--golden"))

    def compare(name: str, text: str) -> None:
        path = GOLDEN_DIR / name
        expected = path.read_text(encoding="utf-8") if path.exists() else ""
        if text == expected and path.exists():
            return
        if rewrite:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        change = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), f"tests/golden/{name}", "now", lineterm=""
        )
        pytest.fail(
            "\n".join([f"golden file differs (`make golden` rewrites it): {name}", *change]),
            pytrace=False,
        )

    return compare
