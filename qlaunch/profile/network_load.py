"""A network file read, checked in itself, and made a `Network`."""

from __future__ import annotations

import os
import re

from qlaunch.errors import NotFoundError, ProfileError
from qlaunch.profile.check import check_file
from qlaunch.profile.extends import Read, read_file
from qlaunch.profile.findings import Findings, shown
from qlaunch.profile.network import NETWORK_NAME, NETWORK_NAME_WORDS, NETWORK_SCHEMA, Network
from qlaunch.profile.network_check import check_network
from qlaunch.profile.tree import Node, file_source, parse


def load_network(path: str | os.PathLike[str], *, read: Read = read_file) -> Network:
    """The network in the file `path`.

    Raises: NotFoundError when there is no such file; ProfileError with every mistake that was
    found, the first as itself and the others in `more`.
    """
    file = os.fspath(path)
    try:
        data = read(file)
    except FileNotFoundError:
        raise NotFoundError(f"there is no network {file}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ProfileError(file, f"cannot be read: {reason}") from error
    return loads_network(data, file)


def loads_network(data: bytes | str, file: str, *, name: str | None = None) -> Network:
    """The network that the text `data` says; `file` need not exist. Raises: ProfileError."""
    findings = Findings()
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    tree = parse(raw, file_source(file))
    called = os.path.basename(file).removesuffix(".toml") if name is None else name
    _check_top(tree, called, findings)
    values, origins = check_file(tree, findings, Network)
    network = Network(**values, name=called, origins=origins, file=file)
    check_network(network, tree, findings)
    findings.check()
    return network


def _check_top(tree: Node, name: str, findings: Findings) -> None:
    if not re.fullmatch(NETWORK_NAME, name):
        message = f"{shown(name)} is no name for a network: {NETWORK_NAME_WORDS}"
        findings.add(Node(None, tree.source, 0), "", message, "rename the file")
    said = tree.value.get("schema")
    if said is None:
        at = Node(None, tree.source, 1)
        findings.add(at, "schema", "is missing", f"write schema = {NETWORK_SCHEMA} at the top")
    elif type(said.value) is int and said.value > NETWORK_SCHEMA:
        raise ProfileError(
            f"{said.place}: schema",
            f"this qlaunch reads schema {NETWORK_SCHEMA}, the file says {shown(said.value)}",
            hint="upgrade qlaunch",
        )
