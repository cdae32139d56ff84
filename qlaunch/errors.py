"""What can go wrong, one class for each answer to "who must act?".

Every error has a message that says where and what, and may have a hint that says what to do
next. `exit_status` is what the command line ends with; `kind` is the same answer for `--json`.
This module is on the thin client's path: it imports nothing.
"""

from __future__ import annotations


class QlaunchError(Exception):
    """The root of everything that qlaunch raises on purpose."""

    kind = "failed"
    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_dict(self) -> dict[str, object]:
        """The error as plain data, as `--json` prints it and the control socket carries it."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}


class UsageError(QlaunchError):
    """The command line is wrong; its author must act."""

    kind = "usage"
    exit_status = 2


class ProfileError(QlaunchError):
    """The profile is wrong; its author must act.

    `where` names file, line and key (`xp.toml:7: disk[0].bus`). `more` carries further findings of
    the same reading, so that one run shows them all.
    """

    kind = "profile"
    exit_status = 2

    def __init__(
        self,
        where: str,
        message: str,
        *,
        hint: str | None = None,
        more: tuple[ProfileError, ...] = (),
    ) -> None:
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.where = where
        self.text = message
        self.more = more

    def to_dict(self) -> dict[str, object]:
        plain = super().to_dict()
        plain["where"] = self.where
        if self.more:
            plain["more"] = [error.to_dict() for error in self.more]
        return plain


class HostError(QlaunchError):
    """This computer lacks something; its administrator must act."""

    kind = "host"


class LaunchError(QlaunchError):
    """QEMU refused to start; its own last words are in the message."""

    kind = "launch"


class CommandError(QlaunchError):
    """QEMU answered a command with an error; `error_class` is QMP's own."""

    kind = "command"

    def __init__(self, message: str, *, error_class: str = "GenericError", hint: str | None = None):
        super().__init__(message, hint=hint)
        self.error_class = error_class


class SessionLostError(QlaunchError):
    """The connection ended before an answer came: the outcome is unknown, ask what is so."""

    kind = "session-lost"


class NoSupervisorError(QlaunchError):
    """No supervisor answers and none could be started."""

    kind = "no-supervisor"
    exit_status = 3


class NotFoundError(QlaunchError):
    """There is no such profile, machine, device or file."""

    kind = "not-found"
    exit_status = 4


class ConflictError(QlaunchError):
    """Something else holds what is needed: an image, a port, a name."""

    kind = "conflict"
    exit_status = 5


class PhaseError(ConflictError):
    """The machine is in a state in which this cannot be done."""

    kind = "phase"


class BusyError(ConflictError):
    """Another operation on the same machine is under way."""

    kind = "busy"


class RefusedError(QlaunchError):
    """Policy or capacity forbids it."""

    kind = "refused"
    exit_status = 6


class TimedOutError(QlaunchError):
    """It was not done within its time limit."""

    kind = "timed-out"
    exit_status = 7


class InternalError(QlaunchError):
    """A bug in qlaunch; the traceback is in the supervisor's log."""

    kind = "internal"


_CLASSES: tuple[type[QlaunchError], ...] = (
    UsageError,
    HostError,
    LaunchError,
    CommandError,
    SessionLostError,
    NoSupervisorError,
    NotFoundError,
    ConflictError,
    PhaseError,
    BusyError,
    RefusedError,
    TimedOutError,
    InternalError,
)
_BY_KIND = {error.kind: error for error in _CLASSES}


def from_dict(plain: dict[str, object]) -> QlaunchError:
    """The error that `to_dict` wrote, with the same class, message, hint and findings."""
    message, hint = str(plain.get("message", "")), plain.get("hint")
    known_hint = str(hint) if hint is not None else None
    if plain.get("kind") == ProfileError.kind:
        where = str(plain.get("where") or "")
        listed = plain.get("more")
        more = tuple(
            error
            for entry in (listed if isinstance(listed, list) else [])
            if isinstance(entry, dict) and isinstance(error := from_dict(entry), ProfileError)
        )
        return ProfileError(
            where,
            message.removeprefix(f"{where}: ") if where else message,
            hint=known_hint,
            more=more,
        )
    known = _BY_KIND.get(str(plain.get("kind")), QlaunchError)
    return known(message, hint=known_hint)
