"""In which order machines start: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def prerequisites(after: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Which of the machines in `after` each of them starts after; others do not count."""
    return {name: frozenset(others) & (after.keys() - {name}) for name, others in after.items()}


def reversed_order(before: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The same for stopping: a machine stops when those that start after it have stopped."""
    return {
        name: frozenset(other for other, theirs in before.items() if name in theirs)
        for name in before
    }


def circle(before: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Machines that all wait for each other, the first one again at the end; none if there are
    none such."""
    done: set[str] = set()
    for start in sorted(before):
        path: list[str] = []
        if found := _walk(before, start, path, done):
            return found
    return ()


def _walk(
    before: Mapping[str, frozenset[str]], start: str, path: list[str], done: set[str]
) -> tuple[str, ...]:
    """Depth first, without recursion: a thousand machines in a row are no mistake."""
    stack = [(start, iter(sorted(before[start])))]
    path.append(start)
    while stack:
        name, rest = stack[-1]
        other = next((each for each in rest if each not in done), None)
        if other is None:
            done.add(name)
            path.pop()
            stack.pop()
        elif other in path:
            return (*path[path.index(other) :], other)
        else:
            path.append(other)
            stack.append((other, iter(sorted(before[other]))))
    return ()
