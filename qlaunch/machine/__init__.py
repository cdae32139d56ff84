"""Verbs on one machine: prepare it, launch it, look into it, stop it."""
