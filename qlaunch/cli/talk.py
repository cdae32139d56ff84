"""How a verb reaches the supervisor, and which machines are meant. On the thin client's path."""

from __future__ import annotations

import os

from qlaunch.control import client
from qlaunch.errors import NotFoundError, PhaseError, QlaunchError, SessionLostError, UsageError
from qlaunch.store import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Work = Callable[[str], int]

HERE = "qlaunch.toml"
# A `qlaunch run` that was stopped (Ctrl-Z) must not keep `ps` from answering.
FOREGROUND_TIMEOUT = 2.0
_FOREGROUND = "run-"
_SOCKET = ".sock"


def left_running(name: str = "") -> set[str]:
    """The machines (or `name` alone) whose QEMU a supervisor started and has not seen end.

    A supervisor that was killed leaves this behind; the next one adopts them.
    """
    folder = os.path.join(paths.state_dir(), "machines")
    try:
        names = [name] if name else os.listdir(folder)
    except OSError:
        return set()
    return {each for each in names if os.path.exists(os.path.join(folder, each, "run.json"))}


def ask_machine(
    verb: str,
    name: str,
    args: dict[str, Any] | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Any:
    """Ask for `verb` on the machine `name`; starts a supervisor only where there is one to adopt.

    Raises: PhaseError or NotFoundError when it cannot be running; what the supervisor answers.
    """
    request = {"name": name, **(args or {})}
    with open_machine(name) as connection:
        try:
            return connection.ask(verb, request, progress)
        except SessionLostError:
            if not _just_ended(name):
                raise
    raise not_running(name)


def _just_ended(name: str) -> bool:
    """Whether the supervisor hung up because nothing runs any more: it ends itself then, perhaps
    just when somebody comes."""
    connection = client.connect(name)
    if connection is not None:
        connection.socket.close()
    return connection is None and not left_running(name)


def open_machine(name: str) -> client.Connection:
    """A connection to the supervisor that hosts `name`. Raises: as `ask_machine`."""
    paths.check_name(name)
    connection = client.connect(name)
    if connection is None and left_running(name):
        connection = client.open_connection(name=name)
    if connection is None:
        raise not_running(name)
    return connection


def not_running(name: str) -> QlaunchError:
    """The error for a machine that is not running: NotFoundError when nobody ever heard of it."""
    if not os.path.isdir(paths.machine_state(name)):
        try:
            paths.find_profile(name)
        except NotFoundError as error:
            return error
    return PhaseError(f"{name} is not running", hint=f"`qlaunch up {name}` starts it")


def machines(verb: str = "ps") -> dict[str, Any]:
    """The supervisor's `ps`, with the machines of foreground supervisors (`qlaunch run`) added; or
    another verb's answer of the same form."""
    found: list[dict[str, Any]] = []
    try:
        entries = sorted(os.listdir(paths.runtime_dir()))
    except OSError:
        entries = []
    for entry in entries:
        if entry.startswith(_FOREGROUND) and entry.endswith(_SOCKET):
            found += _foreground(verb, entry[len(_FOREGROUND) : -len(_SOCKET)])
    reply: dict[str, Any] = {"supervisor": None, "machines": []}
    connection = client.connect()
    if connection is None and left_running() - {each["name"] for each in found}:
        connection = client.open_connection()
    if connection is not None:
        with connection:
            try:
                reply = connection.ask(verb, {})
            except SessionLostError:
                if not _just_ended(""):
                    raise
    known = {each["name"] for each in reply["machines"]}
    reply["machines"] += [each for each in found if each["name"] not in known]
    return reply


def _foreground(verb: str, name: str) -> list[dict[str, Any]]:
    try:
        connection = client.connect(name)
        if connection is None:
            return []
        with connection:
            connection.socket.settimeout(FOREGROUND_TIMEOUT)
            answer: list[dict[str, Any]] = connection.ask(verb, {})["machines"]
            return answer
    except (QlaunchError, TimeoutError):
        # It ended just now or hangs; the user's supervisor, which is asked next, knows more.
        return []


def folder() -> str | None:
    """This process's folder, where relative paths after `--set` start; None when it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return None


def is_unit() -> bool:
    """Whether it is a machine's unit of systemd, `qlaunch@NAME.service`, that calls."""
    return bool(os.environ.get("QLAUNCH_UNIT"))


def environment() -> dict[str, str]:
    """This process's environment as far as it can be said in JSON, which is UTF-8."""
    said = {}
    for key, value in os.environ.items():
        try:
            (key + value).encode()
        except UnicodeEncodeError:
            continue
        said[key] = value
    return said


def targets(words: Sequence[str]) -> list[str]:
    """The machines that `words` mean: names, globs over what runs, paths of profiles.

    No word at all means ./qlaunch.toml, as with compose. Raises: UsageError, NotFoundError.
    """
    found: dict[str, None] = {}
    running: list[dict[str, Any]] | None = None
    for word in words or here():
        if not is_glob(word) and not is_path(word):
            found[paths.check_name(word)] = None
            continue
        if running is None:
            running = machines()["machines"]
        matching = [each["name"] for each in running if matches(word, each)]
        if not matching:
            raise NotFoundError(
                f"no machine that runs matches {word!r}", hint="`qlaunch ps` shows what runs"
            )
        found.update(dict.fromkeys(matching))
    return list(found)


def matches(word: str, machine: dict[str, Any]) -> bool:
    """Whether `word` (a name, a glob or a profile's path) means `machine`."""
    if is_path(word):
        return machine.get("profile") == os.path.abspath(os.path.expanduser(word))
    if is_glob(word):
        import fnmatch

        return fnmatch.fnmatchcase(machine["name"], word)
    return bool(machine["name"] == word)


def is_glob(word: str) -> bool:
    return any(letter in word for letter in "*?[")


def is_path(word: str) -> bool:
    return "/" in word or word.endswith(".toml")


def here() -> list[str]:
    """The profile in the current folder, for a command that names none. Raises: UsageError."""
    if not os.path.isfile(HERE):
        raise UsageError(
            "which machine?", hint=f"name one, or go to a folder with a {HERE}; `qlaunch list`"
        )
    return [f"./{HERE}"]


def for_each(names: Sequence[str], work: Work, *, as_json: bool = False) -> int:
    """Call `work` for every name, all at once; each error is told as it comes.

    Returns: the exit status of the one that failed; 1 when several failed in different ways.
    Raises: the error itself when there is one name only.
    """
    if len(names) == 1:
        return work(names[0])
    import threading

    from qlaunch.cli import output

    statuses: list[int] = []
    broken: list[BaseException] = []

    def one(name: str) -> None:
        try:
            statuses.append(work(name))
        except QlaunchError as error:
            statuses.append(error.exit_status)
            if as_json:
                output.print_json({"name": name, "error": error.to_dict()})
            else:
                output.complain(error, name=name)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            broken.append(error)

    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    failed = {status for status in statuses if status}
    return failed.pop() if len(failed) == 1 else int(bool(failed))
