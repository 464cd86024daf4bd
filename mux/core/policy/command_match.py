"""A command as the rules of a policy see it: read completely, or searched for words.

A command is **read completely** if it is one simple command: plain words, some of them in quotes,
separated by blanks. Anything else that means something to a shell (an assignment, a redirection, a
pipe, a second command, an expansion, a pattern of file names, a backslash, a line end) rules that
out. Of a command that was read completely it is certain that its words are run, and nothing else.
The shell that Codex itself puts around a command (``/bin/bash -lc '…'``) is taken off, if it is one
of the system's shells.

Every other command is **searched**: do the rule's words stand in it, in their order, whatever is
before, between and after them? Quotes, backslashes and folders don't matter. Some words can't be
seen: those that a shell makes of ``$``, backquotes or braces, that ``eval`` or ``xargs`` build from
data, or that a shell reads from its input. So a command with any of these could run any rule's
words.

The first finds too little and the second too much: see ``approval_policy`` for why that is right.

Used by ``approval_policy``. The work is bounded, whatever the command: see ``LONGEST`` and
``MOST_TOKENS``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

import msgspec

LONGEST = 16 * 1024
"""Characters of a command that is judged: nobody reads more before saying yes."""

MOST_TOKENS = 512
"""Words of a command that is searched; each is compared with every rule."""

Words = tuple[str, ...]

_SHELLS = "ash|bash|csh|dash|fish|ksh|mksh|pwsh|rbash|sh|tcsh|zsh"
_CODEX_SHELL = re.compile(r"(?:/usr)?/bin/(?:bash|dash|sh|zsh)")
"""An agent may have chosen, or made, any other shell, or one elsewhere."""

_RESERVED = frozenset(
    {"!", "[[", "builtin", "case", "command", "coproc", "do", "done", "elif", "else", "esac",
     "exec", "fi", "for", "foreach", "function", "if", "in", "nocorrect", "noglob", "nohup",
     "repeat", "select", "then", "time", "until", "while"}
)  # fmt: skip
"""Words that are no command, or that stand before one."""

# ── read completely ───────────────────────────────────────────────────────────────────────────────

_WORD = r"""(?:[A-Za-z0-9_./:=@%+,-]|'[^'\x00-\x1f\x7f]*'|"[^"$`\\!\x00-\x1f\x7f]*")+"""
_SIMPLE = re.compile(rf"[ \t]*{_WORD}(?:[ \t]+{_WORD})*[ \t]*")
_ONE_WORD = re.compile(_WORD)
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")


def _simple(script: str) -> Words | None:
    """Return the words of one simple command; None if the script may be anything else."""
    if not _SIMPLE.fullmatch(script):
        return None
    raw = _ONE_WORD.findall(script)
    first = raw[0]
    if first in _RESERVED or "=" in first or any(each.startswith("=") for each in raw):
        return None
    return tuple(_QUOTED.sub(lambda match: match[1] or match[2] or "", each) for each in raw)


def _unwrapped(command: str) -> str:
    """Return what Codex has a shell run; the command itself if Codex put no shell around it."""
    if not command.startswith(("/bin/", "/usr/bin/")):
        return command
    try:
        argv = shlex.split(command)
    except ValueError:  # an open quote
        return command
    if len(argv) == 3 and argv[1] in ("-lc", "-c") and _CODEX_SHELL.fullmatch(argv[0]):  # noqa: PLR2004
        return argv[2]
    return command


# ── looked through ────────────────────────────────────────────────────────────────────────────────

_CONTINUED = re.compile(r"(?<!\\)\\+\r?\n")
_TOKEN = re.compile(r"""[^\s;&|(){}<>'"`$=,:!#^\\\x00-\x1f\x7f]+""")
_READS_ITS_INPUT = re.compile(
    rf"(?:^|[\s;&|(/])(?:{_SHELLS})\s*(?:$|[;&|)<>\n]|[-+](?:[-+]|[^\sc]*(?:\s|$)))|/dev/|/proc/"
)
"""Matches a shell that isn't given its script at once, by ``-c`` or as a file."""
_GROUPS_NAMES = re.compile(r"[\w./\]*?@+~-]\(|<\d*-\d*>")
"""Matches a pattern of file names as zsh has them, and bash by an option."""
_BUILDS_COMMANDS = frozenset({"eval", "parallel", "xargs"})
_SPECIAL = re.compile(r"[*?\[\]]")


