"""The log of the machine `demo` in the lab."""

from __future__ import annotations

from tests.lab import HOME, ROOT_HOME
from tests.lab.person import Person, until


class Log:
    """The machine's log, which can be read on when its computer is gone."""

    def __init__(self, person: Person) -> None:
        home = ROOT_HOME if person.root else HOME
        path = person.lab.path(f"{home}/.local/state/qlaunch/machines/demo/log")
        self._file = path.open(encoding="utf-8")
        self._file.seek(0, 2)  # what an earlier machine said is not meant
        self._seen: list[str] = []

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def wait(self, words: str) -> str:
        """The next line with these words."""

        def found() -> bool:
            self._seen.append(self._file.readline())
            return words in self._seen[-1]

        until(found)
        return self._seen[-1]
