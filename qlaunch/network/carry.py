"""Carries out steps. All decisions were made before; an error in one network stops no other."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from functools import singledispatchmethod

from qlaunch.errors import HostError, QlaunchError
from qlaunch.network import links, nft
from qlaunch.network.dnsmasq import Dnsmasq
from qlaunch.network.files import Files
from qlaunch.network.look import SYSCTL
from qlaunch.network.netlink import Netlink, NetlinkError
from qlaunch.plan.networks import steps as plan

_GONE = (errno.ENODEV, errno.EADDRNOTAVAIL)


class Carrier:
    """Does what steps say."""

    def __init__(self, netlink: Netlink, files: Files) -> None:
        self._netlink = netlink
        self._files = files
        self.loads = 0  # how often rules were loaded

    def all(self, steps: Iterable[plan.Step]) -> list[tuple[plan.Step, QlaunchError]]:
        """Do `steps` in their order; returns those that failed, and why."""
        failed: list[tuple[plan.Step, QlaunchError]] = []
        for step in steps:
            try:
                self._do(step)
            except QlaunchError as error:
                failed.append((step, error))
            except OSError as error:
                words = str(error) if isinstance(error, NetlinkError) else error.strerror
                failed.append((step, HostError(f"cannot {step.about}: {words}")))
        return failed

    @singledispatchmethod
    def _do(self, step: plan.Step) -> None:
        raise TypeError(type(step).__name__)

    @_do.register
    def _(self, step: plan.SetSysctl) -> None:
        if step.before is not None:
            self._files.remember_sysctl(step.key, step.before)
        _write_sysctl(step.key, step.value)

    @_do.register
    def _(self, step: plan.RestoreSysctl) -> None:
        try:
            _write_sysctl(step.key, step.value)
        except FileNotFoundError:
            pass  # the interface is gone
        self._files.forget_sysctl(step.key)

    @_do.register
    def _(self, step: plan.MakeBridge) -> None:
        options = {"stp_state": int(step.stp)}
        if step.stp:
            options["forward_delay"] = plan.STP_DELAY
        self._netlink.do(
            links.make_bridge(step.name, mac=step.mac, mtu=step.mtu, options=options),
            links.set_alias(step.name, step.alias),
        )

    @_do.register
    def _(self, step: plan.SetBridge) -> None:
        index = self._index(step.name)
        if step.stp is not None:
            # The delay alone first: the kernel looks at it before the switch, and refuses both.
            options = {"stp_state": int(step.stp)}
            self._netlink.do(links.set_bridge(index, step.name, options))
        change = links.set_link(index, step.name, up=True, mac=step.mac, mtu=step.mtu)
        self._netlink.do(change)

    @_do.register
    def _(self, step: plan.AddAddress) -> None:
        index = self._index(step.link)
        self._netlink.do(links.set_address(index, step.address))

    @_do.register
    def _(self, step: plan.DropAddress) -> None:
        index = self._index(step.link)
        self._netlink.do(links.set_address(index, step.address, delete=True), but=_GONE)

    @_do.register
    def _(self, step: plan.LoadRules) -> None:
        self.loads += 1
        nft.run(step.text)

    @_do.register
    def _(self, step: plan.WriteHosts) -> None:
        for name, text in step.files.items():
            self._files.write_dns(step.network, name, text)
        if step.reload:
            Dnsmasq(step.network, self._files).reload()

    @_do.register
    def _(self, step: plan.StartDns) -> None:
        Dnsmasq(step.network, self._files).start(step.config)

    @_do.register
    def _(self, step: plan.StopDns) -> None:
        Dnsmasq(step.network, self._files).stop()

    @_do.register
    def _(self, step: plan.PlugCard) -> None:
        bridge = self._index(step.bridge)
        name = step.ifname
        self._netlink.do(
            links.set_link(step.index, name, mac=step.mac, mtu=step.mtu, alias=step.alias),
        )
        put = [
            links.set_link(step.index, name, master=bridge, up=step.up),
            links.set_port(step.index, name, step.port),
        ]
        if step.stp:
            # A port that comes while there is no spanning tree forwards at once and goes on doing
            # so; with one the guest would hear nothing for four seconds.
            off = links.set_bridge(bridge, step.bridge, {"stp_state": 0})
            on = links.set_bridge(bridge, step.bridge, {"stp_state": 1})
            put = [off, *put, on]
        self._netlink.do(*put)

    @_do.register
    def _(self, step: plan.RemoveBridge) -> None:
        try:
            self._netlink.do(links.delete_link(self._index(step.name), step.name), but=_GONE)
        except HostError:
            return  # somebody else was faster

    @_do.register
    def _(self, step: plan.RemoveTap) -> None:
        try:
            self._netlink.do(links.delete_link(self._index(step.name), step.name), but=_GONE)
        except HostError:
            return

    @_do.register
    def _(self, step: plan.Forget) -> None:
        self._files.forget_dns(step.network)

    @_do.register
    def _(self, step: plan.KeepBridge) -> None:
        del step

    def _index(self, name: str) -> int:
        try:
            return socket.if_nametoindex(name)
        except OSError as error:
            raise HostError(f"the interface {name} is not there") from error


def _write_sysctl(key: str, value: str) -> None:
    handle = os.open(f"{SYSCTL}/{key}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)
