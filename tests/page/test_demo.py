"""`appmux demo --hold` prints a link, by which a browser is let in to the demo's runtime."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

from playwright.sync_api import Browser, expect

from tests.end_to_end.chromium import PATIENCE
from tests.end_to_end.native import codex_bin
from tests.page.conftest import PHONE

START_SECONDS = 180.0
"""For all of the demo, which takes 6 on a machine that does nothing else."""


def test_the_demos_link_opens_the_page_on_its_runtime(browser: Browser) -> None:
    command = [sys.executable, "-m", "mux", "demo", "--open", "--codex-bin", str(codex_bin())]
    # A browser that does nothing stands in for the operator's own; ours comes by the printed link.
    environ = os.environ | {"BROWSER": "true", "COLUMNS": "200"}
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    timer = threading.Timer(START_SECONDS, demo.terminate)
    timer.start()
    try:
        assert demo.stdout is not None
        found = None
        for line in demo.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/#pair=\S+", line):
                break
        assert found is not None
        with browser.new_context(**PHONE) as context:
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.goto(found[0])
            page.get_by_role("button", name="Pair", exact=True).click()
            expect(page.locator(".row.need")).to_contain_text("A note from the page")
    finally:
        timer.cancel()
        demo.terminate()
        demo.communicate()
