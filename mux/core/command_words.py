"""A command as the rules of a policy see it: in parts, each part in words.

Read as a person skims it, not as a shell runs it. It is cut at everything that ends a command or
begins another (``; & | ( ) { } < > ` `` and line ends, quoted or not), quotes and backslashes are
left out, and each part is split at blanks. What a shell is given with ``-c`` counts as if it stood
there itself; assignments and words like ``then`` or ``exec`` before a command are left out.

Cutting too often only makes more parts, and more parts can only make a policy stricter (see
``policies``). What hides a command better than this (a variable, a script, ``xargs``) isn't found.

Heard from: ``policies``. The work is bounded whatever the command: see ``LONGEST``, ``MOST_PARTS``.
"""

from __future__ import annotations

import re

LONGEST = 16 * 1024
"""Characters of a command that is judged: more nobody reads before saying yes."""

MOST_PARTS = 256
"""Parts of a command that is judged; each costs a look at every rule."""

Words = tuple[str, ...]

_SHELLS = frozenset({"bash", "dash", "fish", "ksh", "sh", "zsh"})
_BEFORE_A_COMMAND = frozenset(
    {"!", "builtin", "command", "do", "elif", "else", "exec", "if", "nohup", "then", "time",
     "until", "while"}
)  # fmt: skip
_JOINS_STREAMS = re.compile(r"\d?[<>]&\d")
_SEPARATOR = re.compile(r"[;&|(){}<>`\r\n]")
_QUOTES = str.maketrans("", "", "\"'\\")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")


def parts(command: str) -> frozenset[Words] | None:
    """The parts of a command; None for one that is too long, or has too many, to be judged."""
    if len(command) > LONGEST:
        return None
    pieces = _SEPARATOR.split(_JOINS_STREAMS.sub(" ", command))
    found = frozenset(filter(None, map(_words, pieces)))
    return found if len(found) <= MOST_PARTS else None


def _words(piece: str) -> Words:
    words = piece.translate(_QUOTES).split()
    at = 0
    while at < len(words):
        if words[at] in _BEFORE_A_COMMAND or _ASSIGNMENT.match(words[at]):
            at += 1
        elif _base(words[at]) in _SHELLS and _gives_command(words[at + 1 : at + 2]):
            at += 2
        else:
            break
    return tuple(words[at:])


def _gives_command(option: list[str]) -> bool:
    return bool(option) and option[0].startswith("-") and option[0].endswith("c")


def fits(words: Words, pattern: Words) -> bool:
    """Whether a part begins with the words of a pattern, in which ``*`` stands for any characters.

    A first word without a slash in it fits whatever folder the command is in.
    """
    if len(words) < len(pattern) or not words:
        return not pattern
    first = words[0] if "/" in pattern[0] else _base(words[0])
    compared = (first, *words[1 : len(pattern)])
    return all(map(word_fits, compared, pattern))


def word_fits(word: str, pattern: str) -> bool:
    """Whether one word is as the pattern says; linear, whatever stands in either."""
    first, *middle = pattern.split("*")
    if not middle:
        return word == first
    last = middle.pop()
    if len(word) < len(first) + len(last) or not word.startswith(first):
        return False
    at, end = len(first), len(word) - len(last)
    for piece in middle:
        at = word.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return word.endswith(last)


def _base(word: str) -> str:
    return word.rpartition("/")[2]
