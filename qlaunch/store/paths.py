"""The folders and files of qlaunch, by the XDG base directory specification.

On the thin client's path: imports os alone.
"""

from __future__ import annotations

import os
import zlib

from qlaunch.errors import HostError, NotFoundError, UsageError

NAME_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
NAME_LIMIT = 41


def _xdg(variable: str, fallback: str) -> str:
    value = os.environ.get(variable, "")
    # The specification: a relative path there is invalid and to be ignored.
    base = value if value.startswith("/") else os.path.expanduser(fallback)
    return os.path.join(base, "qlaunch")


def config_dir() -> str:
    return _xdg("XDG_CONFIG_HOME", "~/.config")


def data_dir() -> str:
    return _xdg("XDG_DATA_HOME", "~/.local/share")


def state_dir() -> str:
    return _xdg("XDG_STATE_HOME", "~/.local/state")


def cache_dir() -> str:
    return _xdg("XDG_CACHE_HOME", "~/.cache")


def runtime_dir() -> str:
    """The folder of sockets: private to the user and gone after a reboot.

    Without XDG_RUNTIME_DIR (cron, sudo, containers): `/run/user/UID` if it is there, `/run` for
    root, else a folder in /tmp that must be ours. Root's own `/run/user/0` goes with root's last
    session, and root's machines do not.
    """
    value, uid = os.environ.get("XDG_RUNTIME_DIR", ""), os.getuid()
    if value.startswith("/") and (uid, value) != (0, "/run/user/0"):
        return os.path.join(value, "qlaunch")
    if uid == 0:
        return "/run/qlaunch"
    if os.path.isdir(f"/run/user/{uid}"):
        return f"/run/user/{uid}/qlaunch"
    return f"/tmp/qlaunch-{uid}"


def ensure_private(path: str) -> str:
    """Make the folder `path` (mode 0700) if need be and insist that it is ours alone.

    Raises: HostError when somebody else owns it or may write there, or it cannot be made.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        facts = os.lstat(path)
        if facts.st_uid == os.getuid() and facts.st_mode & 0o077:
            os.chmod(path, 0o700)
    except OSError as error:
        raise HostError(
            f"cannot use the folder {path}: {error.strerror}",
            hint="set XDG_RUNTIME_DIR to a folder of yours",
        ) from error
    if facts.st_uid != os.getuid() or not os.path.isdir(path) or os.path.islink(path):
        raise HostError(
            f"{path} belongs to somebody else", hint="set XDG_RUNTIME_DIR to a folder of yours"
        )
    return path


def check_name(name: str) -> str:
    """`name` if a machine can be called so. Raises: UsageError."""
    if (
        not name
        or len(name) > NAME_LIMIT
        or not set(name) <= NAME_LETTERS
        or not (name[0].isascii() and name[0].isalnum())
    ):
        raise UsageError(
            f"{name!r} cannot be a machine's name",
            hint="begin with a letter or digit, then up to 40 letters, digits and ._-",
        )
    return name


def control_socket() -> str:
    """The socket of the user's supervisor."""
    return os.path.join(runtime_dir(), "control.sock")


def run_socket(name: str) -> str:
    """The socket of a `qlaunch run NAME` in the foreground."""
    return os.path.join(runtime_dir(), f"run-{name}.sock")


def unit_folders(manager: str) -> list[str]:
    """Where units of the user's systemd (`user`) or of the computer's (`system`) lie: those that
    `service install` writes first."""
    if manager == "system":
        return ["/etc/systemd/system"]
    home = os.environ.get("XDG_CONFIG_HOME", "")
    home = home if home.startswith("/") else os.path.expanduser("~/.config")
    return [os.path.join(home, "systemd/user"), "/etc/systemd/user"]


def machine_runtime(name: str) -> str:
    """The folder of one machine's sockets; short, because a socket's path may have 107 bytes."""
    return os.path.join(runtime_dir(), f"{zlib.crc32(name.encode()):08x}")


def machine_state(name: str) -> str:
    return os.path.join(state_dir(), "machines", name)


def machine_data(name: str) -> str:
    return os.path.join(data_dir(), "machines", name)


def stopped_state(name: str) -> str:
    """`saved` when the machine, which does not run, goes on from its memory at the next start."""
    saved = os.path.join(machine_data(name), "snapshots", "saved.json")
    return "saved" if os.path.exists(saved) else "stopped"


def profile_dirs() -> list[str]:
    """Where profiles are looked for by name: the user's, the administrator's, the shipped ones."""
    return [os.path.join(config_dir(), "profiles"), "/etc/qlaunch/profiles", shipped_profiles()]


def shipped_profiles() -> str:
    """The profiles that came with qlaunch: in the package, or beside it in a checkout."""
    return _shipped("profiles")


def _shipped(folder: str) -> str:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    inside = os.path.join(package, "shipped", folder)
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(package), folder)


def network_dirs(*, system: bool) -> list[str]:
    """Where network files lie: the system's, or the user's own; then those that came with it."""
    own = "/etc/qlaunch/networks" if system else os.path.join(config_dir(), "networks")
    return [own, _shipped("networks")]


def network_files(folders: list[str]) -> dict[str, str]:
    """Every network that has a file in `folders`, with that file; earlier folders hide later."""
    return _toml_files(folders)


def profile_names() -> dict[str, str]:
    """Every profile that can be named, with its file; the user's own hide the others."""
    return _toml_files(profile_dirs())


def own_profile_names() -> list[str]:
    """The names of the user's own profiles; for root, of those in /etc as well."""
    return sorted(_toml_files(profile_dirs()[: 2 if os.getuid() == 0 else 1]))


def _toml_files(folders: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in folders:
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(".toml") and not entry.startswith("."):
                found.setdefault(entry[:-5], os.path.join(folder, entry))
    return found


def find_profile(word: str) -> str:
    """The absolute path of the profile that `word` means: a name, or a path (with a slash or
    ending in .toml).

    Raises: NotFoundError with a did-you-mean.
    """
    if "/" in word or word.endswith(".toml"):
        path = os.path.abspath(os.path.expanduser(word))
        if not os.path.isfile(path):
            raise NotFoundError(
                f"there is no profile {word}", hint="`qlaunch list` shows the profiles by name"
            )
        return path
    check_name(word)
    for folder in profile_dirs():
        path = os.path.join(folder, f"{word}.toml")
        if os.path.isfile(path):
            return path
    raise NotFoundError(f"there is no profile or machine {word!r}", hint=_closest(word))


def _closest(word: str) -> str:
    import difflib

    close = difflib.get_close_matches(word, profile_names(), 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"`qlaunch list` shows the profiles, `qlaunch new {word}` makes one"
