"""What a program may touch of this computer: data, which `host.landlock` has the kernel enforce."""

from __future__ import annotations

import os
from collections.abc import Iterator

from attrs import frozen

# Programs, libraries and the data that comes with them; nothing of any user's.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload",
    "/etc/localtime", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies",
    "/etc/gnutls", "/sys/devices/system",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")


@frozen(kw_only=True)
class Confinement:
    """Absolute paths, of files or of folders with all that is in them; those that are not there
    do not count. `read` may also be run. Descriptors that a program inherits are not touched.

    `tcp` is whether it may make TCP connections and listen for them.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    tcp: bool = False


def program(
    *, read: tuple[str, ...] = (), write: tuple[str, ...] = (), tcp: bool = False
) -> Confinement:
    """A plain program that reads and writes these files of its user's."""
    return Confinement(read=(*SYSTEM, *read), write=write, devices=DEVICES, tcp=tcp)


def beside(path: str) -> Iterator[str]:
    """A program from elsewhere, and what lies beside it: its libraries, modules and data."""
    if not path.startswith("/"):
        return  # found by PATH: it is one of the system's
    yield path
    folder = os.path.dirname(path)
    if os.path.basename(folder) == "bin":
        prefix = os.path.dirname(folder)
        yield from (f"{prefix}/{name}" for name in ("bin", "lib", "lib64", "libexec", "share"))
    elif folder.count("/") > 2:  # not all of somebody's home
        yield folder
