"""The server behind the page: files, what changes, what is asked for, and consoles.

Everything but files goes over WebSockets: `/live` (JSON both ways), `/screen/NAME` (RFB, the bytes
of VNC, for noVNC) and `/login`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from qlaunch.cli import talk
from qlaunch.cli.web import actions, pages
from qlaunch.cli.web.guard import Guard, headers_for
from qlaunch.errors import InternalError, QlaunchError, UsageError

# How often the machines are looked at while somebody looks at the page.
LOOK_EVERY = 1.0
# Whoever is slower than this to log in, or to say his secret, is cut off.
LOGIN_TIMEOUT = 20.0
MOST_MESSAGE = 1 << 20
MOST_AT_ONCE = 16
_CHUNK = 256 << 10
Say = Callable[[str], None]


class Server:
    """One `qlaunch web`."""

    def __init__(self, guard: Guard, novnc: str, say: Say) -> None:
        self._guard = guard
        self._novnc = novnc
        self._say = say
        self._viewers: set[ServerConnection] = set()
        self._seen: str | None = None
        self._looking = asyncio.Event()

    async def run(
        self, listener: socket.socket, context: ssl.SSLContext | None, stop: asyncio.Event
    ) -> None:
        """Serve until `stop`."""
        async with (
            serve(
                self._handle,
                sock=listener,
                ssl=context,
                process_request=self._answer,
                server_header=None,
                max_size=MOST_MESSAGE,
                # A screen is compressed already, and the rest is small.
                compression=None,
                subprotocols=[Subprotocol("binary")],
                select_subprotocol=_subprotocol,
                close_timeout=2,
            ),
            asyncio.TaskGroup() as group,
        ):
            watch = group.create_task(self._watch())
            await stop.wait()
            watch.cancel()

    # ---- files ----------------------------------------------------------------------------------

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """A file, or nothing where a WebSocket is to be opened."""
        host, parts = request.headers.get("Host"), urlsplit(request.path)
        if not self._guard.is_called_right(host):
            return _text(HTTPStatus.FORBIDDEN, "this server has another name")
        known = self._guard.knows(request.headers.get("Cookie"))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if not self._guard.is_own_page(request.headers.get("Origin"), host):
                return _text(HTTPStatus.FORBIDDEN, "a page from elsewhere")
            if not known and parts.path != "/login":
                return _text(HTTPStatus.UNAUTHORIZED, "log in first")
            return None
        if parts.path == "/" and parts.query:
            return await self._log_in_by_link(connection, parse_qs(parts.query))
        path = unquote(parts.path).lstrip("/")
        if path in ("", "login"):
            path = "index.html" if known else "login.html"
        if not known and path not in pages.OPEN:
            return _text(HTTPStatus.UNAUTHORIZED, "log in first")
        if path.startswith("shot/"):
            return await _shot(path.removeprefix("shot/"))
        found = await asyncio.to_thread(pages.read, path, self._novnc)
        if found is None:
            return _text(HTTPStatus.NOT_FOUND, "there is no such page")
        return _response(HTTPStatus.OK, *found)

    async def _log_in_by_link(
        self, connection: ServerConnection, asked: Mapping[str, list[str]]
    ) -> Response:
        """A link that was printed, or the form's: a cookie, and nothing in the address bar."""
        ticket = asked.get("ticket", [""])[0]
        if "token" in asked:
            ticket = await self._try(connection, asked["token"][0]) or ""
        session = self._guard.take(ticket)
        answer = _text(HTTPStatus.SEE_OTHER, "")
        answer.headers["Location"] = "/"
        if session is not None:
            answer.headers["Set-Cookie"] = self._guard.set_cookie(session)
        return answer

    async def _try(self, connection: ServerConnection, secret: str) -> str | None:
        """A ticket for who knows the secret; mistakes of an address slow it down."""
        address = str((connection.remote_address or ("",))[0])
        delay = self._guard.delay(address, time.monotonic())
        if delay is None:
            return None
        if delay:
            try:
                await asyncio.sleep(delay)
            finally:
                self._guard.waited(address, time.monotonic())
        ticket = self._guard.log_in(secret, address, time.monotonic())
        if ticket is None:
            self._say(f"{address} does not know the password")
        return ticket

    # ---- sockets --------------------------------------------------------------------------------

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = unquote(urlsplit(connection.request.path).path)
        try:
            if path == "/login":
                await self._log_in(connection)
            elif path == "/live":
                await self._live(connection)
            elif path.startswith("/screen/"):
                await _screen(connection, path.removeprefix("/screen/"))
            else:
                await connection.close(1008, "there is no such place")
        except ConnectionClosed:
            return

    async def _log_in(self, connection: ServerConnection) -> None:
        """A ticket for the form's secret, good for the link that sets the cookie, once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOGIN_TIMEOUT):
                secret = await connection.recv()
            await connection.send(json.dumps({"ticket": await self._try(connection, str(secret))}))

    async def _live(self, connection: ServerConnection) -> None:
        self._viewers.add(connection)
        self._looking.set()
        try:
            if self._seen is not None:
                await connection.send(self._seen)
            async with asyncio.TaskGroup() as group:
                tasks: set[asyncio.Task[None]] = set()
                with contextlib.suppress(ConnectionClosed):
                    async for message in connection:
                        if len(tasks) >= MOST_AT_ONCE:
                            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                        task = group.create_task(_act(connection, message))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
        finally:
            self._viewers.discard(connection)

    async def _watch(self) -> None:
        """Tell all viewers what the machines do; rest while there are none."""
        while True:
            if not self._viewers:
                self._looking.clear()
                self._seen = None
                await self._looking.wait()
            try:
                seen: dict[str, Any] = {"machines": await asyncio.to_thread(actions.overview)}
            except QlaunchError as error:
                seen = {"machines": [], "error": error.to_dict()}
            text = json.dumps(seen)
            if text != self._seen:
                self._seen = text
                for viewer in tuple(self._viewers):
                    with contextlib.suppress(ConnectionClosed):
                        await viewer.send(text)
            await asyncio.sleep(LOOK_EVERY)


async def _act(connection: ServerConnection, message: str | bytes) -> None:
    """Do what one message asks for, and tell how it goes and how it went."""
    loop = asyncio.get_running_loop()
    number: object = None
    said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def tell(step: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(said.put_nowait, {"progress": step})

    async def pass_on() -> None:
        while (words := await said.get()) is not None:
            with contextlib.suppress(ConnectionClosed):
                await connection.send(json.dumps({"id": number, **words}))

    async with asyncio.TaskGroup() as group:
        group.create_task(pass_on())
        try:
            number, verb, name, args = _read(message)
            result = await asyncio.to_thread(actions.act, verb, name, args, tell)
            said.put_nowait({"result": result})
        except QlaunchError as error:
            said.put_nowait({"error": error.to_dict()})
        except (OSError, ValueError) as error:
            said.put_nowait({"error": InternalError(str(error)).to_dict()})
        finally:
            said.put_nowait(None)


def _read(message: str | bytes) -> tuple[object, str, str, Mapping[str, Any]]:
    """The parts of a request. Raises: UsageError."""
    try:
        asked = json.loads(message)
        number, verb, name = asked["id"], asked["verb"], asked["name"]
        args = asked.get("args") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError("the page asked for nothing that makes sense") from None
    if not (isinstance(verb, str) and isinstance(name, str) and isinstance(args, dict)):
        raise UsageError("the page asked for nothing that makes sense")
    return number, verb, name, args


async def _screen(connection: ServerConnection, name: str) -> None:
    """Carry the bytes of VNC between the browser and QEMU until one of them hangs up."""
    try:
        control, early = await asyncio.to_thread(_open_screen, name)
    except QlaunchError as error:
        # A reason has at most 123 bytes.
        await connection.close(4004, error.message.encode()[:120].decode(errors="ignore"))
        return
    control.setblocking(False)  # noqa: FBT003  # its name for it
    reader, writer = await asyncio.open_connection(sock=control)
    try:
        if early:
            await connection.send(early)
        async with asyncio.TaskGroup() as group:
            down = group.create_task(_to_browser(reader, connection))
            try:
                async for data in connection:
                    writer.write(data if isinstance(data, bytes) else data.encode())
                    await writer.drain()
            except (ConnectionClosed, ConnectionError):
                pass
            finally:
                down.cancel()
    finally:
        writer.close()


async def _to_browser(reader: asyncio.StreamReader, connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionError, ConnectionClosed):
        while data := await reader.read(_CHUNK):
            await connection.send(data)
    await connection.close(1000, "the machine has hung up")


def _open_screen(name: str) -> tuple[socket.socket, bytes]:
    """A connection that is a VNC client's by now, and what came over it. Raises: QlaunchError."""
    connection = talk.open_machine(name)
    try:
        connection.ask("screen", {"name": name})
    except BaseException:
        connection.socket.close()
        raise
    # QEMU may have spoken already, right behind the answer.
    return connection.socket, connection.rest()


async def _shot(name: str) -> Response:
    data = await asyncio.to_thread(actions.screenshot, name.removesuffix(".png"))
    if data is None:
        return _text(HTTPStatus.NOT_FOUND, "it shows nothing")
    return _response(HTTPStatus.OK, "image/png", data)


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol("binary") if "binary" in offered else None


def _text(status: HTTPStatus, words: str) -> Response:
    return _response(status, "text/plain; charset=utf-8", f"{words}\n".encode())


def _response(status: HTTPStatus, kind: str, body: bytes) -> Response:
    headers = Headers(headers_for(kind, private=kind in ("image/png", "text/plain; charset=utf-8")))
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
