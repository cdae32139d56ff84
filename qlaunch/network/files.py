"""What the service keeps in files: which networks are wanted, who is plugged in, what was given.

The kernel is the state; these say what it cannot. `run` is gone after a reboot, like the kernel's;
`lib` stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from attrs import field, frozen

from qlaunch import records
from qlaunch.plan.networks.model import Card, Net
from qlaunch.plan.networks.names import Folders
from qlaunch.store import files

T = TypeVar("T")


@frozen(kw_only=True)
class Given:
    """Addresses that were given once: to networks, and in each network to guests by MAC."""

    version: int = 1
    networks: Mapping[str, str] = field(factory=dict)
    guests: Mapping[str, Mapping[str, str]] = field(factory=dict)


@frozen(kw_only=True)
class Places:
    """Where the files of one service are.

    `networks` are the folders of network files; `rules` is the allow list, empty where the service
    is its user's own. `user` is whom dnsmasq becomes, `resolver` whom it asks for other names.
    """

    run: str
    lib: str
    networks: tuple[str, ...]
    rules: str = ""
    user: str | None = None
    resolver: str | None = None

    def folders(self, network: str) -> Folders:
        """Those of a network's dnsmasq."""
        return Folders(
            run=os.path.join(self.run, "dns", network),
            lib=os.path.join(self.lib, network),
            user=self.user,
            resolver=self.resolver,
        )


class Files:
    """Reads and writes them."""

    def __init__(self, places: Places) -> None:
        self.places = places
        for folder in (
            places.run,
            places.lib,
            *map(self._run, ("asked", "cards", "wanted", "dns")),
        ):
            os.makedirs(folder, mode=0o755, exist_ok=True)

    def _run(self, *names: str) -> str:
        return os.path.join(self.places.run, *names)

    # ---- networks that are wanted: the decision as it was made, so a file that was broken since
    # ---- takes no network down

    def wanted(self) -> dict[str, Net]:
        found = _records(Net, self._run("wanted"))
        return {net.name: net for net in found}

    def want(self, net: Net) -> None:
        path = self._run("wanted", f"{net.name}.json")
        if records.to_plain(net) != files.read_json(path):
            files.write_json(path, records.to_plain(net), lasting=False)

    def forget_wanted(self, name: str) -> None:
        files.remove(self._run("wanted", f"{name}.json"), lasting=False)
        files.remove(self._run("asked", name), lasting=False)

    def asked(self) -> list[str]:
        """The networks that somebody asked for by name; they stay when the last guest goes."""
        return os.listdir(self._run("asked"))

    def ask(self, name: str) -> None:
        files.write_bytes(self._run("asked", name), b"", lasting=False)

    # ---- cards

    def cards(self) -> list[Card]:
        return list(_records(Card, self._run("cards")))

    def add_card(self, card: Card) -> None:
        path = self._run("cards", f"{card.ifname}.json")
        files.write_json(path, records.to_plain(card), lasting=False)

    def remove_card(self, card: Card) -> None:
        files.remove(self._run("cards", f"{card.ifname}.json"), lasting=False)

    # ---- addresses that were given, for good

    def given(self) -> Given:
        return files.load_record(Given, os.path.join(self.places.lib, "given.json"), 1) or Given()

    def give(self, given: Given) -> None:
        if given != self.given():
            path = os.path.join(self.places.lib, "given.json")
            files.write_json(path, records.to_plain(given), lasting=False)

    # ---- switches of the kernel as they were before

    def sysctls(self) -> dict[str, str]:
        found = files.read_json(self._run("sysctls.json"))
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def remember_sysctl(self, key: str, value: str) -> None:
        known = self.sysctls()
        if key not in known:  # the first value is the one that was there before us
            files.write_json(self._run("sysctls.json"), {**known, key: value}, lasting=False)

    def forget_sysctl(self, key: str) -> None:
        known = self.sysctls()
        known.pop(key, None)
        if known:
            files.write_json(self._run("sysctls.json"), known, lasting=False)
        else:
            files.remove(self._run("sysctls.json"), lasting=False)

    # ---- dnsmasq's files

    def dns_networks(self) -> list[str]:
        """The networks of which there are files."""
        with contextlib.suppress(OSError):
            return sorted(os.listdir(self._run("dns")))
        return []

    def write_dns(self, network: str, name: str, text: str) -> str:
        """Write a file for the dnsmasq of `network`, readable for whom it becomes."""
        folders = self.places.folders(network)
        os.makedirs(folders.run, mode=0o755, exist_ok=True)
        os.makedirs(folders.lib, mode=0o755, exist_ok=True)
        path = os.path.join(folders.run, name)
        files.write_bytes(path, text.encode(), mode=0o644, lasting=False)
        return path

    def read_dns(self, network: str, names: Sequence[str]) -> str | None:
        """What was written into the files `names`; None when one is missing."""
        texts = []
        for name in names:
            try:
                path = os.path.join(self.places.folders(network).run, name)
                with open(path, encoding="utf-8") as file:
                    texts.append(file.read())
            except OSError:
                return None
        return "".join(texts)

    def forget_dns(self, network: str) -> None:
        """Remove the files of `network` that are gone after a reboot anyway."""
        shutil.rmtree(self.places.folders(network).run, ignore_errors=True)


def _records(cls: type[T], folder: str) -> Iterator[T]:
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json"):
            found = files.load_record(cls, os.path.join(folder, name), 1)
            if found is not None:
                yield found
