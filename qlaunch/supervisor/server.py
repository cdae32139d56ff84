"""The supervisor process: its socket, its machines, its own life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from qlaunch import __version__
from qlaunch.aio import finish
from qlaunch.control import words
from qlaunch.errors import InternalError, QlaunchError, RefusedError, UsageError
from qlaunch.host.sockets import bind_unix
from qlaunch.machine import clock
from qlaunch.store import events, paths, timeline
from qlaunch.supervisor.actor import Actor
from qlaunch.supervisor.adopt import adopt_all, remove_left_sockets
from qlaunch.supervisor.request import Request
from qlaunch.supervisor.tasks import Tasks, guarded, note, note_bug
from qlaunch.supervisor.verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qlaunch.host.sleeps import SleepWatch
    from qlaunch.supervisor.collecting import Collector
    from qlaunch.supervisor.service import Service

# How long a supervisor without machines and clients waits for more work.
IDLE_GRACE = 1.0
REQUEST_TIMEOUT = 10.0
# How long a client may take to read the rest of its answer.
READ_TIMEOUT = 30.0
# For the last answers of a supervisor in the foreground.
SETTLE_TIME = 1.0
# Turns of the event loop in which a connection that was made is seen.
TURNS = 10
BACKLOG = 128
# Verbs that are written down as events.
_OF_CHANGES = ("snapshot-", "disk-", "nic-", "usb-")
_QUESTIONS = ("usb-look", "usb-slots")
CHANGES = frozenset(
    (
        "up", "down", "kill", "restart", "reset", "pause", "resume", "save", "revert", "media",
        "forward", "display-password",
    )
)  # fmt: skip
_CREDENTIALS = struct.Struct("3i")


class Server:
    """One supervisor. `path` is its control socket. In the `foreground` it looks after one machine
    only; one that `stays` does so also when there is nothing to look after.

    `service` is there when systemd runs it; what is in `releasing` has ended, and its unit is being
    told. A server that is `closing` starts no machine any more. `kept` is the listener of one that
    has ended in order to begin anew.
    """

    def __init__(self, path: str, *, foreground: bool = False, stays: bool = False) -> None:
        self.path = path
        self.foreground = foreground
        self.stays = stays or foreground
        self.closing = False
        self.releasing: set[str] = set()
        self.service: Service | None = None
        self.actors: dict[str, Actor] = {}
        self.collectors: dict[str, Collector] = {}
        self.started = time.time()
        self.version = __version__
        self.kept: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._anew = False
        self._sleeps: SleepWatch | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._last: list[asyncio.StreamWriter] = []
        self._stop = asyncio.Event()
        self._waiters: set[asyncio.Event] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: Tasks | None = None

    @property
    def tasks(self) -> Tasks:
        assert self._tasks is not None
        return self._tasks

    # ---- its life -------------------------------------------------------------------------------

    def listen(self, listener: int | None = None) -> None:
        """Take the control socket; who connects is served by `serve`. `listener` is the one that
        was kept, -1 or None when there is none. Raises: ConflictError."""
        if listener is not None and listener >= 0:
            self._listener = socket.socket(fileno=listener)
            self._listener.set_inheritable(False)
            if os.path.exists(self.path):
                return
            self._listener.close()  # Python 3.13 removes the socket's file with its server
        self._listener = bind_unix(self.path, backlog=BACKLOG)

    async def serve(self, *, adopt: bool, ready: asyncio.Event) -> None:
        """Adopt machines, answer requests, and return when there is nothing left to look after or
        `stop` was called. Machines that still run then go on without us."""
        assert self._listener is not None
        async with asyncio.TaskGroup() as group:
            tasks = self._tasks = Tasks(group)
            if adopt:
                await self.adopt_strays()
                remove_left_sockets()
            server = await asyncio.start_unix_server(
                self._client, sock=self._listener, limit=words.REQUEST_LIMIT
            )
            ready.set()
            self._consider_ending()
            await self._stop.wait()
            self.kept = self._listener.dup() if self._anew else None
            server.close()
            if not self._anew:
                # Who connects from now on finds no socket and starts the next supervisor.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
            await self._end_clients()
            for actor in list(self.actors.values()):
                await actor.leave()
            tasks.cancel_all()
        if self._sleeps is not None:
            self._sleeps.close()
        for writer in self._last:
            writer.close()

    def stop(self, *, anew: bool = False) -> None:
        """End soon; machines go on. `anew`: to begin again in the same process."""
        self._anew = anew
        self._stop.set()

    def _consider_ending(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        busy = self.actors or self.collectors or self._clients
        if not (busy or self.stays or self._stop.is_set()):
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(IDLE_GRACE, self._end_when_alone)

    def _end_when_alone(self) -> None:
        self.tasks.create_task(self._look_whether_alone())

    async def _look_whether_alone(self) -> None:
        """End, unless somebody comes while the socket is being put away: he is served."""
        aside = f"{self.path}.ending"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, aside)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if self.actors or self.collectors or self._clients:
            os.rename(aside, self.path)
            return
        self._stop.set()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)

    async def settle(self) -> None:
        """Let clients be answered to whom the end of a machine is the answer."""
        if self._clients:
            await asyncio.wait(set(self._clients), timeout=SETTLE_TIME)

    async def _end_clients(self) -> None:
        """End the requests under way: a start is undone, a stop is given up."""
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(set(self._clients))

    # ---- its machines ---------------------------------------------------------------------------

    async def adopt_strays(self) -> None:
        """Adopt machines that run and have no supervisor, for example since a `qlaunch run` was
        killed. A supervisor in the foreground looks after its own one only."""
        if self.foreground:
            return
        known = set(self.actors)
        await adopt_all(self.tasks, self.actors, self.note_change)
        fresh = [actor for name, actor in self.actors.items() if name not in known]
        if fresh:
            from qlaunch.supervisor.recovering import recover

            await asyncio.gather(*(guarded(recover(self, actor)) for actor in fresh))

    def collect(self, name: str) -> Collector:
        """Begin to merge and remove the layers of `name` that nobody needs; what does that already
        is returned."""
        from qlaunch.supervisor.collecting import Collector

        collector = self.collectors.get(name)
        if collector is None:
            collector = self.collectors[name] = Collector(server=self, name=name)
            collector.task = self.tasks.create_task(self._collect(collector))
        return collector

    def tidy(self, name: str) -> None:
        """Go on with what an earlier supervisor, or QEMU, was cut off in."""
        if timeline.load(name).is_untidy:
            self.collect(name)

    async def _collect(self, collector: Collector) -> None:
        try:
            await collector.run()
        finally:
            self.collectors.pop(collector.name, None)
            self._consider_ending()

    def host(self, name: str) -> Actor:
        """A new actor for `name`. Raises: BusyError when another process hosts it, RefusedError."""
        if self.closing:
            raise RefusedError(f"{name} is not started: the computer is being shut down")
        actor = Actor(name, self.tasks, self.note_change)
        self.actors[name] = actor
        return actor

    def note_change(self, actor: Actor) -> None:
        """The actor's machine is in another state, or has ended."""
        if actor.machine is not None and actor.machine.plan.agent is not None:
            self._watch_sleep()
        if actor.gone.is_set() and self.actors.get(actor.name) is actor:
            del self.actors[actor.name]
            self._consider_ending()
            if self.service is not None:
                self.service.release(actor)
        for waiter in self._waiters:
            waiter.set()

    def _watch_sleep(self) -> None:
        """After this computer has slept, have the clocks set of guests that have an agent."""
        if self._sleeps is not None:
            return
        from qlaunch.host.sleeps import SleepWatch

        def woken(seconds: float) -> None:
            events.note("", "woken", slept=round(seconds))
            for actor in self.actors.values():
                if actor.machine is not None and actor.state == "running":
                    actor.machine.log.say(f"this computer has slept for {seconds:.0f} s")
                    self.tasks.create_task(clock.set_right(actor.machine))

        try:
            self._sleeps = SleepWatch(woken)
        except OSError as error:
            note(f"nobody tells when this computer has slept: {error.strerror}")

    async def change(self) -> None:
        """Wait until any machine changes its state."""
        waiter = asyncio.Event()
        self._waiters.add(waiter)
        try:
            await waiter.wait()
        finally:
            self._waiters.discard(waiter)

    # ---- its clients ----------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        self._consider_ending()
        try:
            if _is_ours(writer):
                await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        finally:
            if writer not in self._last:
                await _close(writer)
            self._clients.discard(task)
            self._consider_ending()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it: the one door behind which no error passes."""
        verb, args = "", dict[str, Any]()
        try:
            verb, args = words.decode_request(await _line(reader))
            if verb not in VERBS:
                raise UsageError(f"the supervisor has no verb {verb!r}")
            request = Request(server=self, args=args, reader=reader, writer=writer)
            result = await _watched(request, verb)
        except QlaunchError as error:
            _note_verb(verb, args, error.message)
            writer.write(words.encode({"error": error.to_dict()}))
        except (ConnectionError, asyncio.IncompleteReadError):
            raise
        except Exception as error:  # noqa: BLE001 -- the supervisor's door: see CONTRIBUTING.md
            note_bug(error)
            log = os.path.join(paths.state_dir(), "supervisor.log")
            bug = InternalError(f"a bug in qlaunch: {error!r}", hint=f"please report it with {log}")
            writer.write(words.encode({"error": bug.to_dict()}))
        else:
            _note_verb(verb, args)
            if result is not None:
                writer.write(words.encode({"result": result}))
            if request.last:
                # Its connection ends when we do: that is how it learns of it.
                self._last.append(writer)
                self.stop(anew=request.anew)


# After their answer the connection carries other bytes.
_STREAMS = ("console", "screen", "usb-redirect", "dial")


def _note_verb(verb: str, args: Mapping[str, Any], error: str = "") -> None:
    """Write down what somebody did to a machine, for `qlaunch events`; questions are not."""
    if verb in CHANGES or (verb.startswith(_OF_CHANGES) and verb not in _QUESTIONS):
        name = args.get("name") or os.path.basename(str(args.get("profile", "")))
        about = {"verb": verb, **({"error": error} if error else {})}
        events.note(str(name).removesuffix(".toml"), "failed" if error else "done", **about)


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the client is this user or root; the folder's mode alone keeps others out already."""
    sock = writer.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(raw)[1] in (0, os.getuid())


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            await writer.wait_closed()
    except (ConnectionError, TimeoutError):
        writer.transport.abort()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            return await reader.readuntil(b"\n")
    except TimeoutError:
        raise UsageError(f"no request came within {REQUEST_TIMEOUT:g} s") from None
    except asyncio.LimitOverrunError:
        raise UsageError(f"the request is longer than {words.REQUEST_LIMIT} bytes") from None


async def _watched(request: Request, verb: str) -> object:
    """Carry out the verb; a client that hangs up meanwhile cancels it.

    Raises: ConnectionResetError when it did, once what was under way has been undone.
    """
    if verb in _STREAMS:
        return await VERBS[verb](request)
    work = asyncio.ensure_future(VERBS[verb](request))
    hangup = asyncio.ensure_future(_hung_up(request.reader))
    try:
        await asyncio.wait({work, hangup}, return_when=asyncio.FIRST_COMPLETED)
        is_left = not work.done()
    finally:
        for task in (work, hangup):
            task.cancel()
        await finish(_ended(work, hangup))
    if work.cancelled() or is_left:
        await guarded(_raised(work))
        raise ConnectionResetError("the client hung up")
    return work.result()


async def _hung_up(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass  # there is one request a connection: what follows it is nothing to us


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def _raised(work: asyncio.Future[Any]) -> None:
    """Raise a bug that came out of `work` after its client was gone."""
    with contextlib.suppress(asyncio.CancelledError, QlaunchError):
        work.result()
