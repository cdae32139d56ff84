"""What the plan has to say about a wish: errors and warnings, each at its place in the profile."""

from __future__ import annotations

from typing import Literal

from attrs import Factory, define, frozen

from qlaunch.errors import ConflictError, HostError, ProfileError, QlaunchError, RefusedError
from qlaunch.profile.model import Profile

Cause = Literal["profile", "host", "conflict", "refused"]


@frozen(kw_only=True)
class Finding:
    """One remark. `where` is `FILE:LINE: KEY`; `cause` says who must act."""

    level: Literal["error", "warning"]
    where: str
    message: str
    hint: str | None = None
    cause: Cause = "profile"

    def to_error(self, more: tuple[ProfileError, ...] = ()) -> QlaunchError:
        """The finding as the exception that `up` raises, with `more` of them in it."""
        if self.cause == "profile":
            return ProfileError(self.where, self.message, hint=self.hint, more=more)
        error = {"host": HostError, "conflict": ConflictError, "refused": RefusedError}[self.cause]
        words = [f"{self.where}: {self.message}", *(f"also {other.message}" for other in more)]
        return error("\n".join(words), hint=self.hint)

    def to_dict(self) -> dict[str, object]:
        return {
            "level": self.level,
            "where": self.where,
            "message": self.message,
            "hint": self.hint,
            "cause": self.cause,
        }


@define
class Notes:
    """Collects findings while a plan is made; knows where each key was written."""

    profile: Profile
    findings: list[Finding] = Factory(list)

    def error(
        self, key: str, message: str, *, hint: str | None = None, cause: Cause = "profile"
    ) -> None:
        self._add("error", key, message, hint, cause)

    def warn(
        self, key: str, message: str, *, hint: str | None = None, cause: Cause = "profile"
    ) -> None:
        self._add("warning", key, message, hint, cause)

    def _add(
        self,
        level: Literal["error", "warning"],
        key: str,
        message: str,
        hint: str | None,
        cause: Cause,
    ) -> None:
        finding = Finding(
            level=level, where=self.profile.where(key), message=message, hint=hint, cause=cause
        )
        if finding not in self.findings:
            self.findings.append(finding)
