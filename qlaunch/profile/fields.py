"""How a key of the profile is declared: once, with its words, and everything else follows.

The loader, the JSON Schema, the reference page and `--set` all read the `Key` that each attrs
field carries in its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import frozen

Kind = Literal[
    "text", "id", "path", "integer", "boolean", "size", "duration", "choice", "words", "numbers",
    "secret", "table", "tables",
]  # fmt: skip

# QEMU's node names are at most 31 characters and begin with a letter; qlaunch adds endings.
ID_PATTERN = r"[a-z][a-z0-9_-]{0,19}"
ID_WORDS = "a small letter, then up to 19 small letters, digits, _ and -"
# A disk `a` has the node `a-file` and the device `a-dev`; no other id may look like them.
ID_ENDINGS = ("-dev", "-file")
MAX_TEXT = 2000
MAX_PATH = 4000
MAX_ITEMS = 256


@frozen(kw_only=True)
class Key:
    """One key: what it means, what may be written there, and what holds when it is not said.

    `pattern` is a regular expression for the whole text and `pattern_words` says it for a person.
    `least` and `most` bound integers, sizes (bytes) and durations (seconds). `otherwise` is a
    sentence for the reference: the value that the plan takes when the profile says nothing.
    """

    kind: Kind
    doc: str
    otherwise: str = ""
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    pattern_words: str = ""
    least: float | None = None
    most: float | None = None
    example: str = ""
    required: bool = False
    spelled: str = ""  # in the file, where Python has no such name


@frozen
class Entry:
    """A key where it stands: `name` in the file, `attribute` in the class, `item` for tables."""

    name: str
    attribute: str
    key: Key
    item: type | None = None


_ENTRIES: dict[type, Mapping[str, Entry]] = {}


def entries_of(cls: type) -> Mapping[str, Entry]:
    """The keys that `cls` declares, by their name in the file, in the order of the class."""
    if cls in _ENTRIES:
        return _ENTRIES[cls]
    found: dict[str, Entry] = {}
    for attribute in attrs.fields(cls):
        key = key_of(attribute)
        if key is not None:
            name = key.spelled or attribute.name
            found[name] = Entry(name, attribute.name, key, attribute.metadata.get("item"))
    _ENTRIES[cls] = found
    return found


def key_of(attribute: attrs.Attribute[Any]) -> Key | None:
    """The declaration that `attribute` carries; None for a field that is no key of the file."""
    found: Key | None = attribute.metadata.get("key")
    return found


def _field(key: Key, default: object = None) -> Any:
    return attrs.field(default=default, metadata={"key": key}, kw_only=True)


def text(doc: str, **more: Any) -> Any:
    """A line of text: no control characters, at most `MAX_TEXT` characters, not empty."""
    return _field(Key(kind="text", doc=doc, **more))


def path(doc: str, **more: Any) -> Any:
    """A file; relative ones start at the folder of the profile, `~` at the user's home."""
    return _field(Key(kind="path", doc=doc, **more))


def ident(doc: str) -> Any:
    """The `id` of one item in an array of tables."""
    return _field(Key(kind="id", doc=doc, required=True), default="")


def integer(doc: str, least: int, most: int, **more: Any) -> Any:
    return _field(Key(kind="integer", doc=doc, least=least, most=most, **more))


def boolean(doc: str, **more: Any) -> Any:
    return _field(Key(kind="boolean", doc=doc, **more))


def size(doc: str, **more: Any) -> Any:
    """Bytes, written as text with a unit: `20GiB`."""
    return _field(Key(kind="size", doc=doc, **more))


def duration(doc: str, **more: Any) -> Any:
    """Seconds, written as text with a unit: `90s`."""
    return _field(Key(kind="duration", doc=doc, **more))


def choice(doc: str, *choices: str, **more: Any) -> Any:
    return _field(Key(kind="choice", doc=doc, choices=choices, **more))


def words(doc: str, **more: Any) -> Any:
    """A list of texts; `()` when not said (an empty list says the same)."""
    return _field(Key(kind="words", doc=doc, **more), default=())


def numbers(doc: str, least: int, most: int, **more: Any) -> Any:
    return _field(Key(kind="numbers", doc=doc, least=least, most=most, **more), default=())


def secret(doc: str, **more: Any) -> Any:
    """A secret, never inline: a table with one of `file`, `env`, `systemd-credential`."""
    return _field(Key(kind="secret", doc=doc, **more))


def version(doc: str, current: int) -> Any:
    """The version of the format, the one key that every file must say."""
    key = Key(kind="integer", doc=doc, least=1, most=current, required=True, example=str(current))
    return _field(key, default=current)


def table(cls: type, doc: str) -> Any:
    """A `[table]` of its own class; always there, its keys may all be unsaid."""
    metadata = {"key": Key(kind="table", doc=doc), "item": cls}
    return attrs.field(factory=cls, metadata=metadata, kw_only=True)


def tables(cls: type, doc: str) -> Any:
    """An `[[array]]` of tables of one class, each with an `id`."""
    return attrs.field(
        default=(), metadata={"key": Key(kind="tables", doc=doc), "item": cls}, kw_only=True
    )


# What several keys ask of their text.
PCI_ADDRESS = {
    "pattern": r"([0-9a-fA-F]{1,2}:)?[01]?[0-9a-fA-F](\.[0-7])?",
    "pattern_words": "a PCI address, such as '05.0' or '00:09.7' on the root bus, or '01:00.0'"
    " behind the first root port of q35",
}
ABSOLUTE_PATH = {
    "pattern": r"/[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+",
    "pattern_words": "an absolute path, such as '/opt/qemu'",
}
MAC_ADDRESS = {
    "pattern": r"[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}",
    "pattern_words": "a unicast MAC address, such as '52:54:00:12:34:56'",
}

_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_PORTS = rf"{_PORT}(-{_PORT})?"
FORWARD = rf"((tcp|udp):)?((\[[0-9a-fA-F:.]+\]|[0-9.]+):)?{_PORTS}:{_PORTS}"

NETWORK_NAME = r"[a-z0-9][a-z0-9_-]{0,14}"
NETWORK_NAME_WORDS = "a small letter or digit, then up to 14 small letters, digits, _ and -"

# Which devices a rule of a USB filter is about: by what an interface is for (usb.org, "Defined
# Class Codes"), or by vendor and product.
USB_CLASSES = {
    "audio": 0x01, "communication": 0x02, "hid": 0x03, "physical": 0x05, "image": 0x06,
    "printer": 0x07, "storage": 0x08, "hub": 0x09, "data": 0x0A, "smartcard": 0x0B, "video": 0x0E,
    "wireless": 0xE0, "vendor": 0xFF,
}  # fmt: skip
_USB_CLASS = rf"({'|'.join(USB_CLASSES)}|class 0x[0-9a-f]{{2}})"
_USB_WHICH = r"[0-9a-fA-F]{4}:([0-9a-fA-F]{4}|\*)(@[0-9]{1,2}\.[0-9]{2})?"
USB_RULE = rf"(allow|deny) (all|{_USB_CLASS}( {_USB_WHICH})?|{_USB_WHICH})"
USB_RULE_WORDS = (
    "a rule such as 'allow storage', 'deny hid', 'allow 0951:1666', 'allow 0951:*@1.00',"
    " 'allow class 0xdc' or 'deny all'"
)
USB_ID = r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}"
USB_PORT = r"[1-9][0-9]{0,2}-[1-9][0-9]{0,2}(\.[1-9][0-9]{0,2})*"
