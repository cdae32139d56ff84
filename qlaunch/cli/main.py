"""The front door: finds the verb, imports its module, turns every error into words and a status."""

from __future__ import annotations

import os
import sys

from qlaunch.cli import registry
from qlaunch.errors import ProfileError, QlaunchError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

FLAGS = ("--json", "-q", "--quiet", "-v", "--verbose", "--no-color")
INTERRUPTED = 130
PIPE_CLOSED = 141  # 128 + SIGPIPE, what a shell reports for a program that the pipe's end killed


def script() -> NoReturn:
    """The `qlaunch` program."""
    _open_missing()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A guest's text must not end the program on a terminal that knows only ASCII.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))


def _open_missing() -> None:
    """Open standard streams that the caller closed: the next socket would take their place."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is fd
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r"))


def main(argv: list[str]) -> int:
    """Carry out one command line and return its exit status."""
    try:
        status = _dispatch(argv)
        sys.stdout.flush()
    except QlaunchError as error:
        _tell(error, argv)
        return error.exit_status
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered would raise once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _tell(QlaunchError(f"{where}{error.strerror or error}"), argv)
        _traceback(argv)
        _flush_or_forget()
        return QlaunchError.exit_status
    except Exception as error:  # noqa: BLE001 - one of the two doors where this is right
        _tell(_bug(error), argv)
        _traceback(argv)
        return QlaunchError.exit_status
    return status


def _flush_or_forget() -> None:
    """Write what is still buffered; what cannot be written must not raise again at Python's end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(argv: list[str]) -> int:
    before: list[str] = []
    for at, word in enumerate(argv):
        if word in FLAGS:
            before.append(word)
        elif word == "--version":
            return _version(argv)
        elif word in ("-h", "--help"):
            return _help()
        elif word.startswith("-"):
            raise UsageError(
                f"no option {word!r} here", hint="`qlaunch --help` shows what there is"
            )
        elif word == "__names":
            return _names()
        elif word == "__networks":
            return _networks()
        else:
            return _run(word, before + argv[at + 1 :])
    return _help()


def _run(word: str, rest: list[str]) -> int:
    from qlaunch.cli import parsers

    if word not in registry.VERBS:
        meant = registry.closest(word)
        raise UsageError(
            f"no command {word!r}",
            hint=f"did you mean {meant!r}?" if meant else "`qlaunch --help` shows what there is",
        )
    try:
        "".join(rest).encode()
    except UnicodeEncodeError:
        raise UsageError("the command line is not UTF-8") from None
    module = parsers.load(registry.VERBS[word])
    args: argparse.Namespace = parsers.arguments(registry.VERBS[word], module, rest)
    status: int = module.run(args)
    return status


def _version(argv: list[str]) -> int:
    from qlaunch import __version__

    print(f'{{"version":"{__version__}"}}' if "--json" in argv else f"qlaunch {__version__}")
    return 0


def _help() -> int:
    from qlaunch.cli.overview import overview

    print(overview())
    return 0


def _names() -> int:
    """The names that completion offers: profiles, and machines that have left a state."""
    from qlaunch.store import paths

    names = set(paths.profile_names())
    try:
        with os.scandir(os.path.join(paths.state_dir(), "machines")) as entries:
            names.update(entry.name for entry in entries)
    except OSError:
        pass
    print(*sorted(name for name in names if set(name) <= paths.NAME_LETTERS), sep="\n")
    return 0


def _networks() -> int:
    """The names of networks that completion offers."""
    from qlaunch.store import paths

    folders = [*paths.network_dirs(system=True), *paths.network_dirs(system=False)]
    print(*sorted(paths.network_files(folders)), sep="\n")
    return 0


def _tell(error: QlaunchError, argv: list[str]) -> None:
    from qlaunch.cli import output

    try:
        words = argv[: argv.index("--")] if "--" in argv else argv
        if "--json" in words:
            output.print_json({"error": error.to_dict()})
            sys.stdout.flush()
            return
        findings: list[QlaunchError] = [error]
        if isinstance(error, ProfileError):
            findings += error.more
        for finding in findings:
            output.complain(finding)
    except OSError:
        pass  # Nobody listens any more; the exit status still tells.


def _bug(error: Exception) -> QlaunchError:
    return QlaunchError(
        f"this is a bug in qlaunch: {type(error).__name__}: {error}",
        hint="run it again with -v for the traceback, and report it",
    )


def _traceback(argv: list[str]) -> None:
    if "-v" in argv or "--verbose" in argv or os.environ.get("QLAUNCH_DEBUG") == "1":
        import traceback

        traceback.print_exc()
