"""A tree in the terminal: lines of descent go straight down, only branches are indented."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

UNICODE = ("● ", "├─", "│ ", "◆ ")
ASCII = ("* ", "|-", "| ", "@ ")


def draw(
    children: Mapping[int | None, Sequence[int]],
    label: Callable[[int], str],
    here: int,
    *,
    signs: tuple[str, str, str, str] = UNICODE,
) -> Iterator[str]:
    """The lines of the tree whose roots are `children[None]`; the line that leads to `here` is the
    straight one."""
    on_the_way = _ancestors(children, here)
    dot, fork, bar, mark = signs

    def lines(starts: Sequence[int], indent: str) -> Iterator[str]:
        level = list(starts)
        while level:
            # What leads to the present goes straight on, last and so nearest to it.
            level.sort(key=lambda number: (number in on_the_way, number))
            *aside, straight = level
            for number in aside:
                branch = lines([number], "")
                yield f"{indent}{fork}{next(branch)}"
                yield from (f"{indent}{bar}{line}" for line in branch)
            yield f"{indent}{mark if straight == here else dot}{label(straight)}"
            level = list(children.get(straight, ()))

    yield from lines(children.get(None, ()), "")


def _ancestors(children: Mapping[int | None, Sequence[int]], here: int) -> set[int]:
    parents = {child: parent for parent, found in children.items() for child in found}
    found, at = set(), parents.get(here)
    found.add(here)
    while at is not None:
        found.add(at)
        at = parents.get(at)
    return found