def _is_unsure(text: str, tokens: Sequence[str]) -> bool:
    """Return whether words could be run that don't stand in the command. ``text`` has no quotes."""
    if "$" in text or "`" in text or len(tokens) > MOST_TOKENS:
        return True
    inside = text[text.find("{") + 1 : text.rfind("}")] if "{" in text else ""
    if "," in inside or ".." in inside:
        return True
    names = {_base(each) for each in tokens}
    splits = "env" in names and any(
        each.startswith("--s") or (each[0] == "-" and "S" in each) for each in tokens
    )
    return (
        splits
        or not _BUILDS_COMMANDS.isdisjoint(names)
        or _READS_ITS_INPUT.search(text) is not None
        or _GROUPS_NAMES.search(text) is not None
    )


def _loosened(word: str) -> list[str]:
    return [each.casefold() for each in _TOKEN.findall(word)]


def _come_in_order(tokens: Iterable[str], patterns: Sequence[str]) -> bool:
    at = 0
    for token in tokens:
        while at < len(patterns):
            name, pattern = (token, patterns[at]) if at else (_base(token), _base(patterns[at]))
            if not _could_be(name, pattern):
                break
            at += 1
            if not _SPECIAL.search(token):
                break  # a pattern of file names may stand for several words
        if at == len(patterns):
            return True
    return False


def _could_be(token: str, pattern: str) -> bool:
    """Return whether a word, which may be a pattern of file names, could be the rule's word."""
    if not _SPECIAL.search(token):
        return word_fits(token, pattern)
    pieces, parts = _SPECIAL.split(token), pattern.split("*")
    ends = ((pieces[0], parts[0]), (pieces[-1][::-1], parts[-1][::-1]))
    if len(parts) == 1:
        return all(end.startswith(piece) for piece, end in ends)
    return all(a.startswith(b) or b.startswith(a) for a, b in ends)


# ── what the rules ask ────────────────────────────────────────────────────────────────────────────


class Reading(msgspec.Struct, frozen=True):
    """A command that was read."""

    argv: Words | None
    """All words of the command if it was read completely; else None."""
    unsure: bool
    """True if words may be run that don't stand in the command."""
    tokens: tuple[Words, ...]
    """The words that stand in it, in each of the ways in which it was searched."""

    def is_just(self, pattern: Words) -> bool:
        """Return whether it certainly is one command with these first words, and nothing else."""
        if self.argv is None or len(self.argv) < len(pattern):
            return False
        first, *rest = self.argv[: len(pattern)]
        return _is_program(first, pattern[0]) and all(map(word_fits, rest, pattern[1:]))

    def may_run(self, pattern: Words) -> bool:
        """Return whether a command of these words could be run by it, as far as can be seen."""
        patterns = [token for word in pattern for token in _loosened(word)]
        return self.unsure or any(_come_in_order(tokens, patterns) for tokens in self.tokens)


def read(command: str) -> Reading:
    """Read a command as the app-server shows it: a script, or words joined for a shell."""
    if len(command) > LONGEST:
        return Reading(None, True, ())
    script = _unwrapped(command)
    text = _CONTINUED.sub("", script)
    # A shell ignores quotes within a word. In another language a quote ends a word.
    texts = dict.fromkeys((re.sub(r"[\"'\\]", "", text), re.sub(r"[\"'\\]", " ", text)))
    tokenized = [_TOKEN.findall(each) for each in texts]
    unsure = any(map(_is_unsure, texts, tokenized))
    tokens = tuple(tuple(each.casefold() for each in words) for words in tokenized)
    return Reading(_simple(script), unsure, () if unsure else tokens)


def is_plain(pattern: str) -> bool:
    """Return whether a rule's words could be a command's.

    They have no quotes and no operators, and no reserved word, assignment or ``sh -c`` in front.
    """
    words = pattern.replace("*", "x").split()
    if not words or not all(_TOKEN.fullmatch(re.sub(r"[=,:^!#]", "x", each)) for each in words):
        return False
    shell = re.fullmatch(rf"(?:.*/)?(?:{_SHELLS})", words[0])
    gives_command = shell and len(words) > 1 and re.fullmatch(r"-\w*c", words[1])
    return words[0] not in _RESERVED and "=" not in words[0] and not gives_command


def _is_program(word: str, pattern: str) -> bool:
    """Return whether the word runs the program that a rule names.

    A rule that gives a name means the program that is found by that name. One that gives an
    absolute path means exactly that file. ``./git`` and ``/tmp/git`` may be anything.
    """
    if "/" not in pattern:
        return "/" not in word and word_fits(word, pattern)
    parts, pattern_parts = word.split("/"), pattern.split("/")
    return (
        pattern.startswith("/")
        and len(parts) == len(pattern_parts)
        and not {".", ".."}.intersection(parts)
        and all(map(word_fits, parts, pattern_parts))
    )


def word_fits(word: str, pattern: str) -> bool:
    """Return whether one word fits the pattern; linear, whatever stands in either."""
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
