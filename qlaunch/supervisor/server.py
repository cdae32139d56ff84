"""The supervisor process: its socket, its machines, its own life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from qlaunch import __version__
from qlaunch.control import words
from qlaunch.errors import InternalError, QlaunchError, UsageError
from qlaunch.host.sockets import bind_unix
from qlaunch.store import paths
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.adopt import adopt_all
from qlaunch.supervisor.requests import VERBS, Request
from qlaunch.supervisor.tasks import Tasks, note_bug

# How long a supervisor without machines and clients waits for more work.
IDLE_GRACE = 1.0
REQUEST_TIMEOUT = 10.0


class Server:
    """One supervisor. `path` is its control socket; `foreground` keeps it alive while idle."""

    def __init__(self, path: str, *, foreground: bool = False) -> None:
        self.path = path
        self.actors: dict[str, Actor] = {}
        self.started = time.time()
        self.version = __version__
        self._foreground = foreground
        self._clients = 0
        self._stop = asyncio.Event()
        self._waiters: set[asyncio.Event] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: Tasks | None = None

    @property
    def tasks(self) -> Tasks:
        assert self._tasks is not None
        return self._tasks

    async def serve(self, *, adopt: bool, ready: asyncio.Event) -> None:
        """Adopt machines, answer requests, and return when there is nothing left to look after or
        `stop` was called. Machines that still run then go on without us."""
        async with asyncio.TaskGroup() as group:
            tasks = self._tasks = Tasks(group)
            if adopt:
                await adopt_all(tasks, self.actors, self.note_change)
            listener = bind_unix(self.path, backlog=128)
            server = await asyncio.start_unix_server(
                self._client, sock=listener, limit=words.REQUEST_LIMIT
            )
            ready.set()
            self._consider_ending()
            await self._stop.wait()
            server.close()
            # Who connects from now on finds no socket and starts the next supervisor.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            for actor in list(self.actors.values()):
                await actor.leave()
            tasks.cancel_all()

    def stop(self) -> None:
        self._stop.set()

    def host(self, name: str) -> Actor:
        """A new actor for `name`. Raises: BusyError when another process hosts it."""
        actor = Actor(name, self.tasks, self.note_change)
        self.actors[name] = actor
        return actor

    def note_change(self, actor: Actor) -> None:
        """The actor's machine is in another state, or has ended."""
        if actor.gone.is_set() and self.actors.get(actor.name) is actor:
            del self.actors[actor.name]
            self._consider_ending()
        for waiter in self._waiters:
            waiter.set()

    async def change(self) -> None:
        """Wait until any machine changes its state."""
        waiter = asyncio.Event()
        self._waiters.add(waiter)
        try:
            await waiter.wait()
        finally:
            self._waiters.discard(waiter)

    def _consider_ending(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self.actors and not self._clients and not self._foreground:
            self._idle = asyncio.get_running_loop().call_later(IDLE_GRACE, self._stop.set)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        self._consider_ending()
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._clients -= 1
            self._consider_ending()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it: the one door behind which no error passes."""
        try:
            verb, args = words.decode_request(await _line(reader))
            if verb not in VERBS:
                raise UsageError(f"the supervisor has no verb {verb!r}")
            request = Request(server=self, args=args, reader=reader, writer=writer)
            result = await _watched(request, verb)
        except QlaunchError as error:
            writer.write(words.encode({"error": error.to_dict()}))
        except Exception as error:  # noqa: BLE001 -- the supervisor's door: see CONTRIBUTING.md
            note_bug()
            log = os.path.join(paths.state_dir(), "supervisor.log")
            bug = InternalError(f"a bug in qlaunch: {error!r}", hint=f"please report it with {log}")
            writer.write(words.encode({"error": bug.to_dict()}))
        else:
            if result is not None:
                writer.write(words.encode({"result": result}))
        await writer.drain()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            return await reader.readuntil(b"\n")
    except TimeoutError:
        raise UsageError("no request came") from None
    except asyncio.LimitOverrunError:
        raise UsageError(f"the request is longer than {words.REQUEST_LIMIT} bytes") from None


async def _watched(request: Request, verb: str) -> object:
    """Carry out the verb; a client that hangs up meanwhile cancels it."""
    if verb == "console":
        return await VERBS[verb](request)
    work = asyncio.ensure_future(VERBS[verb](request))
    hangup = asyncio.ensure_future(request.reader.read(1))
    try:
        await asyncio.wait({work, hangup}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        return await _outcome(work, request)
    finally:
        for task in (work, hangup):
            task.cancel()
        await asyncio.gather(work, hangup, return_exceptions=True)


async def _outcome(work: asyncio.Future[object], request: Request) -> object:
    try:
        return await work
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if request.cancelled_by is None or (current is not None and current.cancelling()):
            if work.cancelled() and not (current is not None and current.cancelling()):
                raise ConnectionError("the client hung up") from None
            raise
        raise QlaunchError(f"cancelled by `{request.cancelled_by}`") from None
