"""`qlaunch doctor --report`: what a bug report needs, and nothing that is nobody's business."""

from __future__ import annotations

import getpass
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qlaunch.cli.bug_report import clean
from qlaunch.store import machines, paths
from tests.rig import TOP

SECRET = "s3cr3t-Hunter2"
LINES = (
    'password = "{0}"',
    '"password": "{0}", "more": 1',
    "password={0},port=5900",
    "ticket: {0}",
    "{{'api_key': '{0}'}}",
    "OS_PASSWORD={0}",
    "https://me:{0}@example.org/x",
    "Authorization: Bearer {0}",
    'password = "a\\"{0}"',
    "-----BEGIN PRIVATE KEY-----\n{0}\n-----END PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{0}",
    "passphrase : {0}",
)


@pytest.mark.parametrize("line", LINES)
def test_a_secret_is_left_out(line: str) -> None:
    text = clean(f"before {line.format(SECRET)}\nafter")
    assert SECRET not in text
    assert text.startswith("before")
    if "BEGIN" not in line or "END" in line:
        assert text.endswith("after")


@pytest.mark.parametrize(
    "text",
    ["-device ide-hd,drive=disk0", '"node-name": "disk0-file"', "pid 42, tcg", "state=running",
     "/dev/disk/by-id/ata-x", "2026-11-28T05:16:33.841631Z qlaunch: running"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert clean(text) == text


def test_who_and_where_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("LOGNAME", "somebody")
    assert getpass.getuser() == "somebody"
    text = clean(f"/home/somebody/a.img belongs to somebody on {os.uname().nodename}")
    assert "somebody" not in text
    assert os.uname().nodename not in text
    assert "~/a.img" in text


def test_control_characters_do_not_get_through() -> None:
    assert clean("a\x1b[2Jb\x00c\n\td") == "a[2Jbc\n\td"


@pytest.mark.qemu
def test_the_file_has_checks_plans_and_logs_and_no_password(tmp_path: Path) -> None:
    log = Path(machines.log_path("demo"))
    log.parent.mkdir(parents=True)
    log.write_text(f"something went wrong\npassword={SECRET}\n", encoding="utf-8")
    (Path(paths.machine_state("demo")) / "plan.json").write_text(f'{{"password": "{SECRET}"}}')
    data = Path(paths.machine_data("demo"))
    data.mkdir(parents=True)
    (data / "disk0.qcow2").write_bytes(b"x" * 7)
    path = tmp_path / "report.txt"
    done = subprocess.run(
        [sys.executable, "-m", "qlaunch", "doctor", "-q", "--report", str(path)], cwd=TOP,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    text = path.read_text(encoding="utf-8")
    assert SECRET not in text
    for word in (
        "==== doctor",
        "QEMU ",
        "==== demo: log",
        "something went wrong",
        "7  disk0.qcow2",
    ):
        assert word in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
