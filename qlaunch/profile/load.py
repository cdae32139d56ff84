"""A profile file read, merged with what it builds on, checked, and made a `Profile`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from qlaunch.errors import NotFoundError, ProfileError
from qlaunch.profile.check import Values, check_profile
from qlaunch.profile.extends import Builder, Read, read_file
from qlaunch.profile.fields import entries_of
from qlaunch.profile.findings import Findings, shown
from qlaunch.profile.model import Profile
from qlaunch.profile.overrides import Overrides
from qlaunch.profile.tree import Node, file_source, parse


def load(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    folder: str | None = None,
    read: Read = read_file,
) -> Profile:
    """The profile in the file `path`, with everything it builds on merged in.

    `name` is the name of the machine; without it the file's own `name` counts, then the name of
    the file. `overrides` are `KEY=VALUE`, as after `--set`; relative paths in them start at
    `folder`, or at the current one. Messages call the file `path`, as it is given here.

    Raises: NotFoundError when there is no such file; ProfileError with every mistake that was
    found, the first as itself and the others in `more`.
    """
    file = os.fspath(path)
    try:
        data = read(file)
    except FileNotFoundError:
        raise NotFoundError(f"there is no profile {file}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ProfileError(file, f"cannot be read: {reason}") from error
    return loads(data, file, name=name, overrides=overrides, folder=folder, read=read)


def loads(
    data: bytes | str,
    file: str,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    folder: str | None = None,
    read: Read = read_file,
) -> Profile:
    """The profile that the text `data` says, as `load` does it; `file` need not exist.

    Relative paths start at the folder of `file`.

    Raises: ProfileError, as `load`.
    """
    findings = Findings()
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    tree = parse(raw, file_source(file))
    said = Overrides(overrides, findings, folder)
    merged = Builder(read, findings).build(said.at_top(tree), file)
    values, origins = check_profile(said.over(merged), findings)
    _settle_name(values, name, tree, findings)
    findings.check()
    return Profile(**values, origins=origins, file=file)


def _settle_name(values: Values, name: str | None, tree: Node, findings: Findings) -> None:
    """Give the profile its name, and see that it can be one."""
    if name is None and ("name" in values or "name" in tree.value):
        return  # or there is a finding already
    stem = os.path.basename(tree.source.shown).removesuffix(".toml")
    values["name"] = stem if name is None else name
    key = entries_of(Profile)["name"].key
    if not re.fullmatch(key.pattern or "", values["name"]):
        hint = 'rename the file, or write name = "..." into it' if name is None else None
        at = Node(None, tree.source, 0)
        findings.add(at, "name", f"{shown(values['name'])} is not {key.pattern_words}", hint)
