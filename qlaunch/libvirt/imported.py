"""What an import gives, whatever it was of."""

from __future__ import annotations

from attrs import frozen

from qlaunch.libvirt.report import Entry


@frozen(kw_only=True)
class Imported:
    """A file of qlaunch's, what it is called, and what could not be carried over as it was.

    `kind` is `machine`, `network`, `snapshot` (the text is a command) or `part` (the text belongs
    into a profile).
    """

    name: str
    text: str
    report: tuple[Entry, ...]
    kind: str = "machine"
    # What a machine is plugged into: networks that must be there.
    networks: tuple[str, ...] = ()

    @property
    def unsupported(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.report if entry.group == "not supported")
