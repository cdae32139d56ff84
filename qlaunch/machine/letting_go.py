"""Devices that a guest must let go of before they are out."""

from __future__ import annotations

from attrs import frozen

from qlaunch.argv.graph import Command
from qlaunch.errors import CommandError, PhaseError, RefusedError, TimedOutError
from qlaunch.machine.bench import Bench
from qlaunch.qmp.session import Session

# How long a guest has, unless the user says otherwise. Linux takes half a second, Windows a few.
DETACH_TIMEOUT = 15.0
_ALREADY = "already in the process of unplug"


@frozen(kw_only=True)
class Parting:
    """What is to go: its name for people, QEMU's device, the command that asks for it, and what a
    person can do when the guest refuses."""

    ident: str
    device: str
    command: Command
    refusal: str


async def present(session: Session) -> set[str]:
    """The devices that QEMU has, by id."""
    found = await session.execute("qom-list", {"path": "/machine/peripheral"})
    return {str(entry["name"]) for entry in found}


async def wait(bench: Bench, parting: Parting, timeout: float) -> None:
    """Ask for a device to be taken out and wait until it is.

    Raises: TimedOutError when it was not within `timeout` seconds: it may still be; RefusedError
    when the guest said no; CommandError.
    """
    match = {"device": parting.device}
    with bench.session.expect(
        "DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", match=match
    ) as answers:
        try:
            await bench.execute([parting.command])
        except CommandError as error:
            if _ALREADY not in error.message:
                raise
        bench.step("detach: asked")
        try:
            answer = await answers.get(timeout=timeout)
        except TimedOutError:
            raise _not_let_go(bench, parting.ident, timeout) from None
    if answer.name != "DEVICE_DELETED":
        raise RefusedError(
            f"{bench.name}: the guest refuses to let go of {parting.ident}", hint=parting.refusal
        )


def _not_let_go(bench: Bench, ident: str, timeout: float) -> TimedOutError:
    return TimedOutError(
        f"{bench.name}: the guest has not let go of {ident} within {timeout:g} s",
        hint="it has been asked: it is detached as soon as the guest lets go, or at its next"
        f" reset; until then `qlaunch status {bench.name}` shows it. A guest that has just"
        " started, or has no driver, does not answer",
    )


async def check_can_answer(bench: Bench, ident: str) -> None:
    """Raises: PhaseError when the guest cannot let go of anything."""
    assert bench.machine is not None
    state = await bench.machine.run_state()
    if state != "running":
        raise PhaseError(
            f"{bench.name} is {state}: its guest cannot let go of {ident}",
            hint=f"`qlaunch resume {bench.name}` first",
        )
