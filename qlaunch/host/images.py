"""Images on this computer: what they are, what they stand on, and how new ones are made."""

from qlaunch.host.image_create import create_image
from qlaunch.host.image_facts import MAX_CHAIN, chain_facts, image_contents, image_facts

__all__ = ["MAX_CHAIN", "chain_facts", "create_image", "image_contents", "image_facts"]
