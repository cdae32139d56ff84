"""`qlaunch --help`, written from the table of verbs without argparse."""

from __future__ import annotations

from qlaunch.cli.registry import EXIT_STATUS, GROUPS, VERBS


def overview() -> str:
    """The page that a newcomer reads first; no line is longer than 80 columns."""
    lines = ["Usage: qlaunch [--json] [-q|-v] COMMAND [NAME ...] [options]", ""]
    for group in GROUPS:
        lines.append(f"{group}:")
        lines += [f"  {v.name:<11} {v.help}" for v in VERBS.values() if v.group == group]
        lines.append("")
    lines += [
        "Try:  qlaunch up demo && qlaunch console demo     a guest of 2 KiB, no download",
        "",
        "--json prints data for programs, errors included. -q prints no progress.",
        "`qlaunch COMMAND --help` explains a command, with examples.",
        "",
        "Exit status:",
    ]
    lines += [f"  {status:<4} {meaning}" for status, meaning in EXIT_STATUS]
    return "\n".join(lines)
