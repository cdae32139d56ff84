"""Profiles as texts: written without replacing any, edited so that their comments stay."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from qlaunch.errors import ConflictError, HostError, ProfileError
from qlaunch.profile.fields import entries_of
from qlaunch.profile.load import loads
from qlaunch.profile.model import Profile
from qlaunch.store import files

# tomlkit is for edits alone: who only writes a text need not wait for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import tomlkit

Table = MutableMapping[str, Any]
PROFILE_MODE = 0o644
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextlib.contextmanager
def part(path: str, data: bytes, *, mode: int | None = None) -> Iterator[str]:
    """`data` in a new hidden file beside `path`, on the disk; gone afterwards unless renamed.

    Raises: HostError.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    except OSError as error:
        raise failed(path, error) from error
    try:
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), PROFILE_MODE & ~_umask() if mode is None else mode)
                os.fsync(file.fileno())
        except OSError as error:
            raise failed(path, error) from error
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write_new(path: str, text: str, *, mode: int | None = None) -> None:
    """Put `text` at `path`, whole or not at all; what is there is never replaced.

    Raises: ConflictError when something is there, HostError.
    """
    with part(path, text.encode(), mode=mode) as temporary:
        try:
            _name(temporary, path)
        except FileExistsError:
            raise ConflictError(f"{path} exists already; it is not replaced") from None
        except OSError as error:
            raise failed(path, error) from error
        files.sync_dir(os.path.dirname(path))


def _name(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.replace(temporary, path)


def replace(path: str, data: bytes) -> None:
    """Put `data` where the profile `path` is, at once; a link stays and its target is replaced.

    Raises: HostError.
    """
    target = os.path.realpath(path)
    mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else None
    with part(target, data, mode=mode) as temporary:
        try:
            os.replace(temporary, target)
        except OSError as error:
            raise failed(path, error) from error
        files.sync_dir(os.path.dirname(target))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def failed(path: str, error: OSError) -> HostError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return HostError(
        f"cannot write {path}: {error.strerror}", hint="free some space there" if full else None
    )


def read(path: str) -> str:
    """The text of the profile `path`. Raises: ProfileError."""
    try:
        with open(path, "rb") as file:
            return file.read().decode().removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(path, f"cannot be read: {error}") from error


def _parsed(text: str, path: str) -> tomlkit.TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text)
    except (TOMLKitError, RecursionError) as error:
        raise ProfileError(path, f"cannot be edited: {error}") from error


def renamed(path: str, *, new: str, old_data: str, new_data: str) -> str:
    """The text of the profile `path` for the machine's new name: `name`, where it is said, and
    every path into its old data folder."""
    import tomlkit

    document = _parsed(read(path), path)
    if "name" in document:
        document["name"] = new
    folder = os.path.dirname(os.path.abspath(path))

    def moved(said: str) -> str:
        whole = os.path.normpath(os.path.join(folder, os.path.expanduser(said)))
        if whole == old_data or whole.startswith(old_data + "/"):
            return new_data + whole[len(old_data) :]
        return said.replace(old_data + "/", new_data + "/")

    _map_texts(document, moved)
    return tomlkit.dumps(document)


def _map_texts(value: Any, change: Callable[[str], str]) -> None:
    items = value.items() if isinstance(value, MutableMapping) else enumerate(value)
    for key, item in list(items):
        if isinstance(item, str):
            if change(item) != item:
                value[key] = change(item)
        elif isinstance(item, MutableMapping | list):
            _map_texts(item, change)


def cloned(
    path: str, target: str, *, new: str, disks: Mapping[str, Mapping[str, str]], nvram: str | None
) -> str:
    """The text of the profile `path` as that of another machine, `new`, to be put at `target`.

    `disks` are the keys that its disks say differently; NVRAM is the given file. UUID and MAC
    addresses are not inherited; relative paths still mean the same files.

    Raises: ProfileError.
    """
    import tomlkit

    document = _parsed(read(path), path)
    if os.path.dirname(os.path.realpath(path)) != os.path.dirname(os.path.realpath(target)):
        _make_absolute(document, Profile, os.path.dirname(os.path.abspath(path)))
    if "name" in document:
        document["name"] = new
    document.pop("uuid", None)
    for nic in _items(document, "nic"):
        nic.pop("mac", None)
    for ident, keys in disks.items():
        item = _said_item(document, "disk", ident)
        if "backing" in keys:
            item.pop("template", None)
        item.update(keys)
    if nvram is not None:
        _said_table(document, "machine")["nvram"] = nvram
    # What comes from a file that this one extends cannot be taken out, only said differently.
    profile = loads(tomlkit.dumps(document), target, name=new)
    if profile.uuid:
        document["uuid"] = str(uuid.uuid4())
    for card in profile.nic:
        if card.mac:
            _said_item(document, "nic", card.id)["mac"] = _new_mac()
    return tomlkit.dumps(document)


def _new_mac() -> str:
    tail = uuid.uuid4().bytes[:3]
    return ":".join(f"{byte:02x}" for byte in b"\x52\x54\x00" + tail)


def _items(document: Table, name: str) -> list[Table]:
    found = document.get(name)
    return [item for item in found if isinstance(item, MutableMapping)] if found else []


def _said_item(document: Table, name: str, ident: str) -> Table:
    """The `[[name]]` with the id `ident`, added if the file does not say it itself."""
    import tomlkit

    for item in _items(document, name):
        if item.get("id") == ident:
            return item
    item = tomlkit.table()
    item["id"] = ident
    if name not in document:
        document[name] = tomlkit.aot()
    document[name].append(item)
    return item


def _said_table(document: Table, name: str) -> Table:
    import tomlkit

    if name not in document:
        document[name] = tomlkit.table()
    table: Table = document[name]
    return table


def _make_absolute(said: Table, cls: type, folder: str) -> None:
    """Put `folder` before every relative path that the tables of the model `cls` say."""
    for entry in entries_of(cls).values():
        value = said.get(entry.name)
        if entry.key.kind == "path" and isinstance(value, str):
            said[entry.name] = _absolute(value, folder)
        elif entry.name == "extends" and isinstance(value, list):
            for at, word in enumerate(list(value)):
                value[at] = _absolute(str(word), folder)
        elif entry.item is not None and isinstance(value, MutableMapping):
            _make_absolute(value, entry.item, folder)
        elif entry.item is not None and isinstance(value, list):
            for item in _items(said, entry.name):
                _make_absolute(item, entry.item, folder)
        elif entry.key.kind == "secret" and isinstance(value, MutableMapping) and "file" in value:
            value["file"] = _absolute(str(value["file"]), folder)


def _absolute(said: str, folder: str) -> str:
    if said.startswith(("/", "~", "@")):
        return said
    return os.path.normpath(os.path.join(folder, said))
