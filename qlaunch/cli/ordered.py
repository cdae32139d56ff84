"""Several machines in the order that their profiles ask for (`[lifecycle] after`)."""

from __future__ import annotations

import os
import threading
import time

from qlaunch.cli import talk
from qlaunch.control import client
from qlaunch.errors import PhaseError, ProfileError, QlaunchError
from qlaunch.plan.order import circle, prerequisites, reversed_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qlaunch.cli.talk import Work

    Order = Mapping[str, frozenset[str]]


def starting(after: Mapping[str, Sequence[str]]) -> Order:
    """What each machine waits for when all of them start. Raises: ProfileError."""
    found = prerequisites(after)
    if ring := circle(found):
        raise ProfileError(
            "[lifecycle] after", f"these machines wait for each other: {' -> '.join(ring)}"
        )
    return found


def stopping(after: Mapping[str, Sequence[str]]) -> Order:
    """What each machine waits for when all of them stop; nothing, where they form a circle."""
    found = prerequisites(after)
    if circle(found):
        return dict.fromkeys(found, frozenset())
    return reversed_order(found)


def for_each(
    names: Sequence[str],
    work: Work,
    order: Order,
    *,
    delays: Mapping[str, float] | None = None,
    needs: bool = False,
    as_json: bool = False,
) -> int:
    """`talk.for_each`, where each machine waits until those are done that `order` names, and then
    as long as `delays` says. What `needs` them is not done when one of them failed.

    Returns, raises: as `talk.for_each`.
    """
    done = {name: threading.Event() for name in names}
    failed: set[str] = set()

    def one(name: str) -> int:
        try:
            for other in sorted(order.get(name, ())):
                done[other].wait()
                if needs and other in failed:
                    raise PhaseError(f"not started, for {other}, which it starts after, did not")
            if order.get(name) and delays:
                time.sleep(delays.get(name, 0.0))
            status = work(name)
        except QlaunchError:
            failed.add(name)
            raise
        finally:
            done[name].set()
        if status:
            failed.add(name)
        return status

    return talk.for_each(names, one, as_json=as_json)


# How long a machine that starts with the computer waits for another.
OTHERS_TIMEOUT = 300.0


class Wishes:
    """What the profiles of several machines say about their order. A profile that cannot be read
    says nothing: its start will tell what is wrong with it."""

    def __init__(self, profiles: Mapping[str, str], overrides: Sequence[str]) -> None:
        from qlaunch.profile.load import load

        self.after: dict[str, tuple[str, ...]] = {}
        self.delays: dict[str, float] = {}
        words: dict[str, str] = {}
        for word, path in profiles.items():
            try:
                profile = load(path, overrides=overrides)
            except QlaunchError:
                self.after[word] = ()
                continue
            words[profile.name or word] = word
            self.after[word] = profile.lifecycle.after
            self.delays[word] = profile.lifecycle.start_delay or 0.0
        for word, names in self.after.items():
            self.after[word] = tuple(words.get(name, name) for name in names)


def await_others(wishes: Wishes, word: str, *, quiet: bool) -> None:
    """With the computer each machine is started by a unit of its own: wait until those run that
    `word` starts after and that have a unit that starts, too."""
    from qlaunch.cli import output, service

    manager = "system" if os.geteuid() == 0 else "user"
    units = set(service.enabled(manager))
    others = [name for name in wishes.after[word] if f"qlaunch@{name}.service" in units]
    for other in others:
        request = {"name": other, "for": "running", "timeout": OTHERS_TIMEOUT}
        try:
            client.ask("wait", request, name=other)
        except QlaunchError as error:
            output.note(f"{word}: not waiting for {other}: {error.message}", quiet=quiet)
    if others:
        time.sleep(wishes.delays.get(word, 0.0))
