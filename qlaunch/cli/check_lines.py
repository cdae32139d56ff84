"""One thing that was looked at, as `doctor` and `service status` tell it."""

from __future__ import annotations

from attrs import frozen

OK, WARN, FAIL = "ok", "warn", "fail"


@frozen(kw_only=True)
class Check:
    """One line: `level` is ok, warn (something will not work) or fail (nothing will)."""

    level: str
    topic: str
    message: str
    hint: str | None = None

    def to_dict(self) -> dict[str, object]:
        return {
            "level": self.level,
            "topic": self.topic,
            "message": self.message,
            "hint": self.hint,
        }
