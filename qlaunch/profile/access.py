"""The allow list of the network service: `/etc/qlaunch/netd.toml`, declared once."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import field, frozen

from qlaunch.errors import ProfileError
from qlaunch.profile import fields as key
from qlaunch.profile.check import check_file
from qlaunch.profile.extends import Read, read_file
from qlaunch.profile.findings import Findings
from qlaunch.profile.network import NETWORK_NAME
from qlaunch.profile.tree import Node, file_source, parse

ACCESS_SCHEMA = 1
_PORT_RANGE = r"[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?"


@frozen(kw_only=True)
class Allow:
    """Who may do what. The first that names the user or one of the user's groups counts."""

    id: str = key.ident("Its name, for messages.")
    users: tuple[str, ...] = key.words("Users, by name.", example='["anna"]')
    groups: tuple[str, ...] = key.words("Groups, by name.", example='["qlaunch"]')
    networks: tuple[str, ...] = key.words(
        "Networks that they may use; `*` is all of them.",
        example='["default"]',
        otherwise="`default` alone",
        pattern=rf"\*|{NETWORK_NAME}",
        pattern_words="the name of a network, or '*'",
    )
    ports: tuple[str, ...] = key.words(
        "Ports of this computer that they may forward.",
        example='["1024-65535"]',
        otherwise="1024 to 65535",
        pattern=_PORT_RANGE,
        pattern_words="a port or a range of ports, such as '8000-8999'",
    )
    filters: tuple[str, ...] = key.words(
        "Filters that their cards may have.",
        example='["clean", "mac"]',
        otherwise="`clean` where the network gives addresses; on bridges of others `mac`, too",
        pattern="clean|mac|none",
        pattern_words="one of clean, mac and none",
    )
    max_nics: int | None = key.integer(
        "Cards that each of them may have plugged in.", 1, 1000, example="8", otherwise="16"
    )


@frozen(kw_only=True)
class Access:
    """Who may use the network service of this computer."""

    schema: int = key.version("Version of this format: `schema = 1`.", ACCESS_SCHEMA)
    allow: tuple[Allow, ...] = key.tables(Allow, "Who may do what.")
    origins: Mapping[str, str] = field(factory=dict, eq=False, repr=False)


NOBODY = Access()


def load_access(path: str, *, read: Read = read_file) -> Access:
    """The allow list in the file `path`; nobody where there is no such file.

    Raises: ProfileError with every mistake.
    """
    try:
        data = read(path)
    except FileNotFoundError:
        return NOBODY
    except OSError as error:
        raise ProfileError(path, f"cannot be read: {error.strerror}") from error
    findings = Findings()
    tree = parse(data, file_source(os.fspath(path)))
    if "schema" not in tree.value:
        at = Node(None, tree.source, 1)
        findings.add(at, "schema", "is missing", f"write schema = {ACCESS_SCHEMA} at the top")
    values, origins = check_file(tree, findings, Access)
    access = Access(**values, origins=origins)
    for each in access.allow:
        if not each.users and not each.groups:
            where = tree.value["allow"]
            hint = 'write groups = ["qlaunch"]'
            findings.add(where, f"allow.{each.id}", "names no users and no groups", hint)
    findings.check()
    return access
