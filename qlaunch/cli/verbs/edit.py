"""`qlaunch edit`."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile

from qlaunch.cli import definitions, output
from qlaunch.errors import ConflictError, HostError, ProfileError, QlaunchError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

    Check = Callable[[str, str], list[dict[str, Any]]]

_EDITORS = ("sensible-editor", "vi", "vim", "nano", "emacs")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open a profile in your editor ($VISUAL, $EDITOR, vi or nano) and check it afterwards.\n"
        "With mistakes in it you are asked what to do; the profile changes only when you are\n"
        "done. Of a profile that is not yours it makes a copy that is."
    )
    parser.epilog = "examples:\n  qlaunch edit xp\n  EDITOR=nano qlaunch edit xp"
    parser.add_argument("profile", metavar="PROFILE", help="a profile's name, or its file's path")


def run(args: argparse.Namespace) -> int:
    path = paths.find_profile(args.profile)
    status = edit(path, quiet=args.quiet or args.json)
    if args.json:
        output.print_json({"file": _target(path)})
    return status


def edit(path: str, *, quiet: bool) -> int:
    """Let the user edit the profile at `path`.

    Raises: ProfileError when it has mistakes and nobody can be asked, ConflictError when it was
    changed meanwhile, HostError.
    """
    target = _target(path)
    with open(path, "rb") as file:
        before = file.read()
    if edit_file(path, target, _check, quiet=quiet):
        _tell_running(target, before, quiet=quiet)
    return 0


def edit_file(path: str, target: str, check: Check, *, quiet: bool) -> bool:
    """Let the user edit the file `path`, into `target`; whether anything was changed. `check` says
    what is wrong with a copy of the second. Raises: as `edit`."""
    with open(path, "rb") as file:
        before = file.read()
    _tell_unfinished(target)
    if target != path:
        output.note(f"{path} is not yours: it is copied to {target}", quiet=quiet)
    with _copy(target, before) as copy:
        after = _edited(copy, target, before, check, quiet=quiet)
        if after is None:
            return False
        try:
            _store(path, target, before, after)
        except QlaunchError as error:
            os.rename(copy, kept := f"{target}.mine")
            raise type(error)(error.message, hint=f"your text is in {kept}") from error
    output.note(f"saved {definitions.shown(target)}", quiet=quiet)
    return True


def _target(path: str) -> str:
    """The file that takes the change: the profile itself, or the user's own of that name."""
    from qlaunch.machine.names import profile_of

    source = definitions.source_of(path)
    if source == "shipped" or (source == "system" and not os.access(path, os.W_OK)):
        return profile_of(os.path.basename(path).removesuffix(".toml"))
    return path


@contextlib.contextmanager
def _copy(target: str, data: bytes) -> Iterator[str]:
    """A hidden file beside `target`, where relative paths mean the same; gone afterwards."""
    folder, prefix = os.path.dirname(target), _prefix(target)
    try:
        os.makedirs(folder, exist_ok=True)
        handle, copy = tempfile.mkstemp(prefix=prefix, suffix=".toml", dir=folder)
    except OSError as error:
        raise HostError(f"cannot write in {folder}: {error.strerror}") from error
    try:
        with open(handle, "wb") as file:
            file.write(data)
        yield copy
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)


def _prefix(target: str) -> str:
    return f".{os.path.basename(target).removesuffix('.toml')}.edit-"


def _tell_unfinished(target: str) -> None:
    folder = os.path.dirname(target)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_prefix(target)):
                output.note(f"another edit is open or was interrupted: {folder}/{name}")


def _edited(copy: str, target: str, before: bytes, check: Check, *, quiet: bool) -> bytes | None:
    """What the user made of it, good or wanted as it is; None when nothing shall change."""
    while True:
        _run_editor(copy)
        with open(copy, "rb") as file:
            after = file.read()
        if after == before:
            output.note("nothing was changed", quiet=quiet)
            return None
        found = check(copy, target)
        wrong = [each for each in found if each["level"] == "error" and each["cause"] == "profile"]
        if not wrong:
            definitions.print_findings([] if quiet else found)
            return after
        if not definitions.may_ask():
            raise _as_error(wrong)
        definitions.print_findings(wrong)
        match definitions.ask("e: edit again, k: keep it anyway, d: discard it", "ekd"):
            case "k":
                return after
            case "d":
                output.note("nothing was changed", quiet=quiet)
                return None


def _check(copy: str, target: str) -> list[dict[str, Any]]:
    """What is wrong with the copy, told as if it were the profile."""
    from qlaunch.profile.toml import parse_toml

    name: str | None = os.path.basename(target).removesuffix(".toml")
    try:
        with open(copy, "rb") as file:
            if "name" in parse_toml(file.read().decode()):
                name = None
    except (ValueError, RecursionError):
        pass
    _machine, found = definitions.findings(copy, name=name)
    for each in found:
        for key in ("where", "message", "hint"):
            if each[key]:
                each[key] = str(each[key]).replace(copy, target)
    return found


def _as_error(wrong: list[dict[str, Any]]) -> ProfileError:
    first, *others = (
        ProfileError(each["where"], each["message"], hint=each["hint"]) for each in wrong
    )
    return ProfileError(first.where, first.text, hint=first.hint, more=tuple(others))


def _run_editor(copy: str) -> None:
    """Raises: HostError when there is no editor, QlaunchError when it fails."""
    said = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        words = shlex.split(said) if said else []
    except ValueError as error:
        raise HostError(f"the editor {said!r} is no command: {error}") from None
    found = words or [name for name in _EDITORS if shutil.which(name)][:1]
    if not found:
        raise HostError("there is no editor", hint="export EDITOR=nano, or whichever you like")
    # Ctrl-C belongs to the editor. A handler, not SIG_IGN: that would be inherited.
    former = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        status = subprocess.run([*found, copy], check=False).returncode
    except OSError as error:
        raise HostError(
            f"the editor {found[0]!r} cannot be started: {error.strerror}",
            hint="export EDITOR=nano, or whichever you like",
        ) from error
    finally:
        signal.signal(signal.SIGINT, former)
    if status:
        raise QlaunchError(f"the editor ended with status {status}; nothing was changed")


def _store(path: str, target: str, before: bytes, after: bytes) -> None:
    from qlaunch.machine import texts
    from qlaunch.machine.held import definitions as alone

    with alone():
        if target != path:
            texts.write_new(target, after.decode(errors="surrogateescape"))
            return
        try:
            with open(path, "rb") as file:
                now = file.read()
        except OSError:
            now = b""
        if now != before:
            raise ConflictError(f"{path} was changed by somebody else meanwhile")
        texts.replace(path, after)


def _tell_running(target: str, before: bytes, *, quiet: bool) -> None:
    from qlaunch.machine.files import definition
    from qlaunch.machine.held import running_pid
    from qlaunch.profile.load import loads

    with contextlib.suppress(QlaunchError):
        was, now = loads(before, target).name or "", definition("", target).name
        if was != now and os.path.lexists(paths.machine_data(was)):
            output.note(
                f"the machine was called {was} and is {now} now: its disks stay with {was}; "
                f"`qlaunch rename` takes them along"
            )
        if running_pid(now) is not None:
            output.note(f"{now} is running: the change counts from its next start", quiet=quiet)
