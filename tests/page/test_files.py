"""Files on the page, both ways: seen and saved, photographed, dropped, scaled, gone on with."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Final

from playwright.sync_api import FilePayload, Page, expect

from mux.demo.scripted_model import Patch, Say
from tests.page.axe import violations
from tests.page.conftest import Opener, press
from tests.page.runtime import Runtime
from tests.page.test_work import PNG

THREE: Final = """*** Begin Patch
*** Add File: report.md
+# What was found
+
+A **table** and a <script>window.hurt = 1</script>.
*** Add File: data.csv
+text,count
+café,2
*** Add File: notes.txt
+A line of notes.
*** End Patch"""

SAID: Final = (
    "The report is in `report.md`, and [the notes](notes.txt) are beside it. See `other.md`."
)

DROP: Final = """([kind, name, type]) => {
    const data = new DataTransfer();
    data.items.add(new File(['dropped words'], name, {type}));
    const event = kind === 'paste'
        ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true})
        : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
    document.querySelector('#message').dispatchEvent(event);
}"""


def _photograph(width: int, height: int) -> bytes:
    """Return a PNG of so many grey pixels, which no compression makes small."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    value, row = 1, bytearray()
    for _ in range(width):
        value = value * 1103515245 + 12345 & 0x7FFFFFFF
        row.append(value >> 16 & 0xFF)
    rows = b"".join(b"\0" + row[n % width :] + row[: n % width] for n in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(rows, 0)
    begin = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return begin + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _attach(page: Page, *files: FilePayload) -> None:
    page.locator("input[type=file][multiple]").set_input_files(list(files))


def _made(host: Runtime, opened: Opener, title: str) -> Page:
    host.now(host.model.on, "three files", Patch(THREE), Say(SAID))
    thread = host.begin(title, "three files")
    page = opened(path=f"/t/{thread}")
    press(page, "Approve")
    expect(page.locator(".agent").last).to_contain_text("The report is in")
    return page


def test_the_files_that_a_turn_made_are_seen_and_saved(
    host: Runtime, opened: Opener, tmp_path: Path
) -> None:
    page = _made(host, opened, "Makes three")
    page.get_by_role("button", name="3 files made").click()
    sheet = page.get_by_role("dialog")
    expect(sheet.get_by_role("listitem")).to_have_count(3)
    assert violations(page) == []
    sheet.get_by_role("button", name="data.csv").click()
    expect(sheet.get_by_role("region")).to_contain_text("café,2")
    with page.expect_download() as begun:
        sheet.get_by_role("button", name="Save").click()
    begun.value.save_as(tmp_path / "data.csv")
    assert begun.value.suggested_filename == "data.csv"
    assert (tmp_path / "data.csv").read_text() == "text,count\ncafé,2\n"
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)


def test_a_file_is_opened_from_the_text_and_from_its_change(host: Runtime, opened: Opener) -> None:
    page = _made(host, opened, "Named in the text")
    said = page.locator(".agent").last
    said.get_by_role("button", name="report.md").click()
    sheet = page.get_by_role("dialog")
    expect(sheet.get_by_role("heading", name="What was found")).to_be_visible()
    expect(sheet.locator("strong")).to_have_text("table")
    assert page.evaluate("window.hurt") is None
    page.keyboard.press("Escape")
    said.get_by_role("button", name="the notes").click()
    expect(sheet).to_contain_text("A line of notes.")
    page.keyboard.press("Escape")
    # What the thread didn't touch leads nowhere.
    expect(said.get_by_role("button")).to_have_count(2)
    page.get_by_role("button", name="Look at notes.txt").click()
    expect(sheet).to_contain_text("A line of notes.")


def test_a_file_that_has_gone_says_so(host: Runtime, opened: Opener) -> None:
    page = _made(host, opened, "Gone")
    (host.broker.home.work / "notes.txt").unlink()
    page.locator(".agent").last.get_by_role("button", name="the notes").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()


def test_a_large_photograph_is_scaled_down_unless_one_says_otherwise(
    host: Runtime, opened: Opener
) -> None:
    thread = host.begin("Photographed", "hello")
    page = opened(path=f"/t/{thread}")
    photograph = _photograph(3000, 2000)
    assert len(photograph) > 5_000_000
    _attach(page, {"name": "a.png", "mimeType": "image/png", "buffer": photograph})
    picture = page.get_by_alt_text("Picture 1")
    expect(page.get_by_text("The photograph is scaled down.")).to_be_visible()
    width = "image => image.decode().then(() => image.naturalWidth)"
    assert picture.evaluate(width) == 2048
    page.get_by_role("button", name="Full size").click()
    expect(page.get_by_text("The photograph is scaled down.")).to_have_count(0)
    assert picture.evaluate(width) == 3000


def test_a_picture_too_large_for_a_message_is_uploaded_and_seen_by_the_model(
    host: Runtime, opened: Opener
) -> None:
    thread = host.begin("Sees a large one", "hello")
    page = opened(path=f"/t/{thread}")
    huge = PNG + b"\0" * (8 << 20)
    _attach(page, {"name": "huge.gif", "mimeType": "image/gif", "buffer": huge})
    sent = page.get_by_role("list", name="Files to send").get_by_role("listitem")
    expect(sent).to_contain_text("on the host")
    page.get_by_label("Message", exact=True).fill("what is this large one")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".agent").last).to_contain_text("You said: what is this")
    expect(page.locator(".user").last.get_by_role("button")).to_contain_text("huge.gif")
    assert "input_image" in str(host.model.requests[-1]["input"][-1])


def test_an_upload_goes_on_when_the_page_is_opened_again(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Opened again", "hello")
    page = opened(path=f"/t/{thread}")
    words = re.compile("/v1/files/")
    page.route(words, lambda route: route.abort())
    _attach(page, {"name": "kept.txt", "mimeType": "text/plain", "buffer": b"kept words" * 99})
    sent = page.get_by_role("list", name="Files to send").get_by_role("listitem")
    expect(sent.get_by_role("progressbar")).to_be_visible()
    page.wait_for_function(
        """() => new Promise(done => {
            const open = indexedDB.open('appmux');
            open.onsuccess = () => {
                const get = open.result.transaction('page').objectStore('page').getAll();
                get.onsuccess = () => done(get.result.some(each => each.upload && each.url));
            };
        })"""
    )
    page.unroute(words)
    page.reload()
    expect(sent).to_contain_text("kept.txt")
    expect(sent).to_contain_text("on the host")
    page.reload()
    expect(sent).to_contain_text("on the host")
    page.get_by_role("button", name="Send").click()
    place = host.broker.home.work / "uploads" / "kept.txt"
    expect(page.locator(".user").last).to_contain_text(f"Attached file: {place}")
    assert place.read_bytes() == b"kept words" * 99
    page.reload()
    expect(page.locator(".user").last).to_contain_text("Attached file")
    expect(sent).to_have_count(0)


def test_files_are_dropped_and_pasted(host: Runtime, opened: Opener) -> None:
    thread = host.begin("Dropped", "hello")
    page = opened(path=f"/t/{thread}")
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    sent = page.get_by_role("list", name="Files to send").get_by_role("listitem")
    page.evaluate(DROP, ["drop", "dropped.txt", "text/plain"])
    expect(sent).to_have_count(1)
    page.evaluate(DROP, ["paste", "pasted.txt", "text/plain"])
    expect(sent).to_have_count(2)
    expect(sent.filter(has_text="pasted.txt")).to_contain_text("on the host")
    expect(page.get_by_role("button", name="Take a photograph")).to_be_visible()
