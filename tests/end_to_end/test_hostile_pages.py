"""Pages that aren't the broker's, in a real Chromium: nothing gets in, and nothing is learnt.

Each page tries what a page can: a WebSocket, `fetch` in its modes, images, scripts, frames, forms.
It stands on another port, under a sibling's name, in a sandbox without an origin, under a name that
its owner has pointed at the broker's address, and in an extension.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from playwright.sync_api import BrowserContext, Page

from tests import knocks
from tests.certificates import issue
from tests.end_to_end.brokered import brokered
from tests.end_to_end.browsers import origin_of
from tests.end_to_end.chromium import in_chromium
from tests.end_to_end.devices import operator_of
from tests.end_to_end.test_browser import OWN_PAGE
from tests.ports import kept_port

BARE: Final = "<!doctype html><title>hostile</title><p>hostile</p>"

ATTACK: Final = """async (target) => {
  const outcome = (promise) => promise.then((value) => value, (error) => error.name);
  const element = (tag, name, path) => new Promise((done) => {
    const made = document.createElement(tag);
    made.onload = () => done("loaded");
    made.onerror = () => done("error");
    made[name] = target + path;
    document.body.append(made);
  });
  const paths = ["/", "/page.js", "/healthz", "/readyz", "/metrics", "/v1/session", "/no/such.js"];
  const found = { sockets: [], read: [], opaque: [], scripts: [], images: [], styles: [] };
  found.sockets.push(await new Promise((done) => {
    const socket = new WebSocket(target.replace("http", "ws"), "appmux.v1");
    socket.onopen = () => done("open");
    socket.onclose = ({ code }) => done(code);
  }));
  for (const path of paths) {
    const get = (init) => outcome(fetch(target + path, init).then(
      async (response) => [response.type, response.status, await response.text()]));
    found.read.push(await get({}), await get({ credentials: "include" }));
    found.read.push(await get({ method: "POST", body: "{}" }));
    found.read.push(await get({ method: "DELETE" }));
    found.read.push(await get({ headers: { authorization: "Bearer x" } }));
    found.opaque.push(await get({ mode: "no-cors" }));
    found.scripts.push(await element("script", "src", path));
    found.images.push(await element("img", "src", path));
    const sheet = element("link", "href", path);
    document.body.lastChild.rel = "stylesheet";
    found.styles.push(await sheet);
  }
  return found;
}"""

FRAMED: Final = """async (target) => {
  const frame = document.createElement("iframe");
  frame.src = target;
  const over = new Promise((done) => { frame.onload = frame.onerror = done; });
  document.body.append(frame);
  await over;
  return String(frame.contentDocument);
}"""

FORM: Final = """(target) => {
  const form = document.createElement("form");
  form.action = target + "/v1/session";
  form.method = "POST";
  form.enctype = "text/plain";
  document.body.append(form);
  form.submit();
}"""


@asynccontextmanager
async def hostile(port: int) -> AsyncIterator[None]:
    """A server of pages at a port of this machine, as an agent's dev server would be."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(BARE)}\r\n"
        await stream.send_all(f"{head}connection: close\r\n\r\n{BARE}".encode())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, answer, port, host="127.0.0.1"))
        yield
        nursery.cancel_scope.cancel()


def attacked(page: Page, target: str) -> dict[str, Any]:
    """What a page has found out."""
    found: dict[str, Any] = page.evaluate(ATTACK, target)
    return found


def assert_nothing(found: dict[str, Any]) -> None:
    """No socket opened, nothing could be read, and all that is there looks like what isn't."""
    assert found["sockets"] == [1006]
    assert set(map(json.dumps, found["read"])) == {'"TypeError"'}, found["read"]
    assert {json.dumps(each) for each in found["opaque"]} <= {'["opaque", 0, ""]', '"TypeError"'}
    assert len({str(each) for each in found["opaque"]}) == 1, found["opaque"]
    assert set(found["scripts"]) == {"error"}
    assert set(found["images"]) == {"error"}
    assert set(found["styles"]) == {"error"}


