"""``appmux join LINK``: this machine's terminals use a broker that runs on another.

The link is one of ``appmux pair`` or ``invite``, there. Its ticket is exchanged for a token, once
the operator has compared codes. ``mux.stdio.joined`` keeps it.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import ssl
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import attrs
import click
import httpx

from mux.access.tickets import code_of
from mux.cli.common.options import broker_flags, exits, json_flag, state_dir_of
from mux.errors import AppmuxError
from mux.posix import private_file
from mux.stdio import joined
from mux.stdio.joined import Joined
from mux.text import visible

CONNECT_SECONDS: Final = 10.0
WORD_SECONDS: Final = 150.0
"""The operator has two minutes to compare codes."""

TICKET: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

SCHEMES: Final = {"https": "wss", "http": "ws"}


class LinkError(AppmuxError):
    """Raised for a text that is no link of ``appmux pair``."""


class NotJoinedError(AppmuxError):
    """The broker didn't let this machine in; the text says why."""


@attrs.frozen
class Link:
    """A link of ``appmux pair``: where the broker is, and the ticket."""

    url: str
    """``ws://…`` or ``wss://…``."""
    ticket: str = attrs.field(repr=False)

    @property
    def http(self) -> str:
        """The broker's URL for plain HTTP requests."""
        return re.sub(r"\Aws", "http", self.url)


def parse(text: str) -> Link:
    """Read a link of ``appmux pair``, for a browser or for an app. Raises ``LinkError``."""
    wrong = LinkError(
        "this is no link of `appmux pair`: it is like https://HOST/#pair=… or appmux://pair?…"
    )
    try:
        parts = urlsplit(text.strip())
        if parts.scheme == "appmux":
            query = {name: value for name, (value, *_) in parse_qs(parts.query).items()}
            host, scheme = query["host"], query["scheme"]
            authority = f"[{host}]" if ":" in host else host
            url, ticket = f"{scheme}://{authority}:{int(query['port'])}", query["ticket"]
        else:
            fragment = parse_qs(parts.fragment)
            url, ticket = f"{SCHEMES[parts.scheme]}://{parts.netloc}", fragment["pair"][0]
        host_there = urlsplit(url).hostname
    except (KeyError, ValueError) as failure:
        raise wrong from failure
    if not url.startswith(("ws://", "wss://")) or not host_there or not TICKET.fullmatch(ticket):
        raise wrong
    return Link(url, ticket)


