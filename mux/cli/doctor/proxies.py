"""The doctor's checks of what stands before the broker: proxies, and where there must be none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from mux import documents
from mux.cli.doctor.finding import Finding
from mux.config.addresses import TcpAddress, parse_listen_url
from mux.config.codex_binary import codex_home
from mux.config.model import Config
from mux.config.proxies import network
from mux.errors import AppmuxError

ABOUT: Final = "proxy"
TRUSTED: Final = "trusted proxies"
PAGE: Final = f"see {documents.page('proxy')}"


def proxies(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say what a proxy before each listener means, and what the settings for proxies lack."""
    try:
        parsed = [parse_listen_url(url, codex_home(environ)) for url in config.listen]
    except AppmuxError:
        return  # reported by ``addresses``
    listeners = [each for each in parsed if isinstance(each, TcpAddress)]
    if config.auth.mode is None and listeners:
        yield _open(config, listeners)
    elif config.web.origins and not any(each.tls for each in listeners):
        yield from _behind(config)
    yield from _contradictions(config, listeners)


def _open(config: Config, listeners: list[TcpAddress]) -> Finding:
    urls = ", ".join(each.url for each in listeners)
    says = (
        f"{urls} asks for no token: a proxy or tunnel before it would let in, with all scopes,"
        " whoever reaches that. What says that it is a proxy is refused there; many tunnels say"
        " nothing"
    )
    if config.web.origins:
        says += f". So no proxy brings a page to {', '.join(config.web.origins)}"
    return Finding(ABOUT, "note", says, f"`--ws-auth`, if there is to be one: {PAGE}")


def _behind(config: Config) -> Iterator[Finding]:
    """Report on a proxy that the settings take for granted: no listener has https itself."""
    if not config.web.trusted_proxies:
        says = (
            f"who comes by {', '.join(config.web.origins)} is known by the proxy's address alone:"
            " in the audit log, and where failures to authenticate are counted"
        )
        remedy = f"name the proxy's address in `web.trusted_proxies`: {PAGE}"
        yield Finding(ABOUT, "note", says, remedy)


def _contradictions(config: Config, listeners: list[TcpAddress]) -> Iterator[Finding]:
    networks = [network(text) for text in config.web.trusted_proxies]
    if networks and not config.web.origins:
        says = "`web.trusted_proxies` names one, and `web.origins` no page's name: none is reached"
        yield Finding(TRUSTED, "note", says, f"add `web.origins` if it is to bring pages: {PAGE}")
    for each in listeners:
        if each.local and any(each.ip in found for found in networks):
            says = (
                f"who comes from {each.ip} isn't `local`: `web.trusted_proxies` says that a proxy"
                f" passes on from there, though `listen` has ws+local://{each}"
            )
            yield Finding(TRUSTED, "note", says, "take one of them out")
