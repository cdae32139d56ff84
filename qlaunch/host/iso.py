"""Makes a CD image of folders and files: ISO 9660 with Rock Ridge (Linux) and Joliet (Windows)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence

from attrs import define, field, frozen

from qlaunch.errors import HostError, NotFoundError, RefusedError
from qlaunch.host.access import free_space
from qlaunch.host.newfile import part_file, publish, remove_stale, write_error
from qlaunch.host.procfs import printable
from qlaunch.units import short_size

Progress = Callable[[int, int], None]

# A file on ISO 9660 has a 32 bit length; larger ones are in parts, which Windows XP cannot read.
MOST_FILE = (1 << 32) - 2048
MOST_FILES = 100_000
# Joliet has 64 letters; pycdlib counts bytes.
_JOLIET_NAME = 64
_JOLIET_BAD = "*/:;?\\"
# Folders below one another; more would be relocated, and look misplaced to some guests.
_DEPTH = 7
_SECTOR = 2048
# Directory records in three trees and path tables, for each entry and for the whole.
_PER_ENTRY, _OVERHEAD = 1024, 1 << 20


@frozen(kw_only=True)
class Entry:
    """What goes onto the CD: its place in the file system, and the names of its path on the CD."""

    source: str
    path: tuple[str, ...]
    is_folder: bool
    size: int = 0


@frozen(kw_only=True)
class Made:
    """An image that was made: files and bytes in it, and what was left out, in words."""

    path: str
    files: int
    size: int
    skipped: tuple[str, ...]


def collect(sources: Sequence[str]) -> tuple[list[Entry], tuple[str, ...]]:
    """Everything that `sources` mean: the content of one folder, or files and folders side by side;
    and what is left out: links, sockets, devices.

    Raises: NotFoundError, HostError when something cannot be read, RefusedError when it does not
    fit on a CD.
    """
    found = _Collection()
    if len(sources) == 1 and os.path.isdir(sources[0]):
        found.folder(sources[0], ())
    else:
        for source in sources:
            found.add(source, (), os.path.basename(os.path.normpath(source)), named=True)
    if not found.entries:
        raise RefusedError(
            f"there is nothing in {' '.join(sources)} that could go onto a CD",
            hint="; ".join(found.skipped[:3]) or None,
        )
    return found.entries, tuple(found.skipped)


@define
class _Collection:
    entries: list[Entry] = field(factory=list)
    skipped: list[str] = field(factory=list)
    _names: set[tuple[str, ...]] = field(factory=set)

    def add(self, source: str, below: tuple[str, ...], name: str, *, named: bool = False) -> None:
        """Add a file or a folder. A link that the user `named` means its target."""
        try:
            about = os.stat(source) if named else os.lstat(source)
        except FileNotFoundError:
            raise NotFoundError(f"{source} is not there") from None
        except OSError as error:
            raise HostError(f"{source} cannot be read: {error.strerror}") from error
        if stat.S_ISDIR(about.st_mode):
            path = (*below, self._name(below, name))
            self.entries.append(Entry(source=source, path=path, is_folder=True))
            self.folder(source, path)
        elif stat.S_ISREG(about.st_mode):
            if about.st_size > MOST_FILE:
                raise RefusedError(
                    f"{source} is too large for a CD: {short_size(about.st_size)},"
                    " and 4 GiB is the most",
                    hint="attach it as a disk, or share its folder",
                )
            path = (*below, self._name(below, name))
            self.entries.append(
                Entry(source=source, path=path, is_folder=False, size=about.st_size)
            )
        else:
            what = "a link" if stat.S_ISLNK(about.st_mode) else "no file"
            self.skipped.append(f"{printable(source)} is {what}")
        if len(self.entries) > MOST_FILES:
            raise RefusedError(f"there are more than {MOST_FILES} files", hint="share the folder")

    def folder(self, source: str, path: tuple[str, ...]) -> None:
        if len(path) > _DEPTH:
            raise RefusedError(
                f"{source} is too deep for a CD: {_DEPTH} folders below one another are the most",
                hint="pack it (zip, tar), or share the folder",
            )
        try:
            names = sorted(os.listdir(source))
        except OSError as error:
            raise HostError(f"{source} cannot be read: {error.strerror}") from error
        for name in names:
            self.add(os.path.join(source, name), path, name)

    def _name(self, below: tuple[str, ...], name: str) -> str:
        """A name that Windows can read, and that nothing beside it has: upper and lower case are
        the same there."""
        text = os.fsencode(name).decode(errors="replace").replace("\ufffd", "_")
        text = "".join("_" if each in _JOLIET_BAD or not each.isprintable() else each
                       for each in text)  # fmt: skip
        stem, dot, suffix = text.rpartition(".")
        stem, suffix = (stem, dot + suffix) if stem and len(suffix.encode()) < 16 else (text, "")
        number = 1
        while True:
            more = "" if number == 1 else f"~{number}"
            room = _JOLIET_NAME - len((more + suffix).encode())
            wanted = stem.encode()[:room].decode(errors="ignore") + more + suffix
            key = (*(each.casefold() for each in below), wanted.casefold())
            if key not in self._names:
                self._names.add(key)
                return wanted
            number += 1


def label_of(sources: Sequence[str]) -> str:
    """The CD's name, after what is on it: up to 16 capital letters and digits."""
    name = os.path.basename(os.path.normpath(os.path.abspath(sources[0])))
    kept = "".join(each if each.isalnum() and each.isascii() else "_" for each in name.upper())
    return kept[:16] or "FILES"


