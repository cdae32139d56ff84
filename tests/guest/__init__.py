"""A Linux guest for tests: this computer's own kernel, busybox and the guest agent.

`image` builds its initial RAM disk, `machine` drives it through qlaunch as a user does.
"""
