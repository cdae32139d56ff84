"""Images of other programs taken in, and images that are traps: no other file is ever read."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qlaunch.errors import ConflictError, HostError, NotFoundError, QlaunchError, RefusedError
from qlaunch.host import landlock
from qlaunch.host.image_create import create_image
from qlaunch.host.image_import import import_image
from tests.prerequisites import find_program, require
from tests.rig import PROFILE, Rig, write_profile

pytestmark = pytest.mark.qemu

PASSWD = "/etc/passwd"
SECRET = b"root:"


def qemu_img(*words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    program = find_program("qemu-img")
    require("qemu", program, "qemu-img is not installed")
    return subprocess.run(
        [str(program), *words], cwd=cwd, check=False, capture_output=True, timeout=30
    )


# ---- good ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["vmdk", "vdi", "vhdx", "vpc", "qcow", "qed", "parallels", "raw"])
async def test_an_image_of_another_program_becomes_a_qcow2(own_place: Path, form: str) -> None:
    content = os.urandom(1 << 16) + bytes(1 << 20) + os.urandom(1 << 16)
    (own_place / "a.raw").write_bytes(content)
    source = own_place / f"source, 1.{form}"
    done = qemu_img("convert", "-f", "raw", "-O", form, "a.raw", source.name, cwd=own_place)
    assert done.returncode == 0, done.stderr
    heard: list[float] = []
    said = form if form in ("vpc", "qcow") else None
    made = await import_image(
        str(source), str(own_place / "new.qcow2"), source_format=said, progress=heard.append
    )
    assert made.format == form
    assert heard[-1] == 100
    qemu_img("convert", "-O", "raw", "new.qcow2", "back.raw", cwd=own_place)
    assert (own_place / "back.raw").read_bytes()[: len(content)] == content
    assert sorted(path.name for path in own_place.iterdir() if path.name.startswith(".")) == []
    with pytest.raises(ConflictError, match="exists already"):
        await import_image(str(source), str(own_place / "new.qcow2"))


async def test_an_image_of_several_files_needs_them_named(own_place: Path) -> None:
    (own_place / "a.raw").write_bytes(b"x" * (1 << 20))
    options = ("-o", "subformat=monolithicFlat")
    qemu_img("convert", "-O", "vmdk", *options, "a.raw", "b.vmdk", cwd=own_place)
    source, new = str(own_place / "b.vmdk"), str(own_place / "b.qcow2")
    if landlock.abi():
        with pytest.raises(RefusedError, match="Permission denied") as caught:
            await import_image(source, new)
        assert "--part" in str(caught.value.hint)
    made = await import_image(source, new, parts=[str(own_place / "b-flat.vmdk")])
    assert made.size == 1 << 20


def test_the_verb_takes_one_in(own_place: Path) -> None:
    (own_place / "a.raw").write_bytes(b"x" * (1 << 20))
    qemu_img("convert", "-O", "vdi", "a.raw", "b.vdi", cwd=own_place)
    assert qlaunch("image", "import", "b.vdi", "--json", cwd=own_place)[0] == 0
    status, out = qlaunch("image", "chain", "b.qcow2", "--json", cwd=own_place)
    assert status == 0
    assert json.loads(out)["chain"][0]["virtual_size"] == 1 << 20
    assert qlaunch("image", "import", "b.vdi", "c.qcow2", "--format", "iso", cwd=own_place)[0] == 2
    assert qlaunch("image", "import", "nothing", cwd=own_place)[0] == 4


def qlaunch(*words: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "qlaunch", *words],
        cwd=cwd, check=False, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    return done.returncode, done.stdout


# ---- traps --------------------------------------------------------------------------------------


def on(backing: str, name: str = "trap.qcow2") -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        below = ("-u", "-b", backing, "-F", "raw")
        done = qemu_img("create", "-q", "-f", "qcow2", *below, name, "64k", cwd=place)
        assert done.returncode == 0, done.stderr
        return place / name

    return make


def data_file(place: Path) -> Path:
    """An image whose data, all of it, is in another file."""
    options = "preallocation=metadata,data_file_raw=on,data_file=data-file-a"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "trap.qcow2", "64k", cwd=place)
    path = place / "trap.qcow2"
    found = path.read_bytes()
    assert found.count(b"data-file-a") == 1
    path.write_bytes(found.replace(b"data-file-a", PASSWD.encode()))
    return path


def vmdk(extent: str, parent: str = "") -> Callable[[Path], Path]:
    hint = f'parentFileNameHint="{parent}"\n' if parent else ""
    cid = "fffffffe" if parent else "ffffffff"
    text = (
        f"# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID={cid}\n"
        f'createType="monolithicFlat"\n{hint}\nRW 2 {extent}\n'
    )

    def make(place: Path) -> Path:
        path = place / "trap.vmdk"
        path.write_text(text, encoding="utf-8")
        return path

    return make


IN_JSON = f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{PASSWD}"}}}}'
TRAPS: dict[str, Callable[[Path], Path]] = {
    "a backing file": on(PASSWD),
    "a backing file in JSON": on(IN_JSON),
    "an external data file": data_file,
    "an extent of a VMDK": vmdk(f'FLAT "{PASSWD}" 0'),
    "a header in what is called raw": on(PASSWD, "trap.raw"),
    "a relative backing file": on("../" * 20 + PASSWD[1:]),
}


REFUSALS = "refused|does not allow|only qcow2|but trap|not a local file"


def leaks(path: Path) -> bool:
    """Whether plain qemu-img hands out the other file."""
    copy = path.parent / "leak.raw"
    qemu_img("convert", "-O", "raw", path.name, copy.name, cwd=path.parent)
    found = copy.exists() and SECRET in copy.read_bytes()
    copy.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("trap", TRAPS)
async def test_a_trap_that_plain_qemu_img_walks_into_is_refused(own_place: Path, trap: str) -> None:
    path = TRAPS[trap](own_place)
    assert leaks(path), "this trap catches nobody"
    new = own_place / "new.qcow2"
    with pytest.raises(RefusedError) as caught:
        await import_image(str(path), str(new))
    assert str(path) in caught.value.message
    with pytest.raises((RefusedError, HostError)):
        await create_image(str(new), image_format="raw", template=str(path))
    assert not new.exists()
    assert not any(SECRET in each.read_bytes() for each in own_place.rglob("*") if each.is_file())


def with_disk(path: Path, form: str) -> str:
    said = f'path = "{path}"\nformat = "{form}"'
    return PROFILE.replace('template = "@demo"\nsize = "1MiB"', said)


@pytest.mark.parametrize("trap", TRAPS)
def test_no_machine_starts_on_a_trap(rig: Rig, own_place: Path, trap: str) -> None:
    path = TRAPS[trap](own_place)
    write_profile("demo", text=with_disk(path, "qcow2"))
    with pytest.raises(QlaunchError, match=REFUSALS):
        rig.up()
    assert rig.row() == {}


def test_a_trap_called_raw_is_only_bytes_to_its_guest(rig: Rig, own_place: Path) -> None:
    path = on(PASSWD, "trap.raw")(own_place)
    with path.open("r+b") as file:
        file.truncate(1 << 20)
    write_profile("demo", text=with_disk(path, "raw"))
    rig.up()
    nodes = rig.ask("qmp", name="demo", command="query-named-block-nodes", arguments={})["return"]
    assert PASSWD not in str(nodes)


@pytest.mark.parametrize(
    "scheme", ["nbd://127.0.0.1:{}/x", "nbd:127.0.0.1:{}", "http://127.0.0.1:{}/x"]
)
async def test_no_server_is_called(own_place: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        path = on(scheme.format(port))(own_place)
        extent = f'FLAT "{scheme.format(port)}" 0'
        for trap in (path, vmdk(extent)(own_place), vmdk("ZERO", scheme.format(port))(own_place)):
            with pytest.raises(RefusedError):
                await import_image(str(trap), str(own_place / "new.qcow2"))
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_a_damaged_or_encrypted_image_is_refused_with_the_reason(own_place: Path) -> None:
    path = own_place / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "a.qcow2", "1M", cwd=own_place)
    whole = path.read_bytes()
    path.write_bytes(whole[:72] + struct.pack(">Q", 2) + whole[80:])
    with pytest.raises(RefusedError, match="marked corrupt"):
        await import_image(str(path), str(own_place / "b.qcow2"))
    path.write_bytes(whole[:32] + struct.pack(">I", 1) + whole[36:])
    with pytest.raises(RefusedError, match="encrypted"):
        await import_image(str(path), str(own_place / "b.qcow2"))
    with pytest.raises(NotFoundError):
        await import_image(str(own_place / "none"), str(own_place / "b.qcow2"))
    os.mkfifo(own_place / "pipe")
    with pytest.raises(RefusedError, match="not a regular file"):
        await import_image(str(own_place / "pipe"), str(own_place / "b.qcow2"))


async def test_an_image_that_says_it_is_huge_is_refused(own_place: Path) -> None:
    """200 TiB in a VHDX of a few MiB."""
    path = own_place / "a.vdi"
    qemu_img("create", "-q", "-f", "vdi", "a.vdi", "1M", cwd=own_place)
    found = bytearray(path.read_bytes())
    struct.pack_into("<Q", found, 0x170, 200 << 40)
    path.write_bytes(found)
    with pytest.raises(RefusedError):
        await import_image(str(path), str(own_place / "b.qcow2"))


@pytest.mark.parametrize("trap", TRAPS)
def test_convert_walks_into_no_trap_either(own_place: Path, trap: str) -> None:
    path = TRAPS[trap](own_place)
    status, _ = qlaunch("image", "convert", path.name, "new.img", "--format", "raw", cwd=own_place)
    new = own_place / "new.img"
    assert status != 0 or SECRET not in new.read_bytes()
