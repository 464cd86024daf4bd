"""The doctor's look from outside: the page under its own name, and a test push."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from mux.cli.doctor.online import pages, pushes
from mux.config.model import Config, Web
from tests.end_to_end.brokered import brokered


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_words: object) -> None: ...


@contextmanager
def page(authority: trustme.CA) -> Iterator[int]:
    """A page over https on loopback; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_page_that_answers_and_one_that_no_browser_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    with page(authority) as port:
        config = Config(web=Web(origins=(f"https://localhost:{port}",)))
        (stranger,) = pages(config)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        (known,) = pages(config)
    (gone,) = pages(config)
    assert stranger.verdict == gone.verdict == "wrong"
    assert "no browser trusts it" in stranger.says
    assert (known.verdict, known.about) == ("well", f"page (https://localhost:{port})")
    assert gone.says == "no answer: Connection refused"


async def test_a_test_push_where_no_device_wants_any() -> None:
    async with brokered() as broker:
        state = broker.home.home / ".local" / "state" / "appmux"
        config = attrs.evolve(Config(), state_dir=state)
        (found,) = await trio.to_thread.run_sync(lambda: list(pushes(config)))
    assert (found.about, found.verdict) == ("test push", "note")
