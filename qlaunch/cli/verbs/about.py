"""`qlaunch help` and `qlaunch completion`."""

from __future__ import annotations

from qlaunch.cli import parsers, registry
from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    if parser.get_default("verb") == "help":
        parser.description = "Explain qlaunch, or one of its commands."
        parser.epilog = (
            "examples:\n"
            "  qlaunch help\n"
            "  qlaunch help up               as `qlaunch up --help`\n"
            "  qlaunch help disk attach      one action of a command"
        )
        parser.add_argument("command", nargs="?", metavar="COMMAND", help="the command")
        parser.add_argument("action", nargs="?", metavar="ACTION", help="one action of it")
        return
    parser.description = (
        "Print the completion for a shell, where the package did not install it. With it, Tab\n"
        "completes commands, options and the names of machines."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch completion bash > ~/.local/share/bash-completion/completions/qlaunch\n"
        "  qlaunch completion zsh > ~/.zfunc/_qlaunch        (with fpath+=~/.zfunc)\n"
        "  qlaunch completion fish > ~/.config/fish/completions/qlaunch.fish"
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")


def run(args: argparse.Namespace) -> int:
    if args.verb == "completion":
        from qlaunch.cli import completion

        print(completion.generate(args.shell), end="")
    elif args.command is None:
        from qlaunch.cli.overview import overview

        print(overview())
    else:
        _explain(args.command, args.action)
    return 0


def _explain(word: str, action: str | None) -> None:
    verb = registry.VERBS.get(word)
    if verb is None:
        meant = registry.closest(word)
        raise UsageError(
            f"no command {word!r}", hint=f"did you mean {meant!r}?" if meant else "`qlaunch help`"
        )
    module = parsers.load(verb)
    known = parsers.actions_of(module)
    if action is not None and action not in known:
        raise UsageError(
            f"`qlaunch {word}` has no action {action!r}",
            hint=f"it has {', '.join(known)}" if known else f"`qlaunch help {word}` explains it",
        )
    print(parsers.build(verb, module, action or "").format_help(), end="")
