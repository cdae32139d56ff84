"""Carries out what `plan.networks` decides: bridges, TAPs, DHCP, names and firewall.

`client` is what the rest of qlaunch uses; everything else runs in one process that has the
capability (`netd`), as root or in a namespace of the user's own.
"""
