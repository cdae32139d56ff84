"""Running the page's server in the foreground: its address, certificate, secret, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
import sys
import webbrowser

from attrs import frozen

from qlaunch.cli import output
from qlaunch.cli.web import pages
from qlaunch.cli.web.guard import Guard, fresh_secret, is_loopback, names_of
from qlaunch.cli.web.server import Server
from qlaunch.errors import HostError, UsageError
from qlaunch.host.sockets import bind_tcp

SHORTEST_PASSWORD = 12


@frozen(kw_only=True)
class Wish:
    """What the command line says."""

    host: str
    port: int
    tls: bool = False
    cert: str | None = None
    key: str | None = None
    password_file: str | None = None
    names: tuple[str, ...] = ()
    open: bool = True
    machine: str | None = None


def run(wish: Wish, *, quiet: bool, as_json: bool) -> None:
    """Serve the page until SIGINT or SIGTERM. Raises: HostError, ConflictError, UsageError."""
    novnc = pages.find_novnc()
    secret = _secret(wish.password_file)
    context = _context(wish)
    listener = bind_tcp(wish.host, wish.port)
    port = int(listener.getsockname()[1])
    guard = Guard(
        secret=secret,
        port=port,
        tls=context is not None,
        names=_names(wish),
    )
    url = _url(wish, port, tls=context is not None)
    link = url if wish.password_file else f"{url}?token={secret}"
    if wish.machine:
        link += f"#{wish.machine}"
    asyncio.run(_serve(wish, guard, novnc, listener, context, link, quiet=quiet, as_json=as_json))


async def _serve(
    wish: Wish,
    guard: Guard,
    novnc: str,
    listener: socket.socket,
    context: ssl.SSLContext | None,
    link: str,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if as_json:
        output.print_json({"url": link})
        sys.stdout.flush()
    else:
        print(link, flush=True)
        output.note("Ctrl-C ends it; the machines run on", quiet=quiet)
    if wish.open:
        await asyncio.to_thread(_open_browser, link)
    await Server(guard, novnc, output.note).run(listener, context, stop)


def _names(wish: Wish) -> frozenset[str]:
    more = list(wish.names)
    if not is_loopback(wish.host):
        from qlaunch.machine.certificates import names_for

        more += names_for([wish.host])
    return names_of(wish.host, more)


def _url(wish: Wish, port: int, *, tls: bool) -> str:
    host = wish.host
    if wish.names:
        host = wish.names[0]
    elif host in ("", "*", "0.0.0.0", "::"):
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}/"


def _secret(file: str | None) -> str:
    """The password in `file`, or a fresh token. Raises: HostError, UsageError."""
    if file is None:
        return fresh_secret()
    try:
        with open(file, encoding="utf-8") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            password = opened.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not text"
        raise HostError(f"{file} cannot be read: {words}") from error
    if stat.S_ISREG(mode) and mode & 0o077:
        raise HostError(f"others may read {file}", hint=f"chmod 600 {file}")
    if len(password) < SHORTEST_PASSWORD:
        raise UsageError(
            f"the password in {file} is shorter than {SHORTEST_PASSWORD} letters",
            hint=f"openssl rand -base64 18 > {file}",
        )
    return password


def _context(wish: Wish) -> ssl.SSLContext | None:
    """TLS, with the certificate that was given or with ours; none on the loopback unless asked."""
    if is_loopback(wish.host) and not (wish.tls or wish.cert):
        return None
    cert, key = wish.cert, wish.key
    if cert is None:
        from qlaunch.machine import certificates

        made = certificates.ensure(certificates.names_for([wish.host], wish.names))
        cert, key = made.server, None
        output.note(f"browsers must be told to trust {made.ca}, once")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise HostError(f"the certificate {cert} cannot be used: {error}") from error
    return context


def _open_browser(link: str) -> None:
    """Show the page, where there is a desktop. The link is this process's own secret: a browser
    gets it by a file that only the user can read, never by its command line."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    from qlaunch.store import paths

    folder = paths.ensure_private(paths.runtime_dir())
    path = os.path.join(folder, "web.html")
    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={link}">\n'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(page)
    try:
        webbrowser.open(f"file://{path}")
    except webbrowser.Error as error:
        print(error, file=sys.stderr)
