"""The reference pages of profiles and networks, written from their models.

`python -m qlaunch.profile.reference` writes them and their JSON Schemas into `docs`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from qlaunch import units
from qlaunch.profile.extends import BASE_OF_GUEST
from qlaunch.profile.fields import Entry, Key, entries_of
from qlaunch.profile.model import Profile
from qlaunch.profile.network import Network
from qlaunch.profile.network_page import NETWORK_INTRODUCTION
from qlaunch.profile.schema import schema_text
from qlaunch.profile.tables import Secret
from qlaunch.profile.values import toml_example

DOCS_FOLDER = os.path.join(os.path.dirname(__file__), os.pardir, os.pardir, "docs")

_INTRODUCTION = """\
# The profile

<!-- Written by `make golden` from qlaunch/profile; edit it there. -->

A profile is one TOML file that says what a machine should be. Say as little as you like: what
is not said, qlaunch decides, and `qlaunch show NAME` tells what it decided.

```toml
schema = 1
guest = "windows-xp"      # picks defaults that suit it

[memory]
size = "1GiB"

[[disk]]                  # two brackets: there can be many, each has an id
id = "hda"
size = "20GiB"            # made at the first start

[[cdrom]]
id = "cd0"
path = "~/iso/winxp.iso"
```

`qlaunch check NAME` finds mistakes without starting anything, all of them at once, each with
file, line and key. [profile.schema.json](profile.schema.json) tells an editor the same; for Even
Better TOML or taplo, write `#:schema /path/to/profile.schema.json` into the first line.

## How values are written

- **Sizes** are text with a unit: `"20GiB"`, `"512MiB"`, `"1.5TiB"`. The units are `B`, `KiB`,
  `MiB`, `GiB`, `TiB`, `PiB` (powers of 1024) and `kB`, `MB`, `GB`, `TB` (powers of 1000).
- **Durations** are text with a unit: `"200ms"`, `"90s"`, `"3min"`, `"2h"`, `"1d"`.
- **Files**: a relative path starts at the folder of the file that says it, `~` is your home.
  Commas, spaces and a leading `-` are fine. What begins with `@` is built in; a file of such a
  name is `./@name`.
- **Texts** have no control characters in them: no newline, no tab, no NUL. An empty text is a
  mistake; what you do not want to say, leave out.
- **Ids** begin with a small letter; up to 19 small letters, digits, `_` and `-` follow. An id is
  there once in a profile, whatever it names, and does not end in `-dev` or `-file`. Commands and
  messages name the part by it, and so does QEMU.
- **Secrets** are never written into a profile. Say where they are kept:
  `password = { file = "~/.secrets/xp" }`, `{ env = "XP_PASSWORD" }` or
  `{ systemd-credential = "xp-password" }`.

## Building on other profiles

`extends = ["@windows-xp", "common.toml"]` takes over what others say: built-in bases, which begin
with `@`, and files, relative to the one that extends them. Later ones win over earlier ones, the
file itself wins over all.

- Tables are merged key by key.
- Arrays of tables (`[[disk]]`, `[[channel]]` ...) are merged by `id`: the same id changes the
  inherited item, a new one adds an item, and `remove = true` beside an inherited id takes it away.
- Everything else replaces what was inherited; `[]` empties a list.
- `name`, `title` and `uuid` are not inherited, and every file says its own `schema`.
- At most 10 steps deep, and never in a circle.

Without `extends`, `guest` chooses the base:

"""

_OVERRIDES = """
`extends = []` builds on nothing. The bases are in `qlaunch/profile/bases`, with comments.

## For one start only

`qlaunch up xp --set memory.size=2GiB --set disk.hda.bus=virtio` says a key on the command line;
the file stays as it is. Keys are spelled as in messages: `TABLE.KEY`, or `TABLE.ID.KEY` for an
item of an array, which must exist. The value is read as TOML if it can be, else as text, so quotes
are seldom needed: `cpu.count=4`, `display.vnc=true`, `nic.net0.forward=["2222:22"]`. A list of one
text may be written as the text. `nic.net0.remove=true` removes an item.

## At the top of the file

These come before the first `[table]`.

"""


def reference() -> str:
    """The page, as Markdown."""
    bases = "\n".join(f"| `{guest}` | `{base}` |" for guest, base in BASE_OF_GUEST.items())
    top = [entry for entry in entries_of(Profile).values() if entry.item is None]
    sections = [
        f"{_INTRODUCTION}| guest | base |\n| --- | --- |\n{bases}\n",
        _OVERRIDES + "\n".join(_rows(top)) + "\n",
        *(_section(entry) for entry in entries_of(Profile).values() if entry.item is not None),
        _secrets(),
    ]
    return "".join(sections)


def pages() -> dict[str, str]:
    """Every generated page, by the name of its file in `docs`."""
    return {
        "profile.md": reference(),
        "profile.schema.json": schema_text(),
        "network.md": network_reference(),
        "network.schema.json": schema_text(Network),
    }


def network_reference() -> str:
    """The page about network files, as Markdown."""
    top = [entry for entry in entries_of(Network).values() if entry.item is None]
    return "".join(
        [
            NETWORK_INTRODUCTION + "\n".join(_rows(top)) + "\n",
            *(_section(entry) for entry in entries_of(Network).values() if entry.item is not None),
        ]
    )


def write(folder: str = DOCS_FOLDER) -> None:
    """Write the pages and the JSON Schemas into `folder`."""
    for name, text in pages().items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


def _section(entry: Entry) -> str:
    assert entry.item is not None
    many = entry.key.kind == "tables"
    title = f"[[{entry.name}]]" if many else f"[{entry.name}]"
    doc = " ".join((entry.item.__doc__ or "").split())
    rows = "\n".join(_rows(entries_of(entry.item).values()))
    return f"\n## `{title}`\n\n{doc}\n\n{rows}\n"


def _secrets() -> str:
    rows = "\n".join(_rows(entries_of(Secret).values()))
    return f"\n## Secrets\n\nExactly one of these, in braces.\n\n{rows}\n"


def _rows(entries: Iterable[Entry]) -> Iterator[str]:
    yield "| key | value | meaning | default | example |"
    yield "| --- | --- | --- | --- | --- |"
    for entry in entries:
        key: Key = entry.key
        name = f"`{entry.name}`" + (" (required)" if key.required else "")
        example = f"`{toml_example(key)}`" if key.kind != "id" else ""
        cells = (name, _value(key), key.doc, key.otherwise, example)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _value(key: Key) -> str:
    """What may be written, in a few words."""
    match key.kind:
        case "choice":
            return ", ".join(f"`{choice}`" for choice in key.choices)
        case "boolean":
            return "`true`, `false`"
        case "integer":
            return _bounds("number", key, str)
        case "size":
            return _bounds("size", key, units.format_size)
        case "duration":
            return _bounds("duration", key, units.format_duration)
        case "words":
            return "list of texts"
        case "numbers":
            return _bounds("list of numbers", key, str)
        case "path":
            return "file"
        case "id":
            return "id"
        case "secret":
            return "[secret](#secrets)"
    return key.pattern_words or "text"


def _bounds(what: str, key: Key, show: Callable[..., str]) -> str:
    if key.least is not None and key.least == key.most:
        return f"`{show(int(key.least))}`"
    least = show(int(key.least)) if key.least is not None else None
    most = show(int(key.most)) if key.most is not None else None
    if least and most:
        return f"{what}, {least} to {most}"
    if least:
        return f"{what}, at least {least}"
    return f"{what}, at most {most}" if most else what


if __name__ == "__main__":
    write()
