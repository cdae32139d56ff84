"""What the guest starts from: boot indexes now and after the first reset, a kernel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from qlaunch.plan.draft import Draft
from qlaunch.plan.model import BootPlan, Device, Disk, Drive, Nic
from qlaunch.profile.tables import BOOT_KINDS, BOOT_ORDER

_FLOPPY_TURN = 1000
_NEVER = -1


@frozen(kw_only=True)
class Candidates:
    """The devices that can be booted from: profile id -> device id, by kind."""

    kinds: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, disks: Sequence[Disk], drives: Sequence[Drive], nics: Sequence[Nic]) -> Candidates:
        return cls(
            kinds={
                "disk": tuple(disk.id for disk in disks),
                "cdrom": tuple(drive.id for drive in drives if drive.kind == "cdrom"),
                "floppy": tuple(drive.id for drive in drives if drive.kind == "floppy"),
                "network": tuple(nic.id for nic in nics),
            }
        )

    def expand(self, word: str) -> tuple[str, ...] | None:
        """The ids that `word`, a kind or an id, means; None when it is neither."""
        if word in self.kinds:
            return self.kinds[word]
        return (word,) if any(word in ids for ids in self.kinds.values()) else None

    def ids(self) -> list[str]:
        return [ident for ids in self.kinds.values() for ident in ids]


def network_boot(draft: Draft) -> bool:
    """Whether a network card is in the boot order."""
    ids = {nic.id for nic in draft.profile.nic}
    words = {*draft.profile.boot.order, draft.profile.boot.once or ""}
    return bool(words & (ids | {"network"}))


@frozen(kw_only=True)
class Order:
    """Turns (boot indexes) by profile id: for the first boot, and from the first reset on."""

    first: Mapping[str, int]
    later: Mapping[str, int]
    floppies: tuple[str, ...]

    def of_device(self, device: Device) -> Device:
        """`device` with its boot index."""
        index = self.first.get(device.id.removesuffix("-dev"))
        if index is None or device.driver == "floppy":
            return device
        return evolve(device, props={**device.props, "bootindex": index})

    def globals(self) -> tuple[tuple[str, str, str], ...]:
        """QEMU 7.2: a floppy drive has no boot index; its controller, part of the board, has one
        for each drive."""
        return tuple(
            ("isa-fdc", f"bootindex{letter}", str(self.first[ident]))
            for letter, ident in zip("AB", self.floppies, strict=False)
            if ident in self.first
        )

    def changes(self) -> dict[str, int]:
        """The boot indexes that devices get for all boots after the first; none where they are
        the same. Who is tried only once gets none (-1)."""
        if self.first == self.later:
            return {}
        gone = (ident for ident in self.first if ident not in self.later)
        turns = {**dict.fromkeys(gone, _NEVER), **self.later}
        return {f"{ident}-dev": n for ident, n in turns.items() if ident not in self.floppies}


def order(draft: Draft, candidates: Candidates) -> Order:
    """Who is tried at which turn. A turn is never 0: that is `boot.kernel`'s."""
    wish, floppies = draft.profile.boot, candidates.kinds["floppy"]
    later = _expand(draft, candidates, wish.order or BOOT_ORDER, "boot.order")
    first = later if not wish.once or once_is_done(draft) else _once_first(draft, candidates, later)
    # The boot index of a floppy cannot be changed while QEMU runs, so the others go around it;
    # one that is tried only once comes last from then on.
    anchors = [ident for ident in later if ident in floppies]
    anchors += [ident for ident in first if ident in floppies and ident not in anchors]
    later = [*later, *(ident for ident in anchors if ident not in later)]
    if [ident for ident in first if ident in anchors] != [i for i in anchors if i in first]:
        draft.notes.error(
            "boot.once",
            f"{wish.once} cannot come before the other floppy drive for one boot only",
            hint="name it first in boot.order too",
        )
    fixed = {ident: (at + 1) * _FLOPPY_TURN for at, ident in enumerate(anchors)}
    return Order(first=_turns(first, fixed), later=_turns(later, fixed), floppies=floppies)


def _once_first(draft: Draft, candidates: Candidates, later: Sequence[str]) -> list[str]:
    once = draft.profile.boot.once or ""
    found = _expand(draft, candidates, (once,), "boot.once")
    if not found and once in BOOT_KINDS:
        draft.notes.error(
            "boot.once",
            f"there is no {once} to boot from",
            hint=f"add a [[{'nic' if once == 'network' else once}]], or take boot.once out",
        )
    return [*found, *(ident for ident in later if ident not in found)]


def _turns(ordered: Sequence[str], fixed: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    last = 0
    for ident in ordered:
        last = fixed.get(ident, last + 1)
        found[ident] = last
    return found


def once_is_done(draft: Draft) -> bool:
    """Whether the profile's `boot.once` has been used up by an earlier start. One given with
    `--set` counts again each time: the user asks for it now."""
    return draft.leases.once_done == draft.profile.boot.once and not once_said_now(draft)


def once_said_now(draft: Draft) -> bool:
    """Whether `boot.once` is the command line's: then leases keep what they know of the file's."""
    return draft.profile.origins.get("boot.once", "").startswith("--set")


def _expand(draft: Draft, candidates: Candidates, words: Sequence[str], key: str) -> list[str]:
    found: list[str] = []
    for word in words:
        ids = candidates.expand(word)
        if ids is None:
            known = [*BOOT_KINDS, *candidates.ids()]
            close = difflib.get_close_matches(word, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            draft.notes.error(key, f"{word!r} is no device to boot from", hint=hint)
        found += [ident for ident in ids or () if ident not in found]
    return found


def boot_plan(draft: Draft, turns: Order) -> BootPlan:
    """The boot options; `turns` puts the devices' own boot indexes on them."""
    wish, later = draft.profile.boot, turns.changes()
    for key in ("kernel", "initrd"):
        path = getattr(wish, key)
        facts = draft.facts.image(path) if path else None
        if facts and (facts.problem or not facts.exists):
            message = facts.problem or f"{path} is not there"
            draft.notes.error(f"boot.{key}", message, hint=facts.hint)
    if (wish.initrd or wish.append) and not wish.kernel:
        draft.notes.error(
            "boot.initrd" if wish.initrd else "boot.append",
            "has no effect without boot.kernel",
            hint="set boot.kernel",
        )
    if wish.menu_timeout is not None and not wish.menu:
        draft.notes.warn(
            "boot.menu_timeout", "has no effect without boot.menu", hint="set boot.menu = true"
        )
    return BootPlan(
        menu=bool(wish.menu),
        menu_timeout=wish.menu_timeout,
        kernel=wish.kernel,
        initrd=wish.initrd,
        append=wish.append,
        once=wish.once if later and not once_said_now(draft) else None,
        later=later,
    )
