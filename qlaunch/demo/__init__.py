"""The demo guest: a bootable disk image of our own, source and builder beside it."""

import os.path

IMAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo.img")
"""The image as built. A guest writes to its disk: boot a copy or an overlay."""
