"""libvirt's driver without its daemon, in a folder of its own: what would it start?

`qemu:///embed` runs the driver inside virsh. A user namespace keeps it unprivileged (it would want
its own user otherwise), a network namespace lets it make the TAP devices that it insists on.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from attrs import frozen

PATIENCE = 60.0
_MARK = "----next----"
_ALONE = ("unshare", "--user", "--net", "--keep-caps", "--map-user=1000", "--map-group=1000")


class RefusedByLibvirt(Exception):
    """libvirt does not take this XML; its own words."""


@frozen
class Native:
    """A domain as libvirt keeps it, with all its addresses, and the command line it would run."""

    xml: str
    argv: tuple[str, ...]


@frozen
class Libvirt:
    """A private root folder of libvirt's."""

    root: Path

    def native(self, xml: str, name: str) -> Native:
        """Define the domain `name` and ask for its command line. Raises: RefusedByLibvirt."""
        file = self.root / "domain.xml"
        file.write_text(xml, encoding="utf-8")
        steps = (
            f"define {file}",
            f"dumpxml --inactive --security-info {name}",
            f"domxml-to-native qemu-argv --domain {name}",
            f"undefine --nvram {name}",
        )
        said = self._virsh(f"; echo {_MARK}; ".join(steps)).split(_MARK)
        whole, words = said[1], shlex.split(said[2])
        while words and "=" in words[0]:
            del words[0]
        return Native(whole, tuple(words))

    def _virsh(self, command: str) -> str:
        uri = f"qemu:///embed?root={self.root}"
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [*_ALONE, "virsh", "--quiet", "--connect", uri, command],
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment,
        )
        words = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        if done.returncode or words:
            raise RefusedByLibvirt("; ".join(words) or done.stderr.strip())
        return done.stdout


def works() -> bool:
    """Whether libvirt's driver can be run by itself: namespaces and the driver are there."""
    with tempfile.TemporaryDirectory(prefix="ql-lv-", dir="/tmp") as folder:
        try:
            Libvirt(Path(folder))._virsh("version")
        except (RefusedByLibvirt, OSError, subprocess.TimeoutExpired):
            return False
    return True
