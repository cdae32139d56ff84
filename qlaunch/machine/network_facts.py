"""What is known of networks before a machine with cards on them is planned."""

from __future__ import annotations

import asyncio
import shutil

from qlaunch.facts import NetworkFacts
from qlaunch.network import client
from qlaunch.profile.model import Profile


async def network_facts(profile: Profile) -> NetworkFacts:
    """Where the cards of `profile` can be plugged in; nobody is asked for cards that need none."""
    wants_network = any(nic.network or nic.backend == "auto" for nic in profile.nic)
    wants_passt = any(nic.backend in ("auto", "passt") for nic in profile.nic)
    passt = shutil.which("passt") if wants_passt else None
    if not wants_network:
        return NetworkFacts(passt=passt)
    netd, own = await asyncio.gather(
        client.probe("netd", client.system_socket()),
        client.probe("rootless", client.rootless_socket()),
    )
    return NetworkFacts(
        netd=netd.allowed if netd is not None else None,
        rootless=own is not None,
        passt=passt,
    )
