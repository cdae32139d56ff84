"""Talks to QEMU (session) and to the guest agent (agent)."""
