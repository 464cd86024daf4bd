"""Bounds of a message's structure: how many elements it may have, and how deep it may nest.

A step of the loop can't be interrupted, so a client's message is measured before it is decoded. An
*element* is a member of an object or a value of a list, at any depth; an empty object or list
counts as one. So a text has as many as commas and opening brackets outside of strings. A string is
one element, however long it is: a picture passes.

All functions take time in proportion to the text's length alone, whatever stands in it: at most
some 6 ns a byte.

Used by ``client_message`` and ``request_params``, which measure; ``rules`` and ``methods``, by
which a method may have more.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

MAX_DEPTH = 127
"""Nesting that the app-server's JSON parser (serde_json) takes. Deeper lines it drops silently."""

MAX_ELEMENTS = 65_536
"""Elements of one message: a conversation of thousands of items passes."""

OPENED_ELEMENTS = 2048
"""Elements of a message that brings no content (see ``RequestRule.content``), or whose params the
broker reads from end to end: more than any turn has. A turn of 400 parts passes, with the fields
that a TUI gives each of them. Reading so many takes half a millisecond, and the app-server, behind
which others wait, as long."""

FEW_ELEMENTS = 1024
"""Up to this many commas and brackets, a message passes without a check whether they stand in
strings: nearly all messages have fewer."""

MAX_MEMBERS = 256
"""Members of a message itself, and of its params: each is looked at alone. The longest params that
codex knows have 27."""

LONG = 65_536
"""Bytes from which a text's signs are looked for, not counted."""

RARE = 64
"""Signs up to which that is quicker, in the worst case by little."""

_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOT_SIGNS = bytes(set(range(256)) - set(b'[]{},"'))


class Rough(NamedTuple):
    """The signs that a text has, in strings or not. It can't have more elements."""

    commas: int
    brackets: int
    """Opening ones."""

    @property
    def is_small(self) -> bool:
        """True if the text has few elements, wherever its signs stand."""
        return self.commas + self.brackets <= FEW_ELEMENTS

    @property
    def is_shallow(self) -> bool:
        """True if the text can't nest too deeply."""
        return self.brackets <= MAX_DEPTH


def rough(text: bytes) -> Rough:
    """Count a text's signs, which is quick."""
    return Rough(_count(text, b","), _count(text, b"[") + _count(text, b"{"))


def _count(text: bytes, sign: bytes) -> int:
    if len(text) < LONG:
        return text.count(sign)
    # To find the next sign takes a tenth of the time that counting takes, where signs are rare: a
    # picture has a handful.
    found, at = 0, text.find(sign)
    while at >= 0 and found < RARE:
        found, at = found + 1, text.find(sign, at + 1)
    return found if at < 0 else found + text.count(sign, at)


def signs(text: bytes, most: int = MAX_ELEMENTS) -> bytes | None:
    """Return the brackets and commas that stand outside of strings.

    Return None if so many strings begin in the text that it must have more than ``most`` elements:
    then nobody looks where the strings end.
    """
    if text.count(b'"') - text.count(b'\\"') > 4 * most + 4:  # four quotes to a member and a comma
        return None
    # Once escapes are removed, every other piece between quotes is a string. Two quotes in a row
    # are dropped: whether they are an empty string, or an end and a beginning, what is inside and
    # outside stays the same.
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text
    kept = plain.translate(None, _NOT_SIGNS).replace(b'""', b"")
    return b"".join(kept.split(b'"')[::2])


def elements(signs: bytes) -> int:
    """Return the number of elements of a text with these signs."""
    return sum(rough(signs))


def depth(signs: bytes) -> int:
    """Return how deep a text with these signs nests."""
    opened = signs.translate(_BRACES_AS_BRACKETS, _NOT_BRACKETS)
    return max(accumulate(map(_STEP, opened)), default=0)


_STEP = (92).__sub__
"""Returns 1 for ``[``, whose code is 91, and -1 for ``]``, whose code is 93."""
