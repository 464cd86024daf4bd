"""`mux.web.files` and `headers`: the page's files, whole and in parts, and what goes with them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from mux.web import files, headers
from mux.web.files import PageFiles

SCRIPT = "console.log('hello')\n" * 100


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A page as its build leaves it."""
    (tmp_path / "assets").mkdir()
    for name, text in (
        ("index.html", "<!doctype html><p>the page"),
        ("reset.html", "<!doctype html><p>reset"),
        ("worker.js", "self.x = 1"),
        ("manifest.webmanifest", "{}"),
        ("icon.svg", "<svg/>"),
        ("assets/main-3f2a.js", SCRIPT),
    ):
        (tmp_path / name).write_text(text)
    (tmp_path.parent / "secret.txt").write_text("secret")
    return tmp_path


async def ask(folder: Path, path: str, method: str = "GET", **more: str) -> httpx.Response:
    """What the page's files answer."""
    route = Route("/{path:path}", PageFiles(folder).answer, methods=["GET"])
    app = headers.secured(Starlette(routes=[route]))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(
            method, path, headers={name.replace("_", "-"): value for name, value in more.items()}
        )


@pytest.mark.parametrize(
    ("path", "kind", "cached"),
    [
        ("/", "text/html; charset=utf-8", files.ASK_AGAIN),
        ("/t/0199-any", "text/html; charset=utf-8", files.ASK_AGAIN),
        ("/reset", "text/html; charset=utf-8", files.ASK_AGAIN),
        ("/worker.js", "text/javascript; charset=utf-8", files.ASK_AGAIN),
        ("/manifest.webmanifest", "application/manifest+json", files.ASK_AGAIN),
        ("/icon.svg", "image/svg+xml", files.ASK_AGAIN),
        ("/assets/main-3f2a.js", "text/javascript; charset=utf-8", files.FOR_EVER),
    ],
)
async def test_each_file_says_what_it_is_and_how_long_it_holds(
    built: Path, path: str, kind: str, cached: str
) -> None:
    answer = await ask(built, path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.headers["cache-control"] == cached
    for name, value in headers.EVERYWHERE:
        assert answer.headers[name.decode()] == value.decode()
    assert ("reset" in answer.text) is (path == "/reset")


@pytest.mark.parametrize("path", ["/no.js", "/assets/none", "/assets/", "/favicon.ico"])
async def test_a_file_that_is_not_there_is_not_the_page(built: Path, path: str) -> None:
    answer = await ask(built, path)
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/assets/../../secret.txt",
     "//etc/passwd", "/assets/..%5c..%5csecret.txt", "/%00"],
)  # fmt: skip
async def test_nothing_else_is_served(built: Path, path: str) -> None:
    answer = await ask(built, path)
    assert answer.status_code in (200, 404)  # 200: the page itself
    assert "secret" not in answer.text
    assert "root:" not in answer.text


async def test_a_link_leads_nowhere(built: Path) -> None:
    (built / "out.txt").symlink_to(built.parent / "secret.txt")
    assert (await ask(built, "/out.txt")).status_code == 404


async def test_what_has_not_changed_is_not_sent_again(built: Path) -> None:
    first = await ask(built, "/assets/main-3f2a.js")
    again = await ask(built, "/assets/main-3f2a.js", if_none_match=first.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    since = first.headers["last-modified"]
    assert (await ask(built, "/", if_modified_since=since)).status_code == 304
    other = await ask(built, "/assets/main-3f2a.js", if_none_match='"another"')
    assert other.text == SCRIPT


async def test_a_part_of_a_file(built: Path) -> None:
    part = await ask(built, "/assets/main-3f2a.js", range="bytes=5-9")
    assert (part.status_code, part.text) == (206, SCRIPT[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(SCRIPT)}"
    last = await ask(built, "/assets/main-3f2a.js", range="bytes=-7")
    assert (last.status_code, last.text) == (206, SCRIPT[-7:])
    beyond = await ask(built, "/assets/main-3f2a.js", range="bytes=999999-")
    assert beyond.status_code == 416
    changed = await ask(built, "/assets/main-3f2a.js", range="bytes=0-1", if_range='"another"')
    assert (changed.status_code, changed.text) == (200, SCRIPT)


async def test_only_the_head(built: Path) -> None:
    answer = await ask(built, "/assets/main-3f2a.js", "HEAD")
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["content-length"] == str(len(SCRIPT))
    assert (await ask(built, "/", "POST")).status_code == 405


async def test_a_page_that_is_not_built_says_so(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        answer = await ask(folder, "/anything")
        assert (answer.status_code, "isn't built" in answer.text) == (200, True)
        assert (await ask(folder, "/worker.js")).status_code == 404
