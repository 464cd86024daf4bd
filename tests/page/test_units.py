"""The page's own unit tests: pure state, messages that wait, approvals, what strangers wrote."""

from __future__ import annotations

import subprocess

import pytest

from tests.page.node import WEB, node


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
