"""Who is in the way of networks, from rules as nft prints them."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from qlaunch.plan.networks.model import Route
from qlaunch.plan.networks.neighbours import docker_rules, firewalls, overlaps
from tests.networks import EMPTY, NAT, net


def table(family: str, name: str) -> dict[str, Any]:
    return {"table": {"family": family, "name": name}}


def chain(family: str, in_table: str, name: str, hook: str = "", policy: str = "accept") -> Any:
    said = {"family": family, "table": in_table, "name": name}
    return {"chain": said | ({"hook": hook, "policy": policy} if hook else {})}


def rule(family: str, in_table: str, in_chain: str, *expr: Any, comment: str = "") -> Any:
    said = {"family": family, "table": in_table, "chain": in_chain, "expr": list(expr)}
    return {"rule": said | ({"comment": comment} if comment else {})}


MATCH = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}
REJECT = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
DOCKER = (
    table("ip", "filter"),
    chain("ip", "filter", "FORWARD", "forward", "drop"),
    chain("ip", "filter", "DOCKER-USER"),
)


@pytest.mark.parametrize(
    "rules, zone, ufw, found",
    [
        ((), False, False, []),
        (DOCKER, False, False, ["docker"]),
        ((*DOCKER, rule("ip", "filter", "DOCKER-USER", comment="qlaunch")), False, False, []),
        # Docker without its forward policy, and nothing but its chain.
        (DOCKER[2:], False, False, []),
        ((table("inet", "firewalld"),), False, False, ["firewalld"]),
        ((table("inet", "firewalld"),), True, False, []),
        ((chain("ip", "filter", "INPUT", "input", "drop"),), False, True, ["ufw"]),
        ((chain("inet", "mine", "in", "input", "drop"),), False, False, ["firewall"]),
        ((chain("inet", "mine", "in", "output", "drop"),), False, False, []),
        ((chain("inet", "qlaunch", "in", "input", "drop"),), False, False, []),
        # The last rule takes everything; or it has a condition, and does not.
        (
            (chain("inet", "mine", "in", "input"), rule("inet", "mine", "in", REJECT)),
            False, False, ["firewall"],
        ),
        (
            (chain("inet", "mine", "in", "input"), rule("inet", "mine", "in", MATCH, REJECT)),
            False, False, [],
        ),
    ],
)  # fmt: skip
def test_firewalls_are_told_by_their_rules(
    rules: tuple[Any, ...], zone: bool, ufw: bool, found: list[str]
) -> None:
    listed = {"nftables": [{"metainfo": {"version": "1.0.6"}}, *rules]}
    told = list(firewalls(listed, zone=zone, ufw=ufw, bridges=["ql-lab"]))
    assert [each.topic for each in told] == found
    assert all(each.hint for each in told)


def test_dockers_door_is_opened_in_both_directions() -> None:
    assert docker_rules("ip").splitlines() == [
        'insert rule ip filter DOCKER-USER iifname "ql-*" counter accept comment "qlaunch"',
        'insert rule ip filter DOCKER-USER oifname "ql-*" counter accept comment "qlaunch"',
    ]


def test_a_subnet_of_somebody_else_is_told_but_no_default_route() -> None:
    lab = net(NAT)
    assert list(overlaps([lab], EMPTY)) == []
    theirs = evolve(EMPTY, routes=(*EMPTY.routes, Route(to="192.168.0.0/16", link=2)))
    (told,) = overlaps([lab], theirs)
    assert "the network lab and eth0 have one subnet: 192.168.0.0/16" in told.message
