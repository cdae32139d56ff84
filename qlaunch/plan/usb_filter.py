"""Which of a client's USB devices may come in: one spelling, written out for client and QEMU."""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

from qlaunch.profile.fields import USB_CLASSES, USB_RULE, USB_RULE_WORDS

_ANY = "-1"


@frozen(kw_only=True)
class Rule:
    """One rule; -1 stands for any. `version` is the device's own, in the digits of `2.56`."""

    allow: bool
    kind: int = -1
    vendor: int = -1
    product: int = -1
    version: int = -1

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule that the profile spells as `text`. Raises: ValueError."""
        if not re.fullmatch(USB_RULE, text):
            raise ValueError(f"{text!r} is not {USB_RULE_WORDS}")
        action, *words = text.replace("class 0x", "0x").split()
        rule = cls(allow=action == "allow")
        for word in words:
            if word in USB_CLASSES or word.startswith("0x"):
                number = USB_CLASSES[word] if word in USB_CLASSES else int(word, 16)
                rule = cls(allow=rule.allow, kind=number)
            elif ":" in word:
                device, _, version = word.partition("@")
                vendor, _, product = device.partition(":")
                rule = cls(
                    allow=rule.allow,
                    kind=rule.kind,
                    vendor=int(vendor, 16),
                    product=-1 if product == "*" else int(product, 16),
                    version=int(version.replace(".", ""), 16) if version else -1,
                )
        return rule

    def spelled(self, separator: str) -> str:
        """The rule as libusbredir reads it."""
        numbers = [
            _ANY if number < 0 else f"0x{number:0{width}x}"
            for number, width in (
                (self.kind, 2), (self.vendor, 4), (self.product, 4), (self.version, 4),
            )
        ]  # fmt: skip
        return separator.join([*numbers, str(int(self.allow))])


def for_client(rules: Iterable[str]) -> str:
    """The rules as spicy and remote-viewer take them; the first that fits counts."""
    return "|".join(Rule.parse(text).spelled(",") for text in rules)


def for_qemu(rules: Iterable[str]) -> str:
    """The rules as QEMU's `usb-redir` takes them. A device that none of them fits is refused, here
    and at the client."""
    return "|".join(Rule.parse(text).spelled(":") for text in rules)
