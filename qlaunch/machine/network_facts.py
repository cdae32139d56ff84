"""What is known of networks before a machine with cards on them is planned."""

from __future__ import annotations

import asyncio
import shutil

from qlaunch.facts import NetworkFacts
from qlaunch.network import client
from qlaunch.network.possible import passt_works, rootless_problem
from qlaunch.plan.nics import AUTO_NETWORK
from qlaunch.profile.devices import Nic
from qlaunch.profile.model import Profile


async def network_facts(profile: Profile) -> NetworkFacts:
    """Where the cards of `profile` can be plugged in; nobody is asked for cards that need none."""
    wants_network = any(_wants(nic) for nic in profile.nic)
    wants_passt = any(nic.backend in ("auto", "passt") for nic in profile.nic)
    passt = shutil.which("passt") if wants_passt else None
    if passt and not any(nic.backend == "passt" for nic in profile.nic) and not await passt_works():
        passt = None  # who names it is told by passt itself what is in its way
    if not wants_network:
        return NetworkFacts(passt=passt)
    netd, own = await asyncio.gather(
        client.probe("netd", client.system_socket()),
        client.probe("rootless", client.rootless_socket()),
    )
    problem = None
    if own is None:
        wanted = {nic.network or AUTO_NETWORK for nic in profile.nic if _wants(nic)}
        let_in = netd is not None and ("*" in netd.allowed or wanted <= set(netd.allowed))
        problem = "it is not needed" if let_in else await rootless_problem()
    return NetworkFacts(
        netd=netd.allowed if netd is not None else None,
        rootless=problem is None,
        rootless_problem=problem,
        passt=passt,
    )


def _wants(nic: Nic) -> bool:
    return bool(nic.network) or nic.backend == "auto"
