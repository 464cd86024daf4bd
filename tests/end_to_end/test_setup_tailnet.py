"""`appmux setup` walked on a host with Tailscale's addresses, in a network namespace of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio

from tests.tailnet import walk
from tests.tailnet.stand_in import NAME

PAGE = f"https://{NAME}:14543/"


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
async def test_from_nothing_to_a_page_by_the_name(tmp_path: Path) -> None:
    if lacking := walk.missing():
        pytest.skip(lacking)
    done = await trio.run_process(
        ["unshare", "-n", sys.executable, "-m", "tests.tailnet.walk", str(tmp_path)],
        capture_stdout=True,
        cwd=Path(__file__).parents[2],
    )
    steps = json.loads(done.stdout)
    assert [each["status"] for each in steps.values() if "status" in each] == [0] * 8, steps
    # The Tailscale-range address is found by itself; without tailscaled there is no word of https.
    for name in ("dry run without tailscaled", "without tailscaled"):
        assert "phones connect to ws://100.64.0.7:14500" in steps[name]["said"]
        assert "https" not in steps[name]["said"]
    assert "Nothing was changed" in steps["dry run without tailscaled"]["said"]
    for name, promised in (("dry run", True), ("yes alone", False), ("https", True)):
        assert (f"serve {PAGE}" in steps[name]["said"]) == promised, steps[name]
    assert steps["serve"]["said"]["url"] == PAGE
    assert steps["serve"]["said"]["addresses"] == list(walk.ADDRESSES)
    assert steps["names"]["said"] == [NAME, NAME]
    assert steps["disable"]["said"] == "off\n"
