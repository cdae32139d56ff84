"""nftables through its library, or nft(8) where the library is not to be had.

The library takes 1 ms to load and 1 to 7 ms for a transaction; starting nft(8) takes 12 to 24 ms.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from functools import cache

from qlaunch.errors import HostError
from qlaunch.plan.networks.rules import FINGERPRINT, LEARNT, LEARNT_SETS

LIBRARY = "libnftables.so.1"
TOOL_TIMEOUT = 20.0
_JSON = 1 << 4
_SBIN = ":/usr/sbin:/sbin"


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(LIBRARY)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("free", "buffer_error", "buffer_output"):
            getattr(library, f"nft_ctx_{name}").argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    except (OSError, AttributeError):
        return None
    return library


def run(text: str, *, as_json: bool = False) -> str:
    """Carry out the commands in `text`, all of them or none, and return what they print.

    Raises: HostError with nft's own words.
    """
    library = _library()
    if library is None:
        return _run_tool(text, as_json=as_json)
    # A new context each time: it knows no rules of before, and the namespace of now.
    context = library.nft_ctx_new(0)
    if not context:
        raise HostError("nftables cannot be used here")
    try:
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        if as_json:
            library.nft_ctx_output_set_flags(context, _JSON)
        if library.nft_run_cmd_from_buffer(context, text.encode()):
            raise _refused(library.nft_ctx_get_error_buffer(context).decode(errors="replace"))
        return str(library.nft_ctx_get_output_buffer(context).decode(errors="replace"))
    finally:
        library.nft_ctx_free(context)


def is_there() -> bool:
    """Whether nftables is installed."""
    path = os.environ.get("PATH", os.defpath) + _SBIN
    return _library() is not None or shutil.which("nft", path=path) is not None


def _run_tool(text: str, *, as_json: bool) -> str:
    tool = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + _SBIN)
    if tool is None:
        raise HostError("nftables is not installed", hint="apt install nftables")
    command = [tool, *(["--json"] if as_json else []), "--file", "-"]
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=TOOL_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"nft cannot be run: {error}") from error
    if done.returncode:
        raise _refused(done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace")


def _refused(words: str) -> HostError:
    lines = [line for line in words.splitlines() if line.strip()]
    told = next(
        (line for line in lines if "rror" in line), lines[0] if lines else "no reason given"
    )
    hint = None
    if "Operation not permitted" in words:
        hint = "it takes the capability CAP_NET_ADMIN"
    elif "No such file" in words or "not supported" in words.lower():
        hint = "does this kernel have nftables? modprobe nf_tables"
    return HostError(f"nftables refuses the rules: {told.strip()}", hint=hint)


def learnt(ifname: str, mac: str) -> list[str]:
    """The addresses that the card behind the TAP `ifname` was seen to use. Raises: HostError."""
    found = []
    for name in LEARNT_SETS:
        try:
            said = json.loads(run(f"list set {LEARNT} {name}", as_json=True) or "{}")
        except HostError:  # nothing was ever learnt
            continue
        for each in said.get("nftables", ()):
            for element in each.get("set", {}).get("elem", ()):
                value = element.get("elem", {}).get("val", {}) if isinstance(element, dict) else {}
                words = value.get("concat", [])
                if words[:2] == [ifname, mac]:
                    found.append(str(words[2]))
    return sorted(found)


def fingerprint() -> str:
    """The fingerprint of the rules that are loaded, nothing where there are none of ours.

    Raises: HostError.
    """
    found = {family: _mark(family) for family in ("inet", "bridge")}
    marks = set(found.values())
    # One table without the other, or one without its mark: somebody has been there.
    return marks.pop() if len(marks) == 1 else "damaged"


def _mark(family: str) -> str:
    listed = json.loads(run(f"list chains {family}", as_json=True) or "{}")
    chains = [each["chain"] for each in listed.get("nftables", ()) if "chain" in each]
    names = [str(chain["name"]) for chain in chains if chain.get("table") == "qlaunch"]
    marks = [name for name in names if name.startswith(FINGERPRINT)]
    return marks[0].removeprefix(FINGERPRINT) if marks else "damaged" if names else ""
