"""What the verbs that work on profiles share: finding them, asking, showing findings."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from qlaunch.cli import output
from qlaunch.errors import NotFoundError, ProfileError, QlaunchError, RefusedError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    from qlaunch.machine.files import Definition
    from qlaunch.machine.prepare import Prepared

    T = TypeVar("T")

ASK_TIMEOUT = 2.0


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add `--set` to `parser`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value, as for `up`; the profile stays as it is (again for more)",
    )


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; Ctrl-C cancels it and lets it clean up."""
    return asyncio.run(work)


def prepared(path: str, overrides: Sequence[str] = (), name: str | None = None) -> Prepared:
    """The plan of the profile at `path`, as a start would make it now.

    Raises: ProfileError, NotFoundError, HostError.
    """
    from qlaunch.machine.prepare import prepare

    return wait_for(prepare(path, name=name, overrides=overrides))


def machine_of(word: str) -> Definition:
    """The machine that `word` (a name or the path of a profile) means; a name may have lost its
    profile and still have files.

    Raises: NotFoundError, UsageError, ProfileError.
    """
    from qlaunch.machine.files import definition

    try:
        return definition(word, paths.find_profile(word))
    except NotFoundError:
        if "/" in word or word.endswith(".toml"):
            raise
        folders = (paths.machine_data(word), paths.machine_state(word))
        if not any(os.path.lexists(folder) for folder in folders):
            raise
        return definition(word, None)


def source_of(path: str) -> str:
    """Whose profile it is: `yours`, `system`, `shipped`, or `file` for one without a name."""
    folder = os.path.dirname(os.path.abspath(path))
    kinds = dict(zip(reversed(paths.profile_dirs()), ("shipped", "system", "yours"), strict=True))
    return kinds.get(folder, "file")


def shown(path: str) -> str:
    """`path` in a list: quoted where it holds what would break the line."""
    home = os.path.join(os.path.expanduser("~"), "")
    short = f"~/{path[len(home) :]}" if path.startswith(home) and len(home) > 2 else path
    return short if short.isprintable() else repr(path)


def may_ask() -> bool:
    """Whether there is somebody to answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str, answers: str) -> str:
    """The letter of `answers` that the user types first; the last one when the input ends."""
    while True:
        print(f"{output.clean(question)} [{'/'.join(answers)}] ", end="", file=sys.stderr)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            return answers[-1]
        if (letter := line.strip().lower()[:1]) and letter in answers:
            return letter


def confirm(question: str, *, yes: bool) -> None:
    """Nothing, when the user agrees or has said `--yes`.

    Raises: RefusedError otherwise.
    """
    if yes:
        return
    if not may_ask():
        raise RefusedError("nobody can be asked here", hint="--yes does it without asking")
    if ask(question, "yn") != "y":
        raise RefusedError("nothing was changed")


def finding_of(error: QlaunchError) -> list[dict[str, Any]]:
    """A profile's error and what it brought along, in the shape of a plan's findings."""
    whole = [error, *(error.more if isinstance(error, ProfileError) else ())]
    found = []
    for one in whole:
        is_profile = isinstance(one, ProfileError)
        found.append(
            {
                "level": "error",
                "where": one.where if isinstance(one, ProfileError) else "",
                "message": one.text if isinstance(one, ProfileError) else one.message,
                "hint": one.hint,
                "cause": "profile" if is_profile else one.kind,
            }
        )
    return found


def findings(
    path: str, overrides: Sequence[str] = (), name: str | None = None
) -> tuple[str, list[dict[str, Any]]]:
    """The machine's name and everything that is wrong or doubtful about the profile at `path`.

    A machine that runs holds its own images and ports: that is nothing wrong.
    """
    from qlaunch.machine.files import definition
    from qlaunch.machine.held import running_pid

    try:
        result = prepared(path, overrides, name)
    except NotFoundError:
        raise
    except QlaunchError as error:
        try:
            known = name or definition("", path).name
        except QlaunchError:
            known = os.path.basename(path).removesuffix(".toml")
        return known, finding_of(error)
    machine = result.profile.name or ""
    found = [finding.to_dict() for finding in result.resolution.findings]
    try:
        pid = running_pid(machine)
    except QlaunchError:
        pid = None
    if pid is not None:
        found = [each for each in found if not _is_own(each, machine, pid)]
    return machine, found


def _is_own(finding: dict[str, Any], machine: str, pid: int) -> bool:
    words = str(finding["message"]).replace("(", " ").replace(")", " ").replace(",", " ").split()
    told = " ".join(words)
    holder = f"pid {pid}" in told or f"machine {machine}" in told
    return finding["cause"] == "conflict" and holder


def print_findings(
    found: Sequence[dict[str, Any]], *, rename: Callable[[str], str] = str, stdout: bool = False
) -> None:
    """Print findings, errors first, each with its hint."""
    stream = sys.stdout if stdout else sys.stderr
    color = output.colored(stream)
    colors = {"error": output.RED, "warning": output.YELLOW}
    for each in sorted(found, key=lambda finding: finding["level"]):
        level = str(each["level"])
        where = f"{each['where']}: " if each["where"] else ""
        text = output.clean(rename(f"{where}{each['message']}"), keep="\n")
        print(f"{output.paint(level, colors.get(level, ''), on=color)}: {text}", file=stream)
        if each["hint"]:
            print(f"  hint: {output.clean(rename(str(each['hint'])), keep=chr(10))}", file=stream)
    stream.flush()


def counted(number: int, word: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def states() -> dict[str, str]:
    """The state of every machine that runs: from a supervisor that answers within two seconds,
    else from the notes that each start leaves."""
    from qlaunch.control import client
    from qlaunch.machine.held import running_pid
    from qlaunch.store import machines

    found: dict[str, str] = {}
    for name in machines.running_names():
        try:
            running = running_pid(name) is not None
        except QlaunchError:
            running = True
        if running:
            found[name] = "running"
    try:
        connection = client.connect()
    except QlaunchError:
        connection = None
    if connection is not None:
        with connection:
            connection.socket.settimeout(ASK_TIMEOUT)
            try:
                reply = connection.ask("ps", {})
                found |= {each["name"]: each["state"] for each in reply["machines"]}
            except (QlaunchError, OSError, json.JSONDecodeError, KeyError, TypeError):
                pass
    return found
