"""Wishes about network cards that a plan cannot fulfil, or has doubts about."""

from __future__ import annotations

from typing import Any

from qlaunch.facts import NetworkFacts
from tests.wishes import Wish


def card(words: str, **more: Any) -> Wish:
    return Wish(text=f'[[nic]]\nid = "net0"\n{words}\n', **more)


ANY_NETWORK = NetworkFacts(netd=("*",), passt="/usr/bin/passt")
NETWORKS = {
    "a network and a backend": card('network = "lab"\nbackend = "user"', network=ANY_NETWORK),
    "a network without a service": card('network = "lab"'),
    "a network without a service, nor without root": card(
        'network = "lab"', network=NetworkFacts(rootless_problem="pasta is not installed")
    ),
    "a network that others may use": card(
        'network = "lab"', network=NetworkFacts(netd=("default", "office"))
    ),
    "passt that is not there": card('backend = "passt"'),
    "queues of a card that has none": card(
        'network = "lab"\nmodel = "rtl8139"\nqueues = 4', network=ANY_NETWORK
    ),
    "what only networks have, on user": card(
        'model = "virtio"\nipv4 = "10.0.2.20"\nipv6 = "fd00::1"\nfilter = "mac"\nqueues = 2'
    ),
    "what only networks have, where auto finds none": card(
        'backend = "auto"\nmodel = "virtio"\nipv4 = "192.168.150.2"\nqueues = 2'
    ),
    "addresses that are none": card(
        'network = "lab"\nipv4 = "192.168.1.300"\nipv6 = "1::2::3"', network=ANY_NETWORK
    ),
    "addresses that no guest can have": card(
        'network = "lab"\nipv4 = "224.0.0.1"\nipv6 = "::1"', network=ANY_NETWORK
    ),
    "a guest that is kept from a network": card(
        'network = "lab"\nrestrict = true', network=ANY_NETWORK
    ),
    "a link without a cable": card('backend = "none"\nlink = "down"'),
    "ranges of ports": card(
        'backend = "user"\nforward = ["8000-8009:80-88", "9009-9000:80", "9000-9300:9000",'
        ' "1100-1300:1100", "1400-1600:1400"]'
    ),
    "a range and one of its ports": card('forward = ["8000-8009:80", "8005:22"]'),
    "UDP where only TCP is led": card(
        'network = "lab"\nforward = ["udp:5353:53", "udp:0.0.0.0:5354:53"]', network=ANY_NETWORK
    ),
    "UDP without root": card(
        'network = "lab"\nforward = ["udp:0.0.0.0:5354:53"]', network=NetworkFacts(rootless=True)
    ),
}
