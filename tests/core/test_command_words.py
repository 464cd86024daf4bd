"""Commands as rules see them: taken apart, and compared word by word."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.core import command_words
from mux.core.command_words import LONGEST, MOST_PARTS, fits, parts, word_fits


def texts(command: str) -> set[str]:
    found = parts(command)
    assert found is not None
    return {" ".join(words) for words in found}


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("git push", {"git push"}),
        ("  git   push\t-f ", {"git push -f"}),
        ("/bin/bash -lc 'git push && ls'", {"git push", "ls"}),
        ("cd x;git push|tee log&", {"cd x", "git push", "tee log"}),
        ("echo $(rm -rf x)", {"echo $", "rm -rf x"}),
        ("echo `rm x`", {"echo", "rm x"}),
        ("echo \"a\n rm x\"", {"echo a", "rm x"}),
        ("g'i't \\push", {"git push"}),
        ("A=1 B+=2 git push", {"git push"}),
        ("if true; then exec git push; fi", {"true", "git push", "fi"}),
        ("bash -c 'sh -c \"git push\"'", {"git push"}),
        ("make test 2>&1", {"make test"}),
        ("cat >out", {"cat", "out"}),
        ("bash script.sh", {"bash script.sh"}),
        ("sudo git push", {"sudo git push"}),
        ("", set()),
        (" ;; && ", set()),
    ],
)  # fmt: skip
def test_a_command_is_taken_apart(command: str, found: set[str]) -> None:
    assert texts(command) == found


@pytest.mark.parametrize(
    ("command", "pattern", "does"),
    [
        ("git push origin", "git push", True),
        ("git push", "git push", True),
        ("/usr/bin/git push", "git push", True),
        ("/usr/bin/git push", "/usr/bin/git", True),
        ("/opt/git push", "/usr/bin/git", False),
        ("git pushy", "git push", False),
        ("git pushy", "git push*", True),
        ("git -C x push", "git push", False),
        ("git -C x push", "git * * push", True),
        ("git", "git push", False),
        ("Git push", "git push", False),
    ],
)
def test_a_pattern_is_the_first_words(command: str, pattern: str, does: bool) -> None:
    (words,) = parts(command) or {()}
    assert fits(words, tuple(pattern.split())) is does


@pytest.mark.parametrize(
    ("word", "pattern", "does"),
    [
        ("", "", True), ("", "*", True), ("abc", "*", True), ("abc", "a*c", True),
        ("abc", "a*b", False), ("aa", "a*a", True), ("a", "a*a", False), ("abcbc", "a*bc*bc", True),
        ("abc", "a*bc*bc", False), ("a.c", "a?c", False), ("[a]", "[a]", True),
    ],
)  # fmt: skip
def test_a_star_stands_for_any_characters(word: str, pattern: str, does: bool) -> None:
    assert word_fits(word, pattern) is does


def test_what_is_too_long_is_not_judged() -> None:
    assert parts("x" * LONGEST) is not None
    assert parts("x" * (LONGEST + 1)) is None
    many = ";".join(f"a{n}" for n in range(MOST_PARTS))
    assert len(parts(many) or ()) == MOST_PARTS
    assert parts(f"{many};b") is None


@given(st.text(alphabet="ab *;\"'\\$()=-c/\n", max_size=60))
def test_any_text_is_taken_apart(text: str) -> None:
    for words in command_words.parts(text) or ():
        assert words
        assert not set("".join(words)) & set(" ;\n\"'\\()")


def test_hostile_texts_cost_little() -> None:
    began = time.process_time()
    parts("A=" * (LONGEST // 2))
    parts("bash -c " * (LONGEST // 8))
    word_fits("a" * LONGEST, "*a" * 50 + "*b")
    assert time.process_time() - began < 0.5