async def test_no_other_page_gets_in_or_learns_anything(tmp_path: Path) -> None:
    """The broker's page is at a name over https, and on loopback; both are attacked.

    (Over plain http from elsewhere a browser doesn't say who asks, but makes no keys either.)
    """
    issued = issue(tmp_path)
    files = ("--tls-cert", str(issued.cert), "--tls-key", str(issued.key))
    names = ("broker.test", "sibling.broker.test", "rebound.test")
    rules = ", ".join(f"MAP {name} 127.0.0.1" for name in names)
    with kept_port() as port, kept_port() as other:
        own = f"https://{names[0]}:{port}"
        settings = OWN_PAGE | {"APPMUX_WEB_ORIGINS": own}
        async with (
            brokered("--listen", f"wss://127.0.0.1:{port}", *files, environ=settings) as broker,
            operator_of(broker) as operator,
            hostile(other),
        ):

            def story(context: BrowserContext) -> dict[str, Any]:
                found: dict[str, Any] = {}
                at_loopback = origin_of(broker)
                for host, target in (
                    ("127.0.0.1", at_loopback),
                    ("localhost", at_loopback.replace("127.0.0.1", "localhost")),
                    ("localhost", at_loopback),
                    (names[0], own),
                    (names[1], own),
                ):
                    page = context.new_page()
                    page.goto(f"http://{host}:{other}/")
                    found[f"{host} to {target}"] = attacked(page, target)
                    found[f"frame at {host} of {target}"] = page.evaluate(FRAMED, target)
                page = context.new_page()
                page.goto(f"http://127.0.0.1:{other}/")
                sandbox = "i => { i.sandbox = 'allow-scripts'; i.srcdoc = '<p>boxed</p>'; }"
                page.evaluate(
                    f"({sandbox})(document.body.appendChild(document.createElement('iframe')))"
                )
                frame = next(each for each in page.frames if each != page.main_frame)
                frame.wait_for_selector("p")
                found["opaque"] = frame.evaluate(ATTACK, origin_of(broker))
                with page.expect_response("**/v1/session") as refused:
                    page.evaluate(FORM, origin_of(broker))
                found["form"] = refused.value.status
                # The page's own name, pointed at the broker: the same origin, for its browser.
                evil = at_loopback.replace("127.0.0.1", "rebound.test")
                page = context.new_page()
                rebound = page.goto(evil)
                found["rebound"] = (rebound.status if rebound else 0, page.inner_text("body"))
                found["rebound fetches"] = attacked(page, evil)
                page.goto(f"https://rebound.test:{port}/")
                found["rebound over https"] = attacked(page, f"https://rebound.test:{port}")
                # A link is all that another page may do.
                page.goto(f"http://127.0.0.1:{other}/")
                page.evaluate("target => { location.href = target }", own)
                page.wait_for_selector("#log")
                found["link"] = page.url
                return found

            found = await in_chromium(
                story, f"--host-resolver-rules={rules}", "--ignore-certificate-errors"
            )
            assert found.pop("link") == f"{own}/"
            assert found.pop("form") == 403
            status, text = found.pop("rebound")
            assert (status, "web.origins" in text) == (403, True)
            secure = found.pop("rebound over https")
            assert {json.dumps(each) for each in secure["read"]} == {'["basic", 403, ""]'}
            assert secure["sockets"] == [1006]
            rebound = found.pop("rebound fetches")
            answers = {json.dumps(each) for each in rebound.pop("read")}
            # It reads refusals, and what the app-server's own listener says to all: no more.
            assert answers <= {
                json.dumps(["basic", 403, text]),
                '["basic", 403, ""]',
                '["basic", 200, ""]',
                '"TypeError"',
                json.dumps(["basic", 400, knocks.NO_UPGRADE]),
                json.dumps(["basic", 403, "`/metrics` needs the scope `admin`"]),
            }, answers
            assert rebound["sockets"] == [1006]
            for name in [name for name in found if name.startswith("frame")]:
                assert found.pop(name) == "null"
            for each in found.values():
                assert_nothing(each)
            status = await operator.request("mux/status")
            assert len(status["clients"]) == 1
            assert (await operator.request("mux/devices/list"))["devices"] == []


async def test_an_extensions_page_gets_no_more(tmp_path: Path) -> None:
    extension = tmp_path / "extension"
    extension.mkdir()
    manifest = {
        "manifest_version": 3,
        "name": "hostile",
        "version": "1",
        "background": {"service_worker": "worker.js"},
    }
    (extension / "manifest.json").write_text(json.dumps(manifest))
    (extension / "worker.js").write_text("")
    (extension / "page.html").write_text(BARE)
    async with brokered(environ=OWN_PAGE) as broker, operator_of(broker) as operator:

        def story(context: BrowserContext) -> tuple[str, dict[str, Any]]:
            workers = context.service_workers
            worker = workers[0] if workers else context.wait_for_event("serviceworker")
            page = context.new_page()
            page.goto(worker.url.replace("worker.js", "page.html"))
            return page.url, attacked(page, origin_of(broker))

        url, found = await in_chromium(
            story,
            f"--disable-extensions-except={extension}",
            f"--load-extension={extension}",
            extensions=True,
        )
        assert url.startswith("chrome-extension://")
        assert_nothing(found)
        assert len((await operator.request("mux/status"))["clients"]) == 1
