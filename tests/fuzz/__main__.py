"""`python -m tests.fuzz [target=NAME] [seconds=N] [seed=N] [input=FILE]`, as `make fuzz` does."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import sys
import time
import traceback
from pathlib import Path
from random import Random

from attrs import define, evolve, frozen

from tests.fuzz.targets import TARGETS, TOP, Target

KEPT = "fuzz-failures"
SLOW = 1.0
LARGEST = 1 << 18
MEMORY = 2 << 30
ROUND = 64
_PIECES = (
    b"\0", b"\xff" * 8, b"\x7f" + b"\xff" * 3, b"\x80" + b"\0" * 7, b"[" * 3000, b"{" * 3000,
    b'"', b"'", b"\\", b"\n", b"=", b",", b"&", b"<", b"]]>", b"-1", b"1e999", b"9" * 400, b"nan",
    b"\xc3\x28", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\x1b[2J", b"../" * 9, b"null", b"true",
)  # fmt: skip


@frozen
class Wish:
    """What was asked for."""

    target: str = ""
    seconds: float = 60.0
    seed: int = 0
    input: str = ""


def parsed(given: list[str]) -> Wish:
    """Raises: SystemExit with what is wrong."""
    wish = Wish(seed=random.SystemRandom().randrange(1 << 32))
    for word in given:
        name, _, value = word.partition("=")
        if name not in ("target", "seconds", "seed", "input"):
            sys.exit(f"{word}: not one of target= seconds= seed= input=")
        try:
            if name == "seconds":
                wish = evolve(wish, seconds=float(value))
            elif name == "seed":
                wish = evolve(wish, seed=int(value))
            else:
                wish = evolve(wish, target=value) if name == "target" else evolve(wish, input=value)
        except ValueError:
            sys.exit(f"{word}: not a number")
    if wish.target and wish.target not in TARGETS:
        sys.exit(f"target={wish.target}: not one of {', '.join(TARGETS)}")
    if wish.input and not wish.target:
        sys.exit("input= needs a target=")
    return wish


def mutated(data: bytes, dice: Random) -> bytes:
    """`data`, damaged in one to six places."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at, way = dice.randrange(len(changed) + 1), dice.randrange(6)
        end = min(len(changed), at + dice.choice((1, 2, 4, 8, 64)))
        if way == 0 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif way == 1:
            changed[at:end] = bytes(dice.randrange(256) for _ in range(end - at))
        elif way == 2:
            del changed[at:end]
        elif way == 3:
            changed[at:at] = dice.choice(_PIECES)
        elif way == 4:
            changed[at:end] = dice.choice(_PIECES)[: max(1, end - at)]
        else:
            first, last = sorted((dice.randrange(len(changed) + 1), at))
            changed[at:at] = changed[first:last] * dice.choice((1, 1, 2, 50))
    return bytes(changed[:LARGEST])


def failure(target: Target, data: bytes) -> str:
    """What the parser does with `data` that it must not do; nothing when it does well."""
    begun = time.process_time()
    try:
        target.run(data)
    except target.refused:
        pass
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error))
    took = time.process_time() - begun
    return f"took {took:.1f} s of processor time\n" if took > SLOW else ""


@define
class Fuzzer:
    """One parser; what went well becomes the beginning of more."""

    name: str
    target: Target
    dice: Random
    corpus: list[bytes]
    runs: int = 0
    failed: int = 0

    def some(self, until: float) -> None:
        """A handful of inputs, no longer than `until`."""
        for _ in range(ROUND):
            if time.monotonic() > until:
                return
            data = mutated(self.dice.choice(self.corpus), self.dice)
            self.runs += 1
            if told := failure(self.target, data):
                self.failed += 1
                self.keep(data, told)
            elif self.dice.random() < 0.01:
                self.corpus.append(data)

    def keep(self, data: bytes, told: str) -> None:
        path = Path.cwd() / KEPT / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        print(f'FAILED: {self.name}\n{told}  again: make fuzz ARGS="target={self.name}'
              f' input={os.path.relpath(path, TOP)}"', flush=True)  # fmt: skip


def main() -> int:
    wish = parsed(sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if wish.input:
        told = failure(TARGETS[wish.target], Path(wish.input).read_bytes())
        print(told or "well")
        return int(bool(told))
    print(f"seed={wish.seed}", flush=True)
    names = [wish.target] if wish.target else list(TARGETS)
    fuzzers = [
        Fuzzer(name, TARGETS[name], Random(f"{wish.seed}/{name}"), TARGETS[name].seeds())
        for name in names
    ]
    until = time.monotonic() + wish.seconds
    try:
        while time.monotonic() < until:
            for fuzzer in fuzzers:
                fuzzer.some(until)
    except KeyboardInterrupt:
        pass
    for fuzzer in fuzzers:
        print(f"{fuzzer.runs:10}  {fuzzer.name}, {fuzzer.failed} failed")
    return int(any(fuzzer.failed for fuzzer in fuzzers))


if __name__ == "__main__":
    sys.exit(main())
