"""Which names are free, and which are about to be given."""

from __future__ import annotations

import os
import shutil

from qlaunch.errors import ConflictError, QlaunchError
from qlaunch.profile.load import load
from qlaunch.store import files, paths

# In the data folder of a clone until its profile is there: what was killed before is no machine.
UNFINISHED = ".cloning"
_RENAME = ".rename~"


def complete(name: str) -> None:
    """Note that the machine has a profile, and so is no half-made clone. Raises: HostError."""
    files.remove(os.path.join(paths.machine_data(name), UNFINISHED))


def own_profiles() -> str:
    """The folder of the user's own profiles."""
    return paths.profile_dirs()[0]


def profile_of(name: str) -> str:
    """Where the user's own profile `name` is, or would be."""
    return os.path.join(own_profiles(), f"{name}.toml")


def rename_note(old: str, new: str) -> str:
    """The name of a profile while it is renamed: no name has a `~`, and hidden files are no
    profiles, so neither name can be started meanwhile."""
    return os.path.join(own_profiles(), f"{_RENAME}{old}~{new}.toml")


def interrupted_renames() -> dict[str, str]:
    """The renames that were killed half-way: old name -> new name."""
    try:
        listed = os.listdir(own_profiles())
    except OSError:
        return {}
    found = {}
    for entry in listed:
        parts = entry.removesuffix(".toml").split("~")
        if entry.startswith(_RENAME) and entry.endswith(".toml") and len(parts) == 3:
            found[parts[1]] = parts[2]
    return found


def check_free(name: str) -> None:
    """Nothing, when no machine, profile or file has the name yet.

    Raises: ConflictError, UsageError.
    """
    paths.check_name(name)
    for path in (profile_of(name), paths.profile_names().get(name)):
        if path and os.path.lexists(path):
            raise ConflictError(f"there is a profile {name!r} already: {path}")
    check_renames(name)
    for path in paths.profile_names().values():
        try:
            said = load(path).name
        except QlaunchError:
            continue
        if said == name:
            raise ConflictError(f"the profile {path} calls its machine {name!r} already")
    _remove_unfinished(name)
    for folder in (paths.machine_data(name), paths.machine_state(name)):
        if not set(_listed(folder)) <= {"lock"}:
            raise ConflictError(
                f"there are files of a machine {name!r} already: {folder}",
                hint=f"`qlaunch rm {name}` removes them, `qlaunch new {name}` uses them",
            )


def check_renames(name: str) -> None:
    """Raises: ConflictError when a rename from or to `name` waits for its end."""
    for old, new in interrupted_renames().items():
        if name in (old, new):
            raise ConflictError(
                f"renaming {old} to {new} was interrupted",
                hint=f"finish it first: qlaunch rename {old} {new}",
            )


def _remove_unfinished(name: str) -> None:
    """Remove what a clone left that was killed just before it became a machine."""
    data = paths.machine_data(name)
    if os.path.lexists(os.path.join(data, UNFINISHED)) and not os.path.islink(data):
        shutil.rmtree(paths.machine_state(name), ignore_errors=True)
        shutil.rmtree(data)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
