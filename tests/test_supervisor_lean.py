"""What the supervisor leaves out of its memory."""

from __future__ import annotations

import subprocess
import sys

LEAN = "from qlaunch.supervisor import lean; lean.leave_out_openssl()\n"
HEAVY = ("argparse", "ctypes", "psutil", "random", "ssl", "tempfile")


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_the_supervisor_loads_no_openssl_and_nothing_else_that_is_large() -> None:
    out = python(
        f"{LEAN}import sys, qlaunch.supervisor.__main__, qlaunch.supervisor.server\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "print('libcrypto' in open('/proc/self/maps').read())"
    )
    assert out.splitlines() == ["[]", "False"]


def test_who_needs_tls_later_gets_it() -> None:
    out = python(f"{LEAN}import ssl, hashlib; print(ssl.create_default_context().protocol.name)")
    assert out == "PROTOCOL_TLS_CLIENT\n"


def test_hashes_are_the_same_without_openssl() -> None:
    code = "import hashlib; print(hashlib.sha256(b'qlaunch').hexdigest())"
    assert python(LEAN + code) == python(code)


def test_settling_leaves_nothing_for_the_collector() -> None:
    out = python(
        f"{LEAN}import gc, qlaunch.supervisor.server; lean.settle(); print(len(gc.get_objects()))"
    )
    assert int(out) < 100
