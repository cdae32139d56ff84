"""The verb of a guest's addresses."""

from __future__ import annotations

from typing import Any

from qlaunch.machine import reach
from qlaunch.supervisor.forwards import rows
from qlaunch.supervisor.request import Request


async def addresses(request: Request) -> Any:
    """The addresses of every card, and from where each is known."""
    actor = await request.actor()
    plan = actor.running().plan
    found = await reach.reaches(plan)
    return {
        "name": actor.name,
        "ssh": {"user": plan.ssh_user, "port": plan.ssh_port},
        "nics": [about(each) for each in found],
    }


def about(each: reach.Reach) -> dict[str, Any]:
    nic = each.nic
    return {
        "id": nic.id,
        "mac": nic.mac,
        "backend": nic.backend,
        "network": nic.attachment.network if nic.attachment else None,
        # Only a card on a network of this computer can be reached by its address.
        "direct": nic.backend == "netd",
        "addresses": [
            {"address": at.address, "version": at.version, "sources": list(at.sources)}
            for at in each.addresses
        ],
        "forwards": rows(nic, nic.forwards),
        "problem": each.problem or None,
    }
