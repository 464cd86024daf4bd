"""The page's own unit tests: pure state, messages that wait, approvals, what strangers wrote."""

from __future__ import annotations

import gzip
import re
import subprocess
from typing import Final

import pytest

from tests.page.node import WEB, node

STATIC: Final = WEB.parent / "mux" / "web" / "static"
KILO: Final = 1024


def _compressed(*names: str) -> int:
    return sum(len(gzip.compress((STATIC / name).read_bytes())) for name in names)


def test_the_page_is_small_enough_for_a_phones_network() -> None:
    if not (STATIC / "index.html").is_file():
        pytest.skip("the page isn't built: run `make page` where npm is reached")
    shell = (STATIC / "index.html").read_text()
    first = set(re.findall(r'"/(assets/[^"]+)"', shell))
    scripts = {name for name in first if name.endswith(".js")}
    every = [str(each.relative_to(STATIC)) for each in STATIC.rglob("*.js")]
    assert scripts
    assert _compressed(*scripts) <= 60 * KILO
    assert _compressed("index.html", *first) <= 90 * KILO
    assert _compressed(*every) <= 110 * KILO
    assert "http" not in re.sub(r"https?://www\.w3\.org/\S*", "", shell)


def test_the_lock_names_no_place_to_download_from() -> None:
    lock = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "registry" not in lock
    assert "omit-lockfile-registry-resolved=true" in (WEB / ".npmrc").read_text()


def test_the_pages_units() -> None:
    if node() is None or not (WEB / "node_modules" / "esbuild").is_dir():
        pytest.skip("the page's packages aren't there: run `make page` where npm is reached")
    subprocess.run([str(node()), "build.mjs", "--tests"], cwd=WEB, check=True)
    built = sorted(str(each) for each in (WEB / ".tests").glob("*.js"))
    assert len(built) >= 4
    done = subprocess.run(
        [str(node()), "--test", *built], cwd=WEB, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
