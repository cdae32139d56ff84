#!/usr/bin/env python3
"""Functions of at most 50 lines, files of at most 400. Prints each offender; exit status 1 if any.

A function's lines are counted from `def` to its last line, without its docstring and without the
lines of functions inside it. A file whose first five lines say `Generated` is not counted.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION_LIMIT = 50
FILE_LIMIT = 400
FOLDERS = ("qlaunch", "tests", "tools")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(node: ast.AST) -> int:
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", 0)
    return int(last) - int(first) + 1


def docstring_lines(function: Function) -> int:
    return 0 if ast.get_docstring(function, clean=False) is None else lines_of(function.body[0])


def inner_functions(node: ast.AST) -> Iterator[Function]:
    """The functions directly inside `node`, not those inside them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child
        else:
            yield from inner_functions(child)


def function_size(function: Function) -> int:
    inner = sum(lines_of(child) for child in inner_functions(function))
    return lines_of(function) - docstring_lines(function) - inner


def long_functions(tree: ast.AST) -> Iterator[tuple[Function, int]]:
    for node in ast.walk(tree):
        if isinstance(node, Function) and function_size(node) > FUNCTION_LIMIT:
            yield node, function_size(node)


def offences(path: Path) -> Iterator[str]:
    """Raises: SyntaxError when the file is not Python."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    if any("Generated" in line for line in lines[:5]):
        return
    if len(lines) > FILE_LIMIT:
        yield f"{path}: {len(lines)} lines, at most {FILE_LIMIT}"
    for function, size in long_functions(ast.parse(source, str(path))):
        where = f"{path}:{function.lineno}: {function.name}"
        yield f"{where}: {size} lines, at most {FUNCTION_LIMIT}"


def main(folders: list[str]) -> int:
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    found = [line for path in files for line in offences(path)]
    print("\n".join(found) or f"sizes: {len(files)} files, all of them small enough")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(FOLDERS)))
