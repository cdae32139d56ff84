"""One history: a machine, the rounds that it goes through, and what is known of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from attrs import Factory, define

from qlaunch.errors import NotFoundError, QlaunchError
from qlaunch.store import paths
from qlaunch.store import timeline as store
from tests.chaos import checks, kinds
from tests.chaos.content import Content, Disk, Dump, not_as_in_memory, out_of_order
from tests.chaos.guest import NAME, PROFILE, Blocks, write_image
from tests.chaos.victims import FREEZES, KILLS, POWER, Blow, Power, Scene, all_steps
from tests.rig import TOP, Rig, until

CLIENT_LIMIT = 90.0
RECOVERY_LIMIT = 60.0
NAIVE = "tests.chaos.naive"


class Broken(AssertionError):
    """A round after which something does not hold."""


@define
class Moment:
    """What a snapshot holds: memory as well, or the disks alone; `exact` once they were seen.

    Of one that is `whole` both disks are of one instant: no QEMU was killed while it was taken.
    """

    content: Content
    memory: bool
    whole: bool
    internal: bool = False
    exact: tuple[Disk, Disk] | None = None


@define
class History:
    """`say` hears what happens."""

    seed: str
    place: Path
    ident: str
    say: Callable[[str], None]
    only: tuple[str, ...] = ()
    power: Power | None = None
    naive: bool = False
    victims: tuple[str, ...] = ()
    step: str = ""
    rig: Rig = Factory(Rig)
    guest: Blocks = Factory(Blocks)
    content: Content = Factory(Content)
    moments: dict[str, Moment] = Factory(dict)
    kind: kinds.Kind = kinds.KINDS["up"]
    words: list[str] = Factory(list)
    attached: bool = False
    counts: dict[str, int] = Factory(dict)
    _epoch: int = 0
    _labels: int = 0
    _qemu: int = 0

    @property
    def scene(self) -> Scene:
        return self._scene

    _scene: Scene = Factory(lambda self: Scene(self.ident), takes_self=True)

    # ---- the life of the machine ----------------------------------------------------------------

    def begin(self) -> None:
        image = Path(paths.data_dir()) / "blocks.img"
        image.parent.mkdir(parents=True, exist_ok=True)
        write_image(image)
        for letter in "ab":
            Path(self.disc(letter)).write_bytes(letter.encode() * (1 << 16))
        profiles = Path(paths.config_dir()) / "profiles"
        profiles.mkdir(parents=True, exist_ok=True)
        (profiles / f"{NAME}.toml").write_text(PROFILE.format(image=image), encoding="utf-8")
        self.must(["up", NAME])
        assert self.guest.await_line("B") is not None, "the guest does not boot"
        self.go_on([self.content])
        if self.power is not None:
            os.sync()

    def end(self) -> None:
        """Down, no layer left, and nothing at all once it is removed."""
        self.must(["snapshot", "prune", NAME, "--keep", "0"])
        self.settle()
        found = checks.list_is_true(self.images())
        self.must(["down", NAME])
        found += checks.images_are_sound()
        self.must(["rm", NAME, "--yes"])
        runtime = paths.machine_runtime(NAME)
        found += checks.machine_gone(NAME) + checks.folders_are_empty(runtime)
        found += checks.no_bug(self.rig)
        self.rig.close()
        found += checks.no_orphans(self.ident, set())
        if found:
            raise Broken("at the end: " + "; ".join(found))

    def round(self, number: int) -> None:
        """A verb, a blow, recovery, checks. Raises: Broken."""
        dice = Random(f"{self.seed}/{number}")
        self.kind = kinds.choose(dice, self.only, self)
        blow = self._choose_blow(dice)
        self.words = self.kind.prepare(self, dice)
        self.say(f"round {number}: qlaunch {' '.join(self.words)}; {blow}")
        self._absorb()
        begun = self.content.copy()
        self._qemu = self.scene.qemu()
        if blow.step or self.naive:
            self.scene.start_supervisor(blow.step, NAIVE if self.naive else "")
        else:
            self.scene.find_supervisor()
        status, reached = self._strike(blow)
        self.count(f"{self.kind.name} rounds")
        self.count(f"{blow.victim} struck" if reached else "blows that came too late")
        self.recover()
        self.settle()
        self._reconcile(begun, status)
        self.check()

    def _choose_blow(self, dice: Random) -> Blow:
        usual = (POWER,) if self.power else (*KILLS, *FREEZES)
        victim = dice.choice(self.victims or usual)
        steps = [step for step in all_steps() if step.partition(":")[0] in self.kind.steps]
        step = dice.choice(steps) if steps and dice.random() < 0.6 else None
        step = self.step or step
        return Blow(victim, step, dice.uniform(0.05, self.kind.reach))

    def _strike(self, blow: Blow) -> tuple[int, bool]:
        """Returns: the client's exit status, and whether the blow met the verb."""
        output = self.place / "client.txt"
        with output.open("wb") as file:
            client = subprocess.Popen(
                [sys.executable, "-m", "qlaunch", *self.words], cwd=TOP, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file,
            )  # fmt: skip
        self.scene.client = client
        try:
            reached = self.scene.await_moment(blow, CLIENT_LIMIT)
            self._absorb()
            if self.kind.stopping and blow.step is None:
                self._find_newer_supervisor()
            self.scene.strike(blow, self.power)
            self.scene.disarm()
            status = client.wait(CLIENT_LIMIT)
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()
            raise Broken(f"the client did not end in {CLIENT_LIMIT:g} s") from None
        if b"Traceback" in output.read_bytes() or b"a bug" in output.read_bytes():
            raise Broken(f"the client: {output.read_text(errors='replace')}")
        if blow.victim == POWER:
            self._reboot()
        elif self.power is not None:
            self._make_room()
        return status, reached

    def _find_newer_supervisor(self) -> None:
        """The client has started one where the one without machines had ended."""
        from qlaunch.control import client

        try:
            if (connection := client.connect()) is not None:
                with connection:
                    connection.socket.settimeout(2.0)
                    self.scene.supervisor = int(connection.ask("supervisor", {})["pid"])
        except (QlaunchError, OSError):
            return

    def _make_room(self) -> None:
        """There is space again; a guest whose write had to wait is let go on."""
        assert self.power is not None
        self.power.empty()
        with contextlib.suppress(QlaunchError):
            if self.rig.row(NAME).get("state") == "io-error":
                self.must(["resume", NAME])

    def _reboot(self) -> None:
        """The computer comes up again: the file system as it was, sockets gone."""
        assert self.power is not None
        self.power.unmount()
        shutil.rmtree(paths.runtime_dir(), ignore_errors=True)
        self.power.mount()
        self.guest = Blocks()
        self.guest.forget()

    # ---- recovery, as a user causes it ----------------------------------------------------------

    def recover(self) -> None:
        """`qlaunch ps`, and `qlaunch up` where the machine does not run."""
        deadline = time.monotonic() + RECOVERY_LIMIT
        while True:
            rows = json.loads(self.must(["ps", "--json"]))["machines"]
            row = next((each for each in rows if each["name"] == NAME), None)
            if row is None:
                done = self.run(["up", NAME])
                # Another client may be starting it, or somebody may still be ending.
                if done.returncode not in (0, 5):
                    raise Broken(f"`qlaunch up`: {done.stderr}")
            elif row["state"] == "running":
                with contextlib.suppress(NotFoundError):  # its end is noticed just now
                    if self.rig.ask("status", name=NAME)["operation"] is None:
                        return
            if time.monotonic() > deadline:
                raise Broken(f"not running after {RECOVERY_LIMIT:g} s: {row}")

    def settle(self) -> None:
        def nothing_to_do() -> bool:
            try:
                return not self.rig.ask("jobs", name=NAME)["jobs"]
            except QlaunchError:
                return False

        until(nothing_to_do, "the end of all merges", 90)

    def go_on(self, candidates: list[Content]) -> Dump:
        """A new epoch; what the guest finds on its disks; and it writes on."""
        self._epoch += 1
        line = self.guest.turn(self._epoch)
        self._take_flushes()
        self._turned = line.words[1]
        for content in candidates:
            content.turned(self._epoch, self._turned)
        dump, end = self.guest.dump()
        self._end = end.words
        self.guest.type("g")
        if refused := [line.words for line in self.guest.lines if line.letter == "X"]:
            raise Broken(f"the guest's disks have said no: {refused}")
        if wrong := not_as_in_memory(dump):
            raise Broken("memory and disks differ: " + "; ".join(wrong))
        return dump

    _end: list[int] = Factory(list)
    _turned: int = 0

    def _reconcile(self, begun: Content, status: int) -> None:
        """Find out what became of the verb: the state before it or the one after.

        `begun` is what was known when it began: a snapshot may have been taken at once.
        """
        died = self.scene.qemu() != self._qemu
        after, before = self._target(), self.content
        taken = before.copy() if self.kind.name == "revert" else begun
        dump = self.go_on([before, *([after] if after else [])])
        fits = self._fitting(before, after, dump, status)
        fits.seen(dump, self._end[0], self._end[1])
        self.content = fits
        taken.closed(self._turned)
        self._new_moments(taken, died=died)
        if not self.guest.await_line("F"):
            raise Broken("the guest does not write any more")
        self._absorb()
        if self.kind.name == "attach":
            disks = self.rig.ask("status", name=NAME)["disks"]
            self.attached = any(disk["id"] == "disk2" for disk in disks)
        if self.kind.name in ("clone", "rm", "rename"):
            kinds.copies_are_gone(self)

    def _target(self) -> Content | None:
        """What a revert goes to."""
        if self.kind.name != "revert":
            return None
        moment = self.moments[self.words[2]]
        content = moment.content.copy()
        if moment.memory:
            content.reopened()
        return content

    def _fitting(self, before: Content, after: Content | None, dump: Dump, status: int) -> Content:
        wrong = before.wrong(dump)
        if after is None:
            if wrong:
                raise Broken("; ".join(wrong))
            return before
        moment = self.moments[self.words[2]]
        otherwise = after.wrong(dump)
        if not moment.memory:
            if moment.exact not in (None, dump.disks):
                otherwise.append("the snapshot is not what it was")
            if moment.whole:
                otherwise += out_of_order(dump)
        if status == 0 or wrong:
            if otherwise:
                raise Broken(f"after the revert: {'; '.join(otherwise)}; before: {wrong[:3]}")
            if not moment.memory:
                moment.exact = dump.disks
            return after
        return before

    def _new_moments(self, before: Content, *, died: bool) -> None:
        there = {each.label: each for each in store.load(NAME).snapshots}
        gone = set(self.moments) - set(there)
        if gone and self.kind.name not in ("delete", "merge", "revert"):
            raise Broken(f"snapshots are gone: {gone}")
        for label in gone:
            del self.moments[label]
        for label, snapshot in there.items():
            if label not in self.moments:
                if self.kind.name not in ("snapshot", "internal", "revert"):
                    raise Broken(f"a snapshot came from nowhere: {label}")
                self.moments[label] = Moment(
                    before.copy(),
                    snapshot.has_memory,
                    whole=not died,
                    internal=snapshot.kind == "internal",
                )
        listed = json.loads(self.must(["snapshot", "list", NAME, "--json"]))["snapshots"]
        if {each["label"] for each in listed} != set(there):
            raise Broken(f"`snapshot list` says {listed}")

    # ---- checks ---------------------------------------------------------------------------------

    def check(self) -> None:
        # QEMU writes out what it knows of an image when the guest is stopped; before, a check would
        # compare what it reads first with what it reads last.
        self.rig.ask("pause", name=NAME)
        found = checks.images_are_sound()
        self.rig.ask("resume", name=NAME)
        found += checks.list_is_true(self.images())
        qemu = self.scene.qemu()
        found += checks.status_is_true(self.rig, qemu) + checks.no_bug(self.rig)
        expected = {qemu, self.scene.find_supervisor(), os.getpid(), os.getppid()}
        found += checks.no_orphans(self.ident, expected)
        if self.kind.name in ("clone", "rm", "rename"):
            found += checks.machine_gone(kinds.COPY) + checks.machine_gone(kinds.RENAMED)
        if found:
            raise Broken("; ".join(found))

    def images(self) -> tuple[str, ...]:
        return (kinds.ATTACHED,)

    def _absorb(self) -> None:
        """Take in what the guest has flushed."""
        self.guest.read()
        self._take_flushes()

    def _take_flushes(self) -> None:
        for line in [each for each in self.guest.lines if each.letter == "F"]:
            self.content.flushed(*line.words)
        self.guest.lines = [each for each in self.guest.lines if each.letter != "F"]

    # ---- small things ---------------------------------------------------------------------------

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qlaunch", *words], cwd=TOP, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=CLIENT_LIMIT, check=False,
        )  # fmt: skip

    def must(self, words: list[str]) -> str:
        """What the command prints. Raises: Broken when it fails."""
        done = self.run(words)
        if done.returncode:
            raise Broken(f"`qlaunch {' '.join(words)}`: {done.returncode}: {done.stderr}")
        return done.stdout

    def make_snapshot(self, dice: Random) -> str:
        """A snapshot without any blow."""
        label, disks_only = self.new_label(), dice.random() < 0.5
        self._absorb()
        before = self.content.copy()
        self.rig.ask("snapshot-create", name=NAME, snapshot=label, disks_only=disks_only)
        self._epoch += 1
        line = self.guest.turn(self._epoch)
        self._absorb()
        before.closed(line.words[1])
        self.content.turned(self._epoch, line.words[1])
        self.moments[label] = Moment(before, not disks_only, whole=True)
        return label

    def new_label(self) -> str:
        self._labels += 1
        return f"s{self._labels}"

    def disc(self, letter: str) -> str:
        return str(Path(paths.data_dir()) / f"{letter}.iso")

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
