"""plan -> command line. Pure: the same plan gives the same words."""

from qlaunch.argv.build import Handles, build, command_line, scope_prefix, scope_unit
from qlaunch.argv.keyval import keyval, to_json

__all__ = [
    "Handles",
    "build",
    "command_line",
    "keyval",
    "scope_prefix",
    "scope_unit",
    "to_json",
]
