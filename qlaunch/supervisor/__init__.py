"""Hosts machines: starts, watches, adopts and stops them, and answers requests."""