def make_iso(sources: Sequence[str], target: str, progress: Progress) -> Made:
    """Make the image `target` of `sources`; it is complete when it appears.

    Raises: as `collect`; ConflictError when `target` exists, HostError (a full disk).
    """
    entries, skipped = collect(sources)
    size = sum(-(-each.size // _SECTOR) * _SECTOR for each in entries)
    size += _OVERHEAD + _PER_ENTRY * len(entries)
    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise write_error(target, error) from error
    if (free := free_space(folder)) is not None and free < size:
        raise HostError(
            f"the CD needs {short_size(size)}, and in {folder} are {short_size(free)} left",
            hint="free some space there",
        )
    remove_stale(target)
    with part_file(target) as (part, fd):
        _write(entries, label_of(sources), fd, progress)
        try:
            publish(fd, part, target)
        except OSError as error:
            raise write_error(target, error) from error
    files = sum(not each.is_folder for each in entries)
    return Made(path=target, files=files, size=os.path.getsize(target), skipped=skipped)


def _write(entries: Sequence[Entry], label: str, fd: int, progress: Progress) -> None:
    import pycdlib  # 25 ms; only who makes a CD needs it
    from pycdlib.pycdlibexception import PyCdlibException

    def told(done: int, total: int, _more: object) -> None:
        progress(done, total)

    iso = pycdlib.PyCdlib()
    try:
        iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
        for entry, plain in _with_plain_names(entries):
            joliet = "/" + "/".join(entry.path)
            if entry.is_folder:
                iso.add_directory(plain, rr_name=entry.path[-1], joliet_path=joliet)
            else:
                iso.add_file(
                    entry.source, f"{plain}.;1", rr_name=entry.path[-1], joliet_path=joliet
                )
        with os.fdopen(os.dup(fd), "r+b") as file:
            iso.write_fp(file, progress_cb=told)
    except PyCdlibException as error:
        raise RefusedError(f"the CD cannot be made: {error}") from error
    except OSError as error:
        raise HostError(f"the CD cannot be made: {error.strerror or error}") from error
    finally:
        try:
            iso.close()
        except PyCdlibException:  # it was not even begun
            pass


def _with_plain_names(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Each with a name of plain ISO 9660, which no guest of ours looks at: F0000001."""
    plain: dict[tuple[str, ...], str] = {(): ""}
    for number, entry in enumerate(entries):
        name = f"{plain[entry.path[:-1]]}/{'D' if entry.is_folder else 'F'}{number:07}"
        plain[entry.path] = name
        yield entry, name
