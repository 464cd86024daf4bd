"""`mux.files.names`: a stranger's name can do nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.files.limits import NAME_BYTES
from mux.files.names import HARMFUL, alternatives, safe


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\core.dump", "core.dump"),
        (".bashrc", "bashrc"),
        ("...", "upload"),
        ("", "upload"),
        ("/", "upload"),
        ("a/", "a"),
        ("--help", "help"),
        ("~ada", "ada"),
        ("two\nlines.txt", "twolines.txt"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("nul\0byte", "nulbyte"),
        ("caf\u0065\u0301.txt", "caf\u00e9.txt"),
        ("no\u00a0break.txt", "no break.txt"),
        ("  spaces  ", "spaces"),
        (".gitignore", "gitignore"),
        ("\ud800.txt", "txt"),
    ],
)
def test_what_is_kept_of_a_name(name: str, kept: str) -> None:
    assert safe(name) == kept


@given(st.text(max_size=600))
def test_any_name_becomes_one_component(name: str) -> None:
    kept = safe(name)
    assert kept
    assert "/" not in kept
    assert kept not in {".", ".."}
    assert not kept.startswith((".", "-", "~"))
    assert len(kept.encode()) <= NAME_BYTES
    assert not {unicodedata.category(each) for each in kept} & HARMFUL
    assert safe(kept) == kept


def test_the_ending_of_a_long_name_stays() -> None:
    assert safe("\u00e4" * 300 + ".tar.gz").endswith(".gz")


def test_names_that_are_taken_get_a_number() -> None:
    some = alternatives("a.txt")
    assert [next(some) for _ in range(3)] == ["a.txt", "a-2.txt", "a-3.txt"]
    assert list(alternatives("noend"))[1] == "noend-2"
