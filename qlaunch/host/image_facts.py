"""Looks at the images that a profile names, before anybody runs QEMU on them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from attrs import evolve

from qlaunch.facts import ImageFacts
from qlaunch.host.access import FileProblem, free_space, why_not
from qlaunch.host.locks import lock_holder
from qlaunch.host.qcow2 import ImageError, ImageHeader, backing_path, read_header

MAX_CHAIN = 256

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
}
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


def image_facts(path: str, *, want_write: bool) -> ImageFacts:
    """What lies at the absolute `path`; `want_write` asks for the rights and locks of a writer.

    Nothing is changed and nothing is waited for. Whatever is wrong is in the answer's `problem`
    and `hint`; nothing is raised.
    """
    return _facts(path, want_write=want_write, want_holder=True)


def image_contents(path: str) -> ImageFacts:
    """What a reader finds at the absolute `path`, and not who else has it open: to name that
    process, the descriptors of all processes are looked at (10 ms with 250 of them)."""
    return _facts(path, want_write=False, want_holder=False)


def _facts(path: str, *, want_write: bool, want_holder: bool) -> ImageFacts:
    facts = ImageFacts(path=path)
    try:
        with _opened(path, want_write=want_write) as (fd, writable):
            facts = evolve(facts, exists=True, readable=True, writable=writable)
            if want_holder:
                facts = evolve(facts, holder=lock_holder(fd, want_write=want_write))
            return _look(fd, facts, want_write)
    except FileNotFoundError:
        return _absent(facts, want_write)
    except FileProblem as problem:
        return evolve(facts, exists=problem.exists, problem=problem.message, hint=problem.hint)
    except OSError as error:
        told = why_not(path, error, write=False)
        return evolve(facts, exists=told.exists, problem=told.message, hint=told.hint)
    except ValueError:
        return evolve(facts, problem="the name holds a NUL character")


def chain_facts(path: str, *, want_write: bool) -> dict[str, ImageFacts]:
    """The image at `path` and everything below it, by absolute path, the top first.

    A chain that comes back to itself, or is deeper than 256, ends there with a `problem`. What
    a raw file's first bytes say about a backing file is not followed when its overlay calls it raw.
    """
    chain: dict[str, ImageFacts] = {}
    seen: set[str] = set()
    facts, raw = image_facts(path, want_write=want_write), False
    while True:
        chain[facts.path] = facts
        seen.add(os.path.realpath(facts.path))
        below = facts.backing_path
        if below is None or raw:
            return chain
        if os.path.realpath(below) in seen:
            problem = f"its backing file {below} leads back to {facts.path} itself"
        elif len(chain) >= MAX_CHAIN:
            problem = f"the chain of backing files is deeper than {MAX_CHAIN}"
        else:
            raw = facts.backing_format == "raw"
            facts = image_facts(below, want_write=False)
            continue
        chain[facts.path] = evolve(facts, problem=problem)
        return chain


@contextlib.contextmanager
def _opened(path: str, *, want_write: bool) -> Iterator[tuple[int, bool]]:
    # Looked at before it is opened: opening some devices (a watchdog, a tape) does something.
    _refuse_oddities(os.stat(path))
    quiet = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    writable = False
    fd = -1
    if want_write:
        try:
            fd = os.open(path, os.O_RDWR | quiet)
            writable = True
        except OSError as error:
            if error.errno not in _NO_RIGHT:
                raise
    if fd < 0:
        fd = os.open(path, os.O_RDONLY | quiet)
        writable = not want_write and os.access(path, os.W_OK, effective_ids=True)
    try:
        _refuse_oddities(os.fstat(fd))
        yield fd, writable
    finally:
        os.close(fd)


def _refuse_oddities(found: os.stat_result) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFBLK):
        raise FileProblem(f"it is {_KINDS.get(kind, 'not a file')}, not an image", exists=True)


def _absent(facts: ImageFacts, want_write: bool) -> ImageFacts:
    directory = os.path.dirname(facts.path) or "."
    if os.path.islink(facts.path):
        target = os.path.realpath(facts.path)
        return evolve(facts, problem=f"it is a link to {target}, which is not there")
    if not os.path.isdir(directory):
        facts = evolve(facts, missing_directory=directory)
        if not want_write:
            return evolve(facts, problem=f"the directory {directory} does not exist")
        # Who makes the image may make its directory: then the nearest one above decides.
        while not os.path.lexists(directory):
            directory = os.path.dirname(directory) or "."
    facts = evolve(facts, free_space=free_space(directory))
    if want_write and not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        told = why_not(directory, PermissionError(errno.EACCES, ""), write=True)
        return evolve(facts, problem=told.message, hint=told.hint)
    return facts


def _look(fd: int, facts: ImageFacts, want_write: bool) -> ImageFacts:
    size = os.lseek(fd, 0, os.SEEK_END)
    facts = evolve(facts, allocated=os.fstat(fd).st_blocks * 512)
    facts = evolve(facts, file_size=size, free_space=free_space(os.path.dirname(facts.path) or "."))
    if want_write and not facts.writable:
        told = why_not(facts.path, PermissionError(errno.EACCES, ""), write=True)
        facts = evolve(facts, problem=told.message, hint=told.hint)
    try:
        return _with_header(facts, read_header(fd, size))
    except ImageError as error:
        return evolve(facts, format="qcow2", problem=f"it is damaged: {error}")


def _with_header(facts: ImageFacts, header: ImageHeader) -> ImageFacts:
    facts = evolve(
        facts,
        format=header.format,
        virtual_size=header.virtual_size,
        backing=_text(header.backing),
        backing_format=_text(header.backing_format),
        data_file=_text(header.data_file),
        corrupt=header.corrupt,
        encrypted=header.encrypted,
        internal_snapshots=header.snapshots,
    )
    if header.backing is None or facts.backing is None:
        return facts
    try:
        return evolve(facts, backing_path=backing_path(facts.path, header.backing))
    except ImageError as error:
        return evolve(facts, problem=facts.problem or str(error))


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode(errors="backslashreplace")
