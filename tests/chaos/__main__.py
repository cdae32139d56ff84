"""`python -m tests.chaos [rounds=N] [seed=N] [only=KIND,...] [jobs=N]`: `make chaos` calls this.

    rounds=1000     how many
    seed=N          the same rounds again (default: another number each time)
    only=a,b        these verbs alone
    victims=a,b     these blows alone; `full` (no space is left) is not among the usual ones yet
    step=NAME       at this step alone
    jobs=2          so many histories at a time
    history=N       this history alone, up to round `rounds`
    order=naive     a pivot in the order that loses data

Exit status: 0 when everything held, 1 when a round failed; it says how to have that round again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attrs import Factory, define, evolve, frozen

from tests.chaos.kinds import KINDS
from tests.chaos.victims import FREEZES, FULL, KILLS, POWER
from tests.rig import TOP

PER_HISTORY = 10
ONE = "--one"
LIMIT = 1500.0


@frozen
class Wish:
    """What was asked for."""

    rounds: int = 1000
    seed: int = 0
    only: str = ""
    victims: str = ""
    step: str = ""
    jobs: int = 2
    history: int = -1
    order: str = "right"

    def power(self, history: int) -> bool:
        """Whether power fails and space runs out in it: every third, where we may."""
        if os.getuid() or self.order == "naive":
            return False
        if self.victims:
            return not {*self.victims.split(",")} - {POWER, FULL}
        return history % 3 == 2

    def words(self) -> list[str]:
        usual, words = Wish(), []
        for name in ("only", "victims", "step", "order"):
            value = getattr(self, name).replace(" ", "_")
            if value != getattr(usual, name):
                words.append(f"{name}={value}")
        return words


def parsed(words: list[str]) -> Wish:
    """Raises: SystemExit with what is wrong."""
    wish = Wish(seed=random.SystemRandom().randrange(100000))
    for word in words:
        name, _, value = word.partition("=")
        known = getattr(wish, name, None) if name in Wish.__annotations__ else None
        if known is None or not value:
            sys.exit(f"{word}: not one of rounds= seed= only= victims= step= jobs= history= order=")
        try:
            worth: Any = int(value) if isinstance(known, int) else value.replace("_", " ")
        except ValueError:
            sys.exit(f"{word}: not a number")
        wish = evolve(wish, **{name: worth})
    choices = {"only": tuple(KINDS), "victims": (*KILLS, *FREEZES, POWER, FULL)}
    for name, known in choices.items():
        for each in filter(None, getattr(wish, name).split(",")):
            if each not in known:
                sys.exit(f"{name}: {each} is not one of {', '.join(known)}")
    return wish


def main() -> int:
    if sys.argv[1:2] == [ONE]:
        return one(parsed(sys.argv[2:]))
    wish = parsed(sys.argv[1:])
    if wish.history >= 0:
        wanted = [(wish.history, wish.rounds)]
    else:
        wanted = [(at, min(PER_HISTORY, wish.rounds - at * PER_HISTORY))
                  for at in range(-(-wish.rounds // PER_HISTORY))]  # fmt: skip
    print(f"seed={wish.seed}, {sum(rounds for _, rounds in wanted)} rounds", flush=True)
    begun, total = time.monotonic(), Total()
    with tempfile.TemporaryDirectory(prefix="ql-chaos-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        with ThreadPoolExecutor(wish.jobs) as pool, contextlib.suppress(KeyboardInterrupt):
            try:
                for result in pool.map(lambda each: apart(wish, *each), wanted):
                    total.add(result)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
    total.tell(time.monotonic() - begun)
    return int(bool(total.failed))


@define
class Total:
    """What all histories together came to."""

    counts: Counter[str] = Factory(Counter)
    rounds: int = 0
    failed: int = 0

    def add(self, result: dict[str, object]) -> None:
        counts = result["counts"]
        assert isinstance(counts, dict)
        self.counts.update(counts)
        self.rounds += int(str(result["rounds"]))
        if result["error"]:
            self.failed += 1
            print(f"FAILED: {result['error']}\n  again: {result['again']}", flush=True)

    def tell(self, seconds: float) -> None:
        for what, count in sorted(self.counts.items()):
            print(f"{count:6}  {what}")
        print(f"{self.rounds} rounds, {self.failed} failed, {seconds:.0f} s")


def apart(wish: Wish, history: int, rounds: int) -> dict[str, object]:
    """A history in a process of its own. Returns: what it says at its end."""
    words = [f"seed={wish.seed}", f"history={history}", f"rounds={rounds}", *wish.words()]
    again = f'make chaos ARGS="{" ".join(words)}"'
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", ONE, *words], cwd=TOP, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        output, _ = child.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate()
    last = output.rstrip().rpartition("\n")[2]
    try:
        result: dict[str, object] = json.loads(last)
    except ValueError:
        result = {"counts": {}, "rounds": 0, "error": f"history {history}: {output[-2000:]}"}
    if result["error"]:
        rounds = int(str(result["rounds"]))
        words[2] = f"rounds={rounds}"
        again = f'make chaos ARGS="{" ".join(words)}"'
        result["error"] = f"history {history}: {result['error']}\n{output[-3000:]}"
    else:
        print(f"history {history}: {rounds} rounds", flush=True)
    return {**result, "again": again}


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def one(wish: Wish) -> int:
    """One history, here. The last line is what it came to, as JSON."""
    from tests.chaos.history import Broken, History
    from tests.chaos.place import own_place, power

    done, error = 0, ""
    with contextlib.ExitStack() as stack:
        folder, ident = stack.enter_context(own_place())
        cut = stack.enter_context(power(folder)) if wish.power(wish.history) else None
        history = History(
            f"{wish.seed}/{wish.history}",
            folder,
            ident,
            say,
            only=_list(wish.only),
            power=cut,
            naive=wish.order == "naive",
            step=wish.step,
            victims=_list(wish.victims),
        )
        try:
            history.begin()
            while done < wish.rounds:
                done += 1
                history.round(done)
            history.end()
        except Broken as broken:
            error = str(broken)
        except Exception as unexpected:  # noqa: BLE001 - it is told like any other
            import traceback

            traceback.print_exc()
            error = f"{type(unexpected).__name__}: {unexpected}"
        finally:
            if error:
                tell_all(history.place)
            history.rig.close()
    say(json.dumps({"counts": history.counts, "rounds": done, "error": error}))
    return int(bool(error))


def tell_all(place: Path) -> None:
    """What a person needs for a failure: the logs."""
    from qlaunch.store import machines, paths
    from tests.chaos.guest import NAME

    for path in (f"{paths.state_dir()}/supervisor.log", machines.log_path(NAME)):
        with contextlib.suppress(OSError):
            say(f"--- {path}\n{Path(path).read_text(errors='replace')[-4000:]}")
    for timeline in Path(paths.machine_data(NAME)).rglob("timeline.json"):
        with contextlib.suppress(OSError):
            say(timeline.read_text())
    with contextlib.suppress(OSError):
        told = (place / "client.txt").read_text(errors="replace")
        say(f"--- the client\n{told[-2000:]}")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
