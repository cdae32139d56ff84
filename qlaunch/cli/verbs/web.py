"""`qlaunch web`."""

from __future__ import annotations

from qlaunch.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

DEFAULT_PORT = 8116


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "One page in the browser with all machines: their screens, power, CDs, snapshots, and a\n"
        "console for each. It listens on this computer only and prints a link that lets in who\n"
        "has it. With --listen others reach it: over TLS, and with that link or a password.\n"
        "It serves until Ctrl-C; the machines run on."
    )
    parser.epilog = (
        "examples:\n"
        "  qlaunch web                             here, and open the browser\n"
        "  qlaunch web --no-open                   print the link only\n"
        "  qlaunch web --listen 0.0.0.0:8443 --password-file ~/.qlaunch-web\n"
        "  ssh -L 8116:localhost:8116 server qlaunch web     a server's page on your desktop"
    )
    parser.add_argument(
        "--listen",
        default=f"127.0.0.1:{DEFAULT_PORT}",
        metavar="ADDRESS:PORT",
        help=f"where (127.0.0.1:{DEFAULT_PORT}); port 0 means any free one",
    )
    parser.add_argument(
        "--password-file", metavar="FILE", help="its first line is asked for, instead of the link"
    )
    parser.add_argument("--tls", action="store_true", help="TLS on this computer, too")
    parser.add_argument("--cert", metavar="FILE", help="this certificate, instead of one of ours")
    parser.add_argument("--key", metavar="FILE", help="its key, if it is not in the same file")
    parser.add_argument(
        "--name", action="append", default=[], metavar="HOST",
        help="browsers call this computer so, too (again for more)",
    )  # fmt: skip
    parser.add_argument("--no-open", action="store_true", help="do not open the browser")


def run(args: argparse.Namespace) -> int:
    host, port = address(args.listen)
    if args.key and not args.cert:
        raise UsageError("--key goes with --cert")
    from qlaunch.cli.web import running

    running.run(
        running.Wish(
            host=host,
            port=port,
            tls=args.tls,
            cert=args.cert,
            key=args.key,
            password_file=args.password_file,
            names=tuple(args.name),
            open=not (args.no_open or args.json),
        ),
        quiet=args.quiet,
        as_json=args.json,
    )
    return 0


def address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8116`, `[::1]:8116`, or one of the two alone. Raises: UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon and text.isdecimal():
        host, port = "127.0.0.1", text
    elif not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address", hint="such as 127.0.0.1:8116 or [::1]:8116")
    return host.strip("[]"), int(port)