@click.command(epilog=exits("0 joined, listed, used or left", "1 not"))
@click.argument("link", required=False)
@click.option("--name", default="", metavar="N", help="This machine's name there.")
@click.option("--list", "listed", is_flag=True, help="Show which brokers were joined.")
@click.option("--use", "used", metavar="HOST", help="From now on use that one of them.")
@click.option("--leave", "left", metavar="HOST", help="Forget that one of them.")
@json_flag
@broker_flags
def join(
    *,
    link: str | None,
    name: str,
    listed: bool,
    used: str | None,
    left: str | None,
    as_json: bool,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """Have this machine's terminals use a broker on another.

    LINK is what `appmux pair --url` or `appmux invite` printed there. Without it, it is read from
    stdin, where no list of processes shows it.

    Several may be joined. The latest is used; --use, or the variable APPMUX_JOINED, names another
    by its HOST or HOST:PORT.
    """
    where = state_dir_of(config_file, state_dir)
    if listed:
        _show(where, as_json=as_json)
        return
    if used is not None or left is not None:
        _change(where, used, left)
        return
    if link is None:
        link = click.prompt("Link", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    broker = parse(link)
    private_file.make_directory(where)
    granted = _exchange(broker, name or socket.gethostname())
    try:
        joined.write(where, Joined(broker.url, granted["token"]))
    except OSError as failure:
        raise NotJoinedError(
            f"joined, but {where} can't be written ({failure.strerror}): revoke"
            f" {granted['name']!r} there, and join again"
        ) from failure
    if as_json:
        token_file = str(joined.token_file(where, broker.url))
        more = {name: granted[name] for name in ("name", "scopes", "expiresAt")}
        click.echo(json.dumps({"url": broker.url, "tokenFile": token_file, **more}))
        return
    click.echo(visible(f'joined as "{granted["name"]}", may {", ".join(granted["scopes"])}'))
    for line in how_to_attach(broker, where):
        click.echo(line)


def _show(where: Path, *, as_json: bool) -> None:
    now = joined.used(where)
    shown = [{"url": url, "used": url == now} for url in joined.joined(where)]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    for each in shown:
        click.echo(visible(f"{'*' if each['used'] else ' '} {each['url']}"))
    if not shown:
        click.echo("none was joined")


def _change(where: Path, used: str | None, left: str | None) -> None:
    """Use another broker, or forget one. Raises ``NotJoinedError``."""
    named = str(used if used is not None else left)
    url = joined.find(where, named)
    if url is None:
        raise NotJoinedError(f"not one broker called {named} was joined: `appmux join --list`")
    if used is not None:
        joined.use(where, url)
    else:
        joined.forget(where, url)


def how_to_attach(broker: Link, where: Path) -> list[str]:
    """Return the lines that say how this machine's programs reach the broker now."""
    lines = [
        "`appmux stdio` and `appmux-codex` find it, while no broker runs here:"
        " editors and SDKs take `appmux-codex` as their codex."
    ]
    token = f'APPMUX_TOKEN="$(cat {joined.token_file(where, broker.url)})"'
    codex = "codex --remote {} --remote-auth-token-env APPMUX_TOKEN"
    host = urlsplit(broker.url).hostname or ""
    if broker.url.startswith("wss://"):
        lines.append("A terminal goes over TLS:")
        lines.append(f"    {token} {codex.format(broker.url)}")
    elif host in ("127.0.0.1", "::1", "localhost"):
        lines.append("A terminal goes to this very machine's port (or the tunnel that ends there):")
        lines.append(f"    {token} {codex.format(broker.url)}")
    else:
        port = urlsplit(broker.url).port or joined.DEFAULT_PORTS["ws"]
        lines.append(
            "A terminal goes through SSH, as codex sends tokens over loopback and wss:// alone:"
        )
        lines.append(f"    ssh -N -L {port}:{host}:{port} {host}")
        lines.append(f"    {token} {codex.format(f'ws://127.0.0.1:{port}')}")
    return lines


def _exchange(broker: Link, name: str) -> dict[str, Any]:
    """Exchange the ticket for a token. Raises ``NotJoinedError``."""
    nonce = secrets.token_urlsafe(12)
    code = code_of(broker.ticket, name, nonce)
    click.echo(f"The operator there has to see this code: {code}", err=True)
    timeout = httpx.Timeout(WORD_SECONDS, connect=CONNECT_SECONDS)
    body = {"ticket": broker.ticket, "name": name, "nonce": nonce}
    try:
        # This system's own authorities, as for the connections afterwards.
        trusted = ssl.create_default_context()
        answer = httpx.post(f"{broker.http}/v1/pair", json=body, timeout=timeout, verify=trusted)
    except httpx.HTTPError as failure:
        reason = str(failure) or type(failure).__name__
        raise NotJoinedError(f"can't reach {broker.http}: {reason}") from None
    return _granted(answer, broker)


def _granted(answer: httpx.Response, broker: Link) -> dict[str, Any]:
    try:
        body = answer.json()
        if answer.status_code == 200:  # noqa: PLR2004
            granted: dict[str, Any] = {
                **body,
                "token": str(body["token"]),
                "name": str(body["name"]),
            }
            return granted | {"scopes": list(body["scopes"]), "expiresAt": body["expiresAt"]}
        reason = visible(str(body["message"]))
    except (ValueError, KeyError, TypeError):
        raise NotJoinedError(
            f"{broker.http} answered HTTP {answer.status_code}: is that an appmux?"
        ) from None
    raise NotJoinedError(reason)
