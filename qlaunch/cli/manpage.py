"""The manual page, generated from the parsers.

`python -m qlaunch.cli.manpage` writes share/man/qlaunch.1.
"""

from __future__ import annotations

import os
import re
import sys

from qlaunch.cli.registry import EXIT_STATUS, GROUPS
from qlaunch.cli.shape import Argument, Shape, shapes

NAME = "qlaunch.1"
_FILES = (
    ("~/.config/qlaunch/profiles/NAME.toml", "profiles; then /etc/qlaunch/profiles"),
    ("~/.local/share/qlaunch/machines/NAME", "disks, NVRAM, TPM state, snapshots"),
    ("~/.local/state/qlaunch/machines/NAME", "the saved plan, logs"),
    ("$XDG_RUNTIME_DIR/qlaunch", "sockets"),
    ("~/.cache/qlaunch", "what QEMU was found to be able to do"),
    ("./qlaunch.toml", "the profile that a command without a name means"),
)
_ENVIRONMENT = (
    ("XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME, XDG_CACHE_HOME, XDG_RUNTIME_DIR",
     "where the folders above are"),
    ("DISPLAY, WAYLAND_DISPLAY", "where a viewer is opened"),
    ("NO_COLOR", "when set, nothing is printed in colours"),
    ("QLAUNCH_DEBUG", "when 1, bugs of qlaunch show their traceback"),
)  # fmt: skip
_INTRO = (
    "qlaunch runs QEMU/KVM machines, without libvirt. A profile (a commented TOML file) says what "
    "the machine is to be; `qlaunch up` starts it and a small supervisor looks after it.",
    "Data is printed on standard output, everything else on standard error. With --json, data and "
    "errors are JSON, a line each. NAME may be a pattern such as 'web-*' where several are taken.",
)


def generate() -> str:
    """The manual page, in the man macros."""
    every = shapes()
    lines = [
        '.\\" Generated from the parsers of qlaunch by `make generate`; do not edit.',
        '.TH QLAUNCH 1 "" qlaunch "User Commands"',
        ".SH NAME",
        "qlaunch \\- run QEMU/KVM machines from TOML profiles",
        ".SH SYNOPSIS",
        ".B qlaunch",
        r"[\fB\-\-json\fR] [\fB\-q\fR|\fB\-v\fR] \fICOMMAND\fR [\fINAME\fR ...] [options]",
        ".SH DESCRIPTION",
    ]
    for paragraph in _INTRO:
        lines += [".PP", _text(paragraph)]
    lines += [".SH OPTIONS", "Every command takes these."]
    lines += [line for option in every[0].shared for line in _option(option)]
    lines += [".TP", r"\fB\-\-version\fR", "print the version"]
    for group in GROUPS:
        members = [shape for shape in every if shape.verb.group == group]
        if members:
            lines.append(f".SH {group.upper()}")
            lines += [line for shape in members for line in _verb(shape)]
    for title, entries in (
        ("EXIT STATUS", [(str(status), meaning) for status, meaning in EXIT_STATUS]),
        ("FILES", _FILES),
        ("ENVIRONMENT", _ENVIRONMENT),
    ):
        lines.append(f".SH {title}")
        lines += [line for head, text in entries for line in (".TP", _bold(head), _text(text))]
    lines += [".SH SEE ALSO", ".BR qemu (1),", ".BR remote-viewer (1)"]
    return "\n".join(lines) + "\n"


def _verb(shape: Shape) -> list[str]:
    words = [_bold(f"qlaunch {shape.name}")]
    words += [_italic(argument.synopsis) for argument in shape.arguments]
    if shape.options:
        words.append("[options]")
    lines = [f".SS {_bold(shape.name)}", " ".join(words), ".PP", *_prose(shape)]
    if not shape.actions:
        for argument in shape.arguments:
            lines += [".TP", _italic(argument.kind), _text(argument.help)]
    for option in shape.options:
        lines += _option(option)
    lines += _epilog(shape.epilog)
    return lines + [line for action in shape.actions for line in _verb(action)]


def _prose(shape: Shape) -> list[str]:
    """The description; the list of actions is for the terminal, here each has its own section."""
    said = shape.description.partition("\n\nactions (")[0] if shape.actions else shape.description
    return [_text(said)]


def _option(option: Argument) -> list[str]:
    flags = ", ".join(_bold(flag) for flag in option.flags)
    value = f" {_italic(option.kind)}" if option.takes_value else ""
    return [".TP", flags + value, _text(option.help)]


def _epilog(text: str) -> list[str]:
    """Indented lines (examples) as they are, the others as paragraphs."""
    lines: list[str] = []
    literal = False
    for line in filter(None, text.split("\n")):
        if line.startswith("  ") != literal:
            literal = not literal
            lines += [".RS 4", ".nf"] if literal else [".fi", ".RE"]
        if literal:
            lines.append(_escaped(line[2:]))
        else:
            lines += [".PP", _text(line[0].upper() + line[1:])]
    return [*lines, ".fi", ".RE"] if literal else lines


def _text(text: str) -> str:
    """Running text; what is in `backquotes` becomes bold."""
    lines = [_escaped(line) for line in text.split("\n")]
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fR", "\n".join(lines))


def _escaped(line: str) -> str:
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_escaped(text)}\\fR"


def write(folder: str) -> None:
    """Write the page into `folder`."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, NAME), "w", encoding="utf-8") as file:
        file.write(generate())


if __name__ == "__main__":
    write(sys.argv[1] if len(sys.argv) > 1 else os.path.join("share", "man"))
