"""Passwords: read from where the profile says, refused where they are no good, seen nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qlaunch.errors import HostError
from qlaunch.machine.secrets import check_password, environment_for_qemu, read_secret
from qlaunch.profile.tables import Secret
from tests.rig import Rig, write_profile

PASSWORD = "Xyzzy,geheim=1"


def test_a_secret_in_a_file_is_its_text_without_the_line_end(own_place: Path) -> None:
    path = own_place / "pw"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    assert read_secret(Secret(file=str(path)), {}, what="x") == PASSWORD


def test_a_secret_in_the_environment_is_the_clients() -> None:
    secret = Secret(env="PW")
    assert read_secret(secret, {"PW": PASSWORD}, what="x") == PASSWORD
    with pytest.raises(HostError, match="x: the environment variable PW is not set"):
        read_secret(secret, {}, what="x")
    with pytest.raises(HostError, match="x: the environment variable PW is empty"):
        read_secret(secret, {"PW": ""}, what="x")


def test_a_systemd_credential_is_a_file_in_its_folder(own_place: Path) -> None:
    (own_place / "pw").write_text(PASSWORD, encoding="utf-8")
    secret = Secret(systemd_credential="pw")
    where = {"CREDENTIALS_DIRECTORY": str(own_place)}
    assert read_secret(secret, where, what="x") == PASSWORD
    with pytest.raises(HostError, match="no systemd credentials here"):
        read_secret(secret, {}, what="x")


@pytest.mark.parametrize(
    "content, message",
    [(b"", "is empty"), (b"\n", "is empty"), (b"x" * 5000, "too long"), (b"\xff", "not text")],
)
def test_a_file_that_holds_no_secret_is_refused(
    own_place: Path, content: bytes, message: str
) -> None:
    path = own_place / "pw"
    path.write_bytes(content)
    with pytest.raises(HostError, match=message):
        read_secret(Secret(file=str(path)), {}, what="x")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(HostError, match="cannot read /nowhere/pw: No such file"):
        read_secret(Secret(file="/nowhere/pw"), {}, what="x")


def test_a_password_that_nobody_could_log_in_with_is_refused() -> None:
    assert check_password("x" * 59, what="x")
    with pytest.raises(HostError, match="longer than 59 bytes"):
        check_password("ü" * 30, what="x")


def test_qemu_gets_little_of_the_environment_and_no_secret() -> None:
    environment = {"PATH": "/bin", "LC_ALL": "C", "TOKEN": "t", "QLAUNCH_PW": PASSWORD}
    found = environment_for_qemu(environment, [Secret(env="QLAUNCH_PW"), None])
    assert found == {"PATH": "/bin", "LC_ALL": "C"}


@pytest.mark.qemu
@pytest.mark.parametrize("kind", ["file", "env"])
def test_a_password_is_seen_nowhere(
    rig: Rig, own_place: Path, free_port: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_place / "pw"
    path.write_text(PASSWORD, encoding="utf-8")
    source = f'file = "{path}"' if kind == "file" else 'env = "QLAUNCH_PW"'
    write_profile("demo", f"[display]\nvnc = true\nport = {free_port}\npassword = {{ {source} }}\n")
    if kind == "env":
        # The shell that starts the supervisor has it, too.
        monkeypatch.setenv("QLAUNCH_PW", PASSWORD)
    pid = rig.up(env={"QLAUNCH_PW": PASSWORD})["pid"]
    path.unlink()
    word = PASSWORD.encode()
    assert word not in Path(f"/proc/{pid}/environ").read_bytes()
    assert word not in Path(f"/proc/{pid}/cmdline").read_bytes()
    files = [found for top in ("state", "data", "run") for found in (own_place / top).rglob("*")]
    assert [found for found in files if found.is_file() and word in found.read_bytes()] == []
    assert os.environ.get("QLAUNCH_PW") in (None, PASSWORD)
    assert PASSWORD not in str(rig.ask("status", name="demo"))
