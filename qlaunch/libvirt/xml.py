"""XML as people really have it: read what is meant, and say with the line what was mended.

Expat without namespaces: a prefix that nobody declared is part of the name. What only an attacker
writes is refused at once: document types, entities, endless files, endless nesting.
"""

from __future__ import annotations

import codecs
import re
from xml.parsers import expat

from attrs import Factory, define, frozen

from qlaunch.errors import ProfileError
from qlaunch.libvirt.element import Element

MAX_BYTES = 4 << 20
MAX_DEPTH = 100
MAX_ELEMENTS = 100_000

_QUOTES = "\u2018\u2019\u201a\u201b\u2032\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u00b4`"
_TAG = re.compile(r"<[A-Za-z_/?][^<>]*>")
# A value in straight quotes stays, whatever is in it.
_QUOTED = re.compile(
    rf"=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[{_QUOTES}\"']([^{_QUOTES}\"'<>]*)[{_QUOTES}\"'])"
)
_DECLARED = re.compile(r"<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BLANKS = dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u3000\u200b\ufeff"), " ")
_ENDED = ("no element found", "unclosed token", "unclosed CDATA section", "partial character")
_JUNK = "junk after document element"


@frozen
class Mended:
    """Something that is not XML and was read as it was meant."""

    line: int
    message: str


@frozen
class Document:
    root: Element
    mended: tuple[Mended, ...]


def read(data: bytes, shown: str) -> Document:
    """The XML file `data`, which messages call `shown`.

    Raises: ProfileError with the line.
    """
    if len(data) > MAX_BYTES:
        raise ProfileError(
            shown,
            f"is larger than {MAX_BYTES >> 20} MiB, so it describes no machine",
            hint="is this a disk image?",
        )
    mended: list[Mended] = []
    text = _straight(_decoded(data, mended), mended)
    reader = _Reader(shown, mended)
    root = reader.read(text)
    return Document(root, tuple(mended))


# ---- letters ------------------------------------------------------------------------------------


def _decoded(data: bytes, mended: list[Mended]) -> str:
    """The text, whatever the declaration says of its letters."""
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data.decode(name, errors="replace").removeprefix("\ufeff").lstrip()
    if data[:4] in (b"<\0?\0", b"<\0d\0", b"<\0n\0"):
        return data.decode("utf-16-le", errors="replace")
    declared = _declared(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = declared or "iso-8859-1"
        if not declared:
            mended.append(Mended(line, "is not UTF-8; it is read as ISO 8859-1"))
        return data.decode(name, errors="replace").lstrip()
    if declared and declared not in ("utf-8", "ascii"):
        mended.append(Mended(1, f"the file is UTF-8, though its first line says {declared}"))
    stripped = text.lstrip()
    return "\n" * text[: len(text) - len(stripped)].count("\n") + stripped


def _declared(data: bytes) -> str | None:
    """The encoding that the XML declaration names, if it is one that can be read here."""
    found = _DECLARED.search(data[:200].decode("ascii", errors="replace"))
    if not found:
        return None
    try:
        info = codecs.lookup(found[1])
    except LookupError:
        return None
    # Encodings of bytes (`zip`, `hex`) are no encodings of letters.
    return info.name if getattr(info, "_is_text_encoding", True) else None


def _straight(text: str, mended: list[Mended]) -> str:
    """`text` with straight quotes and plain blanks inside its tags."""
    if text.isascii() and "`" not in text:
        return text
    lines: dict[int, str] = {}

    def tag(match: re.Match[str]) -> str:
        words = match[0]
        if words.isascii() and "`" not in words:
            return words
        new = _QUOTED.sub(_quoted, words.translate(_BLANKS))
        if new != words:
            line = text.count("\n", 0, match.start()) + 1 if len(lines) < 100 else 0
            what = "typographic quotes" if any(q in words for q in _QUOTES) else "odd blanks"
            lines.setdefault(line, what)
        return new

    straight = _TAG.sub(tag, text)
    mended += [
        Mended(line, f"{what} in a tag, as web pages make them: read as plain ones")
        for line, what in lines.items()
        if line
    ]
    return straight


def _quoted(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else f'="{match[1]}"'


# ---- elements -----------------------------------------------------------------------------------


@define
class _Reader:
    shown: str
    mended: list[Mended]
    root: Element | None = None
    open: list[Element] = Factory(list)
    count: int = 0
    shift: int = 0

    def read(self, text: str) -> Element:
        # A declaration has to be the very first thing in a file; who cares.
        body = text.lstrip("\n")
        self.shift = len(text) - len(body)
        parser = expat.ParserCreate("utf-8")
        last = True
        parser.buffer_text = True
        self._listen(parser)
        try:
            parser.Parse(body.encode(errors="replace"), not last)
            parser.Parse(b"", last)
        except expat.ExpatError as error:
            self._ended(error)
        if self.root is None:
            raise ProfileError(self.shown, "there is no XML in it")
        return self.root

    def _listen(self, parser: expat.XMLParserType) -> None:
        def refuse(*_words: object) -> int:
            raise ProfileError(
                f"{self.shown}:{parser.CurrentLineNumber + self.shift}",
                "a document type or an entity is refused: libvirt never writes one",
                hint="take the <!DOCTYPE ...> out",
            )

        def start(tag: str, attributes: dict[str, str]) -> None:
            self._start(Element(tag, parser.CurrentLineNumber + self.shift, attributes))

        def end(_tag: str) -> None:
            self.open.pop()

        def characters(words: str) -> None:
            if self.open:
                self.open[-1].text += words

        parser.StartDoctypeDeclHandler = refuse
        parser.EntityDeclHandler = refuse
        parser.UnparsedEntityDeclHandler = refuse
        parser.ExternalEntityRefHandler = refuse
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = characters

    def _start(self, element: Element) -> None:
        self.count += 1
        if len(self.open) >= MAX_DEPTH or self.count > MAX_ELEMENTS:
            what = "too many elements" if self.count > MAX_ELEMENTS else "nested too deeply"
            raise ProfileError(f"{self.shown}:{element.line}", what)
        if self.open:
            self.open[-1].children.append(element)
        elif self.root is None:
            self.root = element
        self.open.append(element)

    def _ended(self, error: expat.ExpatError) -> None:
        words = expat.ErrorString(error.code) or "not well-formed"
        line = error.lineno + self.shift
        if words == _JUNK:
            self.mended.append(Mended(line, "what comes after the first document is not read"))
            return
        if words in _ENDED and self.open:
            inside = self.open[-1].tag
            self.mended.append(Mended(line, f"the file stops inside <{inside}>: is it whole?"))
            return
        raise ProfileError(f"{self.shown}:{line}", f"not XML: {words}", hint=_hint(words))


def _hint(words: str) -> str | None:
    if words == "mismatched tag":
        return "an element that begins above is not closed, or another one is"
    if words == "undefined entity":
        return "only &lt; &gt; &amp; &quot; &apos; and &#...; mean something here"
    if words in _ENDED:
        return "is the file empty?"
    return None
