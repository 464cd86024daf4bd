"""Pairing by the camera: Chromium's stands before a QR code, as `appmux pair` shows one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import segno
from playwright.sync_api import expect, sync_playwright

from tests.end_to_end.chromium import PATIENCE, chromium
from tests.page.conftest import PHONE
from tests.page.runtime import Runtime

WIDTH: Final = 640
HEIGHT: Final = 480
DOT: Final = 8
"""Pixels of the picture for one of the code's squares."""


def _film(text: str, path: Path) -> None:
    """Write some frames of a QR code, in the form that Chromium takes for a camera (Y4M)."""
    rows = [list(row) for row in segno.make_qr(text, error="m").matrix]
    size = len(rows) * DOT
    left, top = (WIDTH - size) // 2, (HEIGHT - size) // 2
    assert top >= 4 * DOT, "a code needs room around it"
    light = bytearray(b"\xeb" * (WIDTH * HEIGHT))
    for y, row in enumerate(rows):
        for x, dark in enumerate(row):
            if dark:
                for line in range(DOT):
                    at = (top + y * DOT + line) * WIDTH + left + x * DOT
                    light[at : at + DOT] = b"\x10" * DOT
    grey = b"\x80" * (WIDTH * HEIGHT // 2)
    head = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420\n".encode()
    path.write_bytes(head + (b"FRAME\n" + bytes(light) + grey) * 3)


def _seeing(film: Path) -> list[str]:
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return [
        *sandbox,
        "--disable-gpu",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]


def test_a_phone_is_paired_by_its_camera(host: Runtime, built: None, tmp_path: Path) -> None:
    film = tmp_path / "code.y4m"
    _film(f"{host.origin}/#pair={host.ticket()}", film)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_seeing(film))
        page = browser.new_context(**PHONE, permissions=["camera"]).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(host.origin)
        page.get_by_role("button", name="Scan the QR code").click()
        expect(page.locator(".state-live").first).to_be_visible()
        browser.close()
