"""`python -m qlaunch`."""

from qlaunch.cli.main import script

script()
