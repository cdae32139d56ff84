"""Touches this computer: files, processes, sockets, KVM and the QEMU binary.

One module per concern. What is found out becomes `qlaunch.facts`; nothing here decides what a
machine looks like.
"""
