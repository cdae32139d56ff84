"""Key names as people write them, and text as keys of a US keyboard (QEMU's QKeyCode)."""

from __future__ import annotations

from qlaunch.errors import UsageError

_ALIASES = {
    "control": "ctrl", "del": "delete", "escape": "esc", "enter": "ret", "return": "ret",
    "space": "spc", "win": "meta_l", "super": "meta_l", "meta": "meta_l", "pageup": "pgup",
    "pagedown": "pgdn", "ins": "insert", "sysrq": "sysrq", "print": "print", "caps": "caps_lock",
    "-": "minus", "=": "equal", "rctrl": "ctrl_r", "ralt": "alt_r", "altgr": "alt_r",
    "rshift": "shift_r", "backspace": "backspace", "bksp": "backspace", "break": "pause",
}  # fmt: skip
_NAMES = """
    shift shift_r alt alt_r ctrl ctrl_r menu esc minus equal backspace tab bracket_left
    bracket_right ret semicolon apostrophe grave_accent backslash comma dot slash asterisk spc
    caps_lock num_lock scroll_lock sysrq print home pgup pgdn end left up down right insert delete
    meta_l meta_r compose pause kp_enter kp_add kp_subtract kp_multiply kp_divide kp_decimal
    less power sleep wake
"""
_NAMED = frozenset(
    [
        *_NAMES.split(),
        *(f"f{number}" for number in range(1, 25)),
        *(f"kp_{digit}" for digit in range(10)),
    ]
)
_PLAIN = {
    " ": "spc", "\n": "ret", "\r": "ret", "\t": "tab", "\b": "backspace", "\x1b": "esc",
    "-": "minus", "=": "equal", "[": "bracket_left", "]": "bracket_right", ";": "semicolon",
    "'": "apostrophe", "`": "grave_accent", "\\": "backslash", ",": "comma", ".": "dot",
    "/": "slash",
}  # fmt: skip
_SHIFTED = {
    "_": "minus", "+": "equal", "{": "bracket_left", "}": "bracket_right", ":": "semicolon",
    '"': "apostrophe", "~": "grave_accent", "|": "backslash", "<": "comma", ">": "dot",
    "?": "slash", "!": "1", "@": "2", "#": "3", "$": "4", "%": "5", "^": "6", "&": "7",
    "*": "8", "(": "9", ")": "0",
}  # fmt: skip

Chord = tuple[str, ...]


def parse_chord(text: str) -> Chord:
    """The keys pressed together for `ctrl-alt-delete`, `shift-f10`, `a` or `-`.

    Raises: UsageError naming the part that is no key.
    """
    words = [text] if text in ("-", "+") else text.replace("+", "-").split("-")
    return tuple(_key(word, text) for word in words)


def _key(word: str, whole: str) -> str:
    name = _ALIASES.get(word.lower(), word.lower())
    if len(name) == 1 and name.isascii() and name.isalnum():
        return name
    if name in _NAMED:
        return name
    if len(word) == 1 and word in _PLAIN:
        return _PLAIN[word]
    import difflib

    close = difflib.get_close_matches(name, [*_NAMED, *_ALIASES], 1)
    hint = (
        f"did you mean {close[0]!r}?"
        if close
        else "keys are named like ctrl-alt-delete, f2, ret, a"
    )
    raise UsageError(f"{word!r} in {whole!r} is no key", hint=hint)


def text_to_chords(text: str) -> list[Chord]:
    """The key strokes that type `text` on a US keyboard.

    Raises: UsageError for a character that such a keyboard has not.
    """
    chords: list[Chord] = []
    for letter in text:
        if letter.isascii() and letter.isalnum():
            chords.append(("shift", letter.lower()) if letter.isupper() else (letter,))
        elif letter in _PLAIN:
            chords.append((_PLAIN[letter],))
        elif letter in _SHIFTED:
            chords.append(("shift", _SHIFTED[letter]))
        else:
            raise UsageError(
                f"{letter!r} is not on a US keyboard, which is what the guest is thought to have",
                hint="use the clipboard, or send-key with the keys of the guest's own layout",
            )
    return chords
