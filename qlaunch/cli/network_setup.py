"""`qlaunch net setup`: root's network service, and who may use it."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from qlaunch.cli import network_texts, output
from qlaunch.cli.definitions import wait_for
from qlaunch.errors import ConflictError, HostError, QlaunchError, RefusedError, UsageError
from qlaunch.host import systemd
from qlaunch.host.tool import failure
from qlaunch.machine import texts
from qlaunch.network import client, startup
from qlaunch.plan.networks.access import RULES_FILE, rights
from qlaunch.profile.access import load_access
from qlaunch.profile.dump import toml_text
from qlaunch.store import files, paths

if TYPE_CHECKING:
    import argparse

START_TIMEOUT = 60.0
_UNITS = "/etc/systemd/system"
_SOCKET, _SERVICE = "qlaunch-netd.socket", "qlaunch-netd.service"


def setup(args: argparse.Namespace) -> int:
    if args.stdout:
        return _print(args)
    if os.geteuid():
        words = "--remove" if args.remove else "..."
        raise RefusedError(
            "only root can set the network service up",
            hint=f"sudo qlaunch net setup {words}; yours without root needs none of it",
        )
    return _remove(args) if args.remove else _install(args)


def _print(args: argparse.Namespace) -> int:
    """Print what would be written."""
    found = {**_units(), RULES_FILE: _rules(args, "")}
    if args.json:
        output.print_json({"files": found})
    else:
        print("\n".join(f"# {path}\n{text}" for path, text in found.items()), end="")
    return 0


def _install(args: argparse.Namespace) -> int:
    check_owner(sys.executable, sys.prefix, os.path.dirname(os.path.dirname(__file__)))
    quiet = args.quiet or args.json
    wrote = _write_rules(args)
    os.makedirs(paths.network_dirs(system=True)[0], mode=0o755, exist_ok=True)
    how = "systemd" if startup.has_systemd() and not args.no_systemd else "direct"
    if how == "systemd":
        for path, text in _units().items():
            files.write_bytes(path, text.encode(), mode=0o644)
            wrote.append(path)
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", _SOCKET)
        # An older one may run: the new program takes its place, guests do not notice.
        _systemctl("try-restart", _SERVICE)
    elif wait_for(client.probe("netd", client.system_socket())) is None:
        startup.start_netd()
    service = wait_for(client.probe("netd", client.system_socket()))
    if service is None:
        raise HostError(
            "the network service was started and does not answer",
            hint=f"journalctl -u {_SERVICE}" if how == "systemd" else f"see {startup.LOG}",
        )
    if args.json:
        output.print_json({"service": how, "socket": service.path, "wrote": wrote})
    for path in wrote:
        output.note(f"wrote {path}", quiet=quiet)
    until = "" if how == "systemd" else ", until the computer is restarted"
    output.note(f"the network service answers at {service.path}{until}", quiet=quiet)
    output.note("`qlaunch net doctor` says whether anybody is in its way", quiet=quiet)
    return 0


def _units() -> dict[str, str]:
    return {
        os.path.join(_UNITS, _SOCKET): network_texts.SOCKET,
        os.path.join(_UNITS, _SERVICE): network_texts.service(
            sys.executable, os.environ.get("PYTHONPATH", "")
        ),
    }


def check_owner(*found: str) -> None:
    """See that nobody but root can change the program that root is to run for ever.

    Raises: RefusedError.
    """
    for path in map(os.path.realpath, found):
        at = path
        while True:
            facts = os.stat(at)
            loose = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if facts.st_uid or (loose and not facts.st_mode & stat.S_ISVTX):
                raise RefusedError(
                    f"others than root can change {at}: root must not run {path} as a service",
                    hint="sudo make install PREFIX=/usr/local, then `sudo qlaunch net setup`",
                )
            if at == "/":
                break
            at = os.path.dirname(at)


# ---- the allow list -----------------------------------------------------------------------------


def _write_rules(args: argparse.Namespace) -> list[str]:
    """Allow whoever is said, or whoever called sudo; returns the files that were written."""
    before = texts.read(RULES_FILE) if os.path.exists(RULES_FILE) else ""
    after = _rules(args, before)
    if after == before:
        return []
    if before:
        texts.replace(RULES_FILE, after.encode())
    else:
        texts.write_new(RULES_FILE, after, mode=0o644)
    load_access(RULES_FILE)
    return [RULES_FILE]


def _rules(args: argparse.Namespace, before: str) -> str:
    users, groups = list(args.user), list(args.group)
    caller = os.environ.get("SUDO_USER", "")
    if not users and not groups and caller not in ("", "root"):
        users = [caller]
    networks = args.network or ["default"]
    known = load_access(RULES_FILE) if before else None
    text = before or network_texts.RULES
    ids = {each.id for each in known.allow} if known else set()
    for kind, names in (("users", users), ("groups", groups)):
        for name in names:
            have = (
                rights(known, *((name, ()) if kind == "users" else ("", (name,))))
                if known
                else None
            )
            if have is not None and all(have.may_use(network) for network in networks):
                continue
            if have is not None and have.rule:
                raise ConflictError(
                    f"{RULES_FILE}: {have.rule} says already what {name} may use",
                    hint=f"add {', '.join(networks)} to its `networks`",
                )
            ident = _ident(name, ids)
            ids.add(ident)
            said = ", ".join(map(toml_text, networks))
            text += f'\n[[allow]]\nid = "{ident}"\n{kind} = [{toml_text(name)}]\n'
            text += f"networks = [{said}]\n"
    return text


def _ident(name: str, taken: set[str]) -> str:
    """A name for a rule, which may have fewer letters than a user's."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
    first = plain if plain[:1].isalpha() and plain.isascii() else f"rule-{plain}"
    for number in range(1, 1000):
        ident = first if number == 1 else f"{first}-{number}"
        if ident not in taken:
            return ident
    raise UsageError(f"there are too many rules for {name}")


# ---- and away with it ---------------------------------------------------------------------------


def _remove(args: argparse.Namespace) -> int:
    """Take its networks down, end the service and remove its units; the allow list stays."""
    done: list[str] = []
    service = wait_for(client.probe("netd", client.system_socket()))
    if service is not None:
        for network in wait_for(service.ask("networks"))["networks"]:
            if network["state"] != "down":
                about = {"network": network["name"], "force": args.force}
                wait_for(service.ask("down", about))
                done.append(f"took {network['name']} down")
    units = [path for path in _units() if os.path.lexists(path)]
    if units:
        _systemctl("disable", "--now", _SOCKET, _SERVICE, check=False)
        for path in units:
            os.unlink(path)
            done.append(f"removed {path}")
        _systemctl("daemon-reload", check=False)
    if startup.end_netd():
        done.append("ended the network service")
    if args.json:
        output.print_json({"done": done})
    for line in done or ["there was nothing to remove"]:
        output.note(line, quiet=args.quiet or args.json)
    return 0


def _systemctl(*words: str, check: bool = True) -> Any:
    """Raises: HostError with its own last words."""
    try:
        said = wait_for(systemd.systemctl("system", *words, timeout=START_TIMEOUT))
    except QlaunchError:
        if check:
            raise
        return None
    if check and said.status:
        raise failure(f"systemctl {' '.join(words)}", said)
    return said
