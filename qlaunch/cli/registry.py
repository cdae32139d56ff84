"""The table of verbs. On the thin client's path: imports nothing.

A verb's module (below `qlaunch.cli.verbs`) has two functions:

- `configure(parser)` adds arguments and sets `parser.description` and `parser.epilog` (examples,
  each line `qlaunch ...`, then two spaces and what it does). `parser.get_default("verb")` is the
  verb, for modules that serve several.
- `run(args) -> int` does the work and returns the exit status; what goes wrong is raised as a
  `QlaunchError`.

A verb whose actions take different arguments has `ACTIONS` as well: by name a line of help, and the
function that configures the parser of that action; `configure` adds no arguments then, and `run`
finds the action in `args.action`.

Completion is generated from the parsers; an argument's metavar says what it completes to: NAME (a
profile or machine), NETWORK (a network), FILE (a file), FOLDER (a folder), PROFILE (a name or a
profile's file), IMAGE (a name or any file).
"""

from __future__ import annotations

GROUPS = (
    "Run",
    "Look inside",
    "Disks, media and snapshots",
    "Networks",
    "Talk to the guest and to QEMU",
    "Define",
    "Set up",
)
_RUN, _LOOK, _SNAPSHOTS, _NETWORKS, _TALK, _DEFINE, _SETUP = GROUPS


class Verb:
    """One verb: its name, its module below `qlaunch.cli.verbs`, a line of help and its group."""

    __slots__ = ("group", "help", "module", "name")

    def __init__(self, group: str, name: str, module: str, help_line: str) -> None:
        self.group = group
        self.name = name
        self.module = module
        self.help = help_line


VERBS = {
    verb.name: verb
    for verb in (
        Verb(_RUN, "up", "up", "start machines"),
        Verb(_RUN, "down", "power", "shut machines down, gracefully"),
        Verb(_RUN, "restart", "power", "shut machines down and start them again"),
        Verb(_RUN, "kill", "power", "end machines at once, as if the power failed"),
        Verb(_RUN, "reset", "power", "press the reset button"),
        Verb(_RUN, "pause", "power", "stop the guest's processors; memory stays"),
        Verb(_RUN, "resume", "power", "let paused machines go on"),
        Verb(_RUN, "set", "set", "change memory and limits while machines run"),
        Verb(_RUN, "save", "save", "suspend machines to disk; `up` goes on from there"),
        Verb(
            _RUN, "wait", "wait", "wait until a machine runs, answers, says something or is stopped"
        ),
        Verb(_RUN, "run", "run", "run a machine in the foreground; Ctrl-C shuts it down"),
        Verb(_LOOK, "ps", "ps", "list the machines that run"),
        Verb(_LOOK, "status", "status", "show everything about one machine"),
        Verb(_LOOK, "top", "top", "watch what the machines use"),
        Verb(_LOOK, "events", "events", "show what happened to machines, and what happens"),
        Verb(_LOOK, "view", "view", "open a machine's screen in a viewer"),
        Verb(_LOOK, "display", "display", "who may look at the screen, and who does"),
        Verb(_LOOK, "web", "web", "show all machines in a browser, with their consoles"),
        Verb(_LOOK, "console", "console", "use the serial console; Ctrl-] leaves"),
        Verb(_LOOK, "logs", "logs", "show what QEMU and the supervisor said"),
        Verb(_LOOK, "screenshot", "screenshot", "save a picture of the screen"),
        Verb(_LOOK, "argv", "argv", "print QEMU's command line"),
        Verb(_SNAPSHOTS, "snapshot", "snapshot", "take, list, change and delete snapshots"),
        Verb(_SNAPSHOTS, "revert", "revert", "go back to a snapshot, running or stopped"),
        Verb(_SNAPSHOTS, "jobs", "jobs", "list what works on the disks; cancel it, slow it down"),
        Verb(_SNAPSHOTS, "media", "media", "insert or eject CDs and floppies"),
        Verb(_SNAPSHOTS, "disk", "disk", "plug in, take out, resize, move, check and make disks"),
        Verb(_SNAPSHOTS, "usb", "usb", "USB: this computer's devices, a viewer's, files as sticks"),
        Verb(_SNAPSHOTS, "image", "image", "show what an image stands on"),
        Verb(_NETWORKS, "nic", "nic", "plug in, take out, change and list network cards"),
        Verb(_NETWORKS, "forward", "forward", "list, add and remove port forwards into a guest"),
        Verb(_NETWORKS, "ip", "ip", "show a guest's addresses and where each is known from"),
        Verb(_NETWORKS, "ssh", "ssh", "log in to a guest, by the best way there is"),
        Verb(_TALK, "send-key", "keys", "press keys, such as ctrl-alt-delete"),
        Verb(_TALK, "type", "keys", "type a text on the guest's keyboard"),
        Verb(_TALK, "clipboard", "clipboard", "read and write the guest's clipboard"),
        Verb(_TALK, "inject", "inject", "an NMI, the power button, a wake-up"),
        Verb(_TALK, "nmi", "inject", "send a non-maskable interrupt"),
        Verb(_TALK, "dump", "dump", "write a guest's memory to a file, for crash analysis"),
        Verb(_TALK, "qmp", "monitor", "send a QMP command to QEMU"),
        Verb(_TALK, "hmp", "monitor", "send a line to QEMU's human monitor"),
        Verb(_DEFINE, "new", "new", "write a new profile"),
        Verb(_DEFINE, "import", "imports", "turn libvirt's XML into a profile"),
        Verb(_DEFINE, "export", "exports", "print a profile as a domain of libvirt"),
        Verb(_DEFINE, "list", "list", "list the profiles"),
        Verb(_DEFINE, "show", "show", "print a profile"),
        Verb(_DEFINE, "edit", "edit", "open a profile in an editor, then check it"),
        Verb(_DEFINE, "check", "check", "find what is wrong with a profile, before it starts"),
        Verb(_DEFINE, "clone", "clone", "copy a profile and its disks"),
        Verb(_DEFINE, "rename", "rename", "give a profile another name"),
        Verb(_DEFINE, "rm", "rm", "remove a profile and the files of its machine"),
        Verb(_SETUP, "net", "net", "make, show and change networks"),
        Verb(_SETUP, "doctor", "doctor", "say what this computer can do, and how to mend the rest"),
        Verb(_SETUP, "supervisor", "supervisor", "look at, stop or restart the supervisor"),
        Verb(_SETUP, "service", "service", "have systemd start machines and stop them gracefully"),
        Verb(_SETUP, "autostart", "autostart", "have machines start with the computer"),
        Verb(_SETUP, "completion", "about", "print the completion for bash, zsh or fish"),
        Verb(_SETUP, "help", "about", "explain qlaunch or one of its commands"),
    )
}

EXIT_STATUS = (
    (0, "done"),
    (1, "it failed"),
    (2, "the command line or the profile is wrong"),
    (3, "no supervisor answers and none could be started"),
    (4, "there is no such profile, machine or device"),
    (5, "something is in the way: it runs already, is busy or locked"),
    (6, "policy or capacity forbids it"),
    (7, "it was not done in time"),
    (130, "interrupted with Ctrl-C"),
)


def closest(word: str) -> str | None:
    """The verb that `word` was perhaps meant to be."""
    import difflib

    found = difflib.get_close_matches(word, VERBS, 1, 0.5)
    return found[0] if found else None
