"""Every QMP command in the code exists in QEMU 7.2 and 10.0, with the arguments it is given."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import qlaunch
from tests import plans

ROOT = Path(qlaunch.__file__).parent
SENDERS = {"execute", "_pass_fd", "_ask", "quietly"}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "agent.py":  # the guest agent has words of its own
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def literal_keys(node: ast.expr, function: ast.AST) -> set[str] | None:
    """The keys of a dict, written here or given its name above in the same function."""
    if isinstance(node, ast.Name):
        for inner in ast.walk(function):
            if isinstance(inner, ast.Assign | ast.AnnAssign) and isinstance(inner.value, ast.Dict):
                target = inner.targets[0] if isinstance(inner, ast.Assign) else inner.target
                if isinstance(target, ast.Name) and target.id == node.id:
                    return literal_keys(inner.value, function)
        return None
    if isinstance(node, ast.Dict):
        return {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
    return None


def sent() -> Iterator[tuple[str, str, set[str] | None]]:
    """Where a command is sent, its name, and its arguments (None where they are not written)."""
    for path, tree in modules():
        functions = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for function in functions:
            for node in ast.walk(function):
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                words = [
                    a for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
                ]
                if name not in SENDERS or not words:
                    continue
                if str(words[0].value).startswith("guest-"):
                    continue  # for the guest agent
                rest = node.args[node.args.index(words[0]) + 1 :]
                keys = literal_keys(rest[0], function) if rest else set()
                yield f"{path.relative_to(ROOT)}:{node.lineno}", str(words[0].value), keys


COMMANDS = list(sent())


def test_the_commands_are_found_in_the_code() -> None:
    names = {name for _where, name, _keys in COMMANDS}
    assert {"cont", "qom-set", "balloon", "add_client", "set_password", "query-status"} <= names


@pytest.mark.parametrize("version", plans.VERSIONS)
def test_every_command_exists_and_takes_its_arguments(version: str) -> None:
    known = plans.commands(version)
    wrong = []
    for where, name, keys in COMMANDS:
        if name not in known:
            wrong.append(f"{where}: there is no {name}")
            continue
        allowed = {argument.rstrip("?") for argument in known[name]}
        wanted = {argument for argument in known[name] if not argument.endswith("?")}
        if keys is not None and not (keys <= allowed and wanted <= keys):
            wrong.append(f"{where}: {name} takes {known[name]}, not {sorted(keys)}")
    assert wrong == []


@pytest.mark.parametrize("version", plans.VERSIONS)
def test_what_was_recorded_is_whole(version: str) -> None:
    assert set(plans.commands(version)) == set(plans.qemu(version).commands)
    assert plans.qemu(version).version_text.startswith(version)
