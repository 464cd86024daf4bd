"""The brokers on other machines that this one has joined (``appmux join``): where, and the tokens.

Each has two files in ``joined/`` in the state directory, for their owner alone: ``NAME.json`` says
where it is, ``NAME.token`` holds the token and nothing else, so that a shell can read it into a
variable. ``joined.json`` beside names the one that is used if ``APPMUX_JOINED`` names no other.

Over ``wss://`` a thread encrypts between a socket pair and the network: the bridge polls one
descriptor, whichever way its bytes go.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mux.config import locate
from mux.posix import private_file

if TYPE_CHECKING:
    import ssl

FOLDER: Final = "joined"
USED: Final = "joined.json"
VARIABLE: Final = "APPMUX_JOINED"
"""Names the broker that is meant: its ``HOST:PORT``, or ``HOST`` if one of that host was joined."""

CONNECT_DEADLINE: Final = 10.0
"""Seconds to connect and to shake hands over the network."""

PIECE_BYTES: Final = 64 * 1024

DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}


class Joined(NamedTuple):
    """A broker on another machine."""

    url: str
    """``ws://HOST:PORT`` or ``wss://HOST[:PORT]``."""
    token: str

    @property
    def authority(self) -> str:
        """The host and port, as ``Host`` names them."""
        return self.url.partition("://")[2]

    def headers(self) -> bytes:
        """Return the lines of the upgrade that say who we are."""
        return f"Authorization: Bearer {self.token}\r\n".encode()


def read(environ: Mapping[str, str]) -> Joined | None:
    """Return the broker that is meant; None if none was joined, or its files can't be used."""
    where = locate.state_dir(environ)
    named = environ.get(VARIABLE)
    url = find(where, named) if named else used(where)
    try:
        token = private_file.read_secret(token_file(where, url or "")).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    known = url is not None and url.partition("://")[0] in DEFAULT_PORTS and token.isprintable()
    return Joined(url, token) if url and known else None


def joined(where: Path) -> list[str]:
    """Return the URLs of all brokers that were joined."""
    return [url for file in sorted((where / FOLDER).glob("*.json")) if (url := _url(file))]


def used(where: Path) -> str | None:
    """Return the URL of the broker that is used if none is named."""
    return _url(where / USED)


def find(where: Path, named: str) -> str | None:
    """Return the URL of the broker that was joined under a name; None if it isn't just one."""
    urls = [url for url in joined(where) if named in _names(url)]
    return urls[0] if len(urls) == 1 else None


def write(where: Path, joined: Joined) -> None:
    """Keep a broker that was joined; from now on it is the one that is used. Raises ``OSError``."""
    private_file.make_directory(where / FOLDER)
    _replace(token_file(where, joined.url), joined.token)
    _replace(_about_file(where, joined.url), json.dumps({"url": joined.url}))
    use(where, joined.url)


def use(where: Path, url: str) -> None:
    """Use this one of those that were joined, from now on. Raises ``OSError``."""
    _replace(where / USED, json.dumps({"url": url}))


def forget(where: Path, url: str) -> None:
    """Forget a broker that was joined. Raises ``OSError``."""
    if used(where) == url:
        (where / USED).unlink()
    for file in (token_file(where, url), _about_file(where, url)):
        file.unlink(missing_ok=True)


def token_file(where: Path, url: str) -> Path:
    """Return the file of a broker's token."""
    return where / FOLDER / f"{_file_name(url)}.token"


def _about_file(where: Path, url: str) -> Path:
    return where / FOLDER / f"{_file_name(url)}.json"


def _file_name(url: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", url.partition("://")[2]).strip("_.")


def _names(url: str) -> set[str]:
    authority = url.partition("://")[2]
    return {url, authority, _host_and_port(authority, 0)[0]}


def _url(file: Path) -> str | None:
    try:
        return str(json.loads(private_file.read(file))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = private_file.open_file(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(f"{text}\n")
    new.replace(file)


def connect(joined: Joined) -> socket.socket:
    """Connect to it, and return a socket that carries the plain bytes. Raises ``OSError``."""
    scheme = joined.url.partition("://")[0]
    host, port = _host_and_port(joined.authority, DEFAULT_PORTS[scheme])
    link = socket.create_connection((host, port), timeout=CONNECT_DEADLINE)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if scheme == "ws":
        return link
    import ssl  # noqa: PLC0415 (the bridge's start is timed)

    try:
        secure = ssl.create_default_context().wrap_socket(link, server_hostname=host)
    except BaseException:
        link.close()
        raise
    near, far = socket.socketpair()
    secure.setblocking(False)
    far.setblocking(False)
    threading.Thread(target=_encrypt, args=(secure, far), daemon=True).start()
    return near


def _host_and_port(authority: str, usual: int) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        return authority.strip("[]"), usual
    return host.strip("[]"), int(port)


def _encrypt(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Copy both ways until either end is over."""
    out = back = b""
    with secure, plain, suppress(OSError):
        while True:
            moved = False
            if not out:
                piece = _received(plain)
                if piece == b"":
                    return
                out, moved = piece or b"", piece is not None
            if not back:
                piece = _decrypted(secure)
                if piece == b"":
                    return
                back, moved = piece or b"", moved or piece is not None
            taken = _encrypted(secure, out) if out else 0
            given = _sent(plain, back) if back else 0
            out, back = out[taken:], back[given:]
            if not (moved or taken or given):
                reads = [*([] if out else [plain]), *([] if back else [secure])]
                writes = [*([secure] if out else []), *([plain] if back else [])]
                select.select(reads, writes, [])


def _received(plain: socket.socket) -> bytes | None:
    try:
        return plain.recv(PIECE_BYTES)
    except BlockingIOError:
        return None


def _sent(plain: socket.socket, data: bytes) -> int:
    try:
        return plain.send(data)
    except BlockingIOError:
        return 0


def _decrypted(secure: ssl.SSLSocket) -> bytes | None:
    import ssl  # noqa: PLC0415 (loaded by now)

    try:
        return secure.recv(PIECE_BYTES)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None


def _encrypted(secure: ssl.SSLSocket, data: bytes) -> int:
    import ssl  # noqa: PLC0415 (loaded by now)

    try:
        return secure.send(data)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
