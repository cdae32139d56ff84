"""Profile + facts + leases -> Plan: every decision is made here, nothing is done."""

from qlaunch.plan.model import Leases, Places, Plan
from qlaunch.plan.notes import Finding
from qlaunch.plan.resolve import Resolution, resolve

__all__ = ["Finding", "Leases", "Places", "Plan", "Resolution", "resolve"]
