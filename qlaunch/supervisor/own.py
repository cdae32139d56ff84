"""What stands in the way of a machine's next start only because it runs now."""

from __future__ import annotations

import os
import re

from qlaunch.machine.machine import Machine
from qlaunch.machine.prepare import Prepared
from qlaunch.plan.notes import Finding


def without_own(prepared: Prepared, machine: Machine) -> tuple[Finding, ...]:
    """The findings without those that the running machine itself is the cause of: it holds its
    images, and we hold its ports."""
    own_pid = re.compile(rf"\bpid {machine.process.pid}\b")
    ports = [endpoint.port for endpoint in machine.plan.display.endpoints if endpoint.port]
    own_ports = [re.compile(rf"\bport {port} .*\bpid {os.getpid()}\b") for port in ports]
    return tuple(
        finding
        for finding in prepared.resolution.findings
        if finding.cause != "conflict"
        or not any(pattern.search(finding.message) for pattern in (own_pid, *own_ports))
    )
