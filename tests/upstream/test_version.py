"""The versions of codex that appmux was tried with, and how others stand to them."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from mux.upstream.version import NEWEST_TRIED, OLDEST_TRIED, compared

PROJECT = Path(__file__).parents[2]


def test_the_range_is_that_of_the_tests() -> None:
    packaged = version("openai-codex-cli-bin")
    pins = json.loads((PROJECT / "tests" / "newest" / "package.json").read_text())
    newest = pins["dependencies"]["@openai/codex"]
    assert packaged.startswith(".".join(map(str, OLDEST_TRIED)))
    assert newest == ".".join(map(str, NEWEST_TRIED))


def test_the_range_is_that_of_the_document() -> None:
    text = (PROJECT / "docs" / "compatibility.md").read_text()
    tried = re.findall(r"^\| (\d+)\.(\d+)\.(\d+) \|", text, re.MULTILINE)
    found = [tuple(map(int, each)) for each in tried]
    assert (min(found), max(found)) == (OLDEST_TRIED, NEWEST_TRIED)


@pytest.mark.parametrize(
    ("named", "how"),
    [
        ("0.162.9", "older"), ("0.163.0", "tried"), ("0.171.0-alpha.3", "tried"),
        ("0.171.1", "newer"), ("1.0.0", "newer"),
    ],
)  # fmt: skip
def test_another_version_is_older_or_newer(named: str, how: str) -> None:
    assert compared(named) == how
