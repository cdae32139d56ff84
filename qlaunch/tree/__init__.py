"""Snapshots: what is known of them, the tree that they make with the images, what may be removed.

Pure: it reads no file and starts nothing.
"""
