"""HTTP to the push services, by httpx on trio; imported only once there is something to send.

There are two kinds of destinations. Those of the settings may be anywhere. Those that a device
registered (``guarded``) must be public: the addresses that a name resolves to are checked at each
connection, and the connection goes to the very address that was checked. So a name can't mean one
thing to the check and another to the socket. In either case redirects aren't followed, and proxies
named in the environment aren't used: a proxy would resolve the name by itself.
"""

from __future__ import annotations

import email.utils
import ipaddress
import logging
import ssl
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import certifi
import httpcore
import httpx
import trio

import mux
from mux.push.addresses import named, public
from mux.push.message import PushError
from mux.push.outcome import Delivered, Failed, Outcome, Retry

ANSWER_BYTES: Final = 64 * 1024
"""Most bytes read of an answer. Services answer a line or two; a stranger's server may never
end."""

SHOWN: Final = 160
"""Characters of an answer that are shown to people."""

IDLE_SECONDS: Final = 300.0
"""How long an idle connection is kept: services (APNs above all) dislike a new one for each
push."""

CONNECTIONS: Final = 32
"""Most connections at once, of each kind: more than all services' slots together."""

SHARE: Final = 0.8
"""Share of a request's time that may pass without a byte. Below 1, so that httpcore notices first:
it then drops a dead connection, which with HTTP/2 serves all requests."""

ONE_ADDRESS: Final = 5.0
"""Seconds for each address of a name: a broken one mustn't use up the whole time."""

FIRST_FAILURE: Final = 300
NO_REDIRECT: Final = 400
TOO_SLOW: Final = 408
TOO_MANY: Final = 429
SERVERS_FAULT: Final = 500

# These libraries log whole URLs and headers, which are secrets here.
for _name in ("httpx", "httpcore", "hpack"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Unreachable(Exception):
    """The service gave no answer, none in HTTP, or none in time. The text says why, no secret."""


@attrs.frozen
class Answer:
    """A service's answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def says(self) -> str:
        """Status and the beginning of the body, in one printable line."""
        text = " ".join(self.body[: 4 * SHOWN].decode(errors="replace").split())
        shown = "".join(char if char.isprintable() else "?" for char in text)[:SHOWN]
        return f"{self.status} {shown}".rstrip()

    def retry_after(self, now: float) -> float | None:
        """Return the seconds that ``Retry-After`` asks to wait, or None."""
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
        except (TypeError, ValueError, OverflowError):
            return None


def verdict(answer: Answer, now: float) -> Outcome:
    """Return the general meaning of a status. A service checks for its own meanings first."""
    if answer.status < FIRST_FAILURE:
        return Delivered(answer.says)
    if answer.status in (TOO_SLOW, TOO_MANY) or answer.status >= SERVERS_FAULT:
        return Retry(answer.retry_after(now), answer.says)
    if answer.status < NO_REDIRECT:
        return Failed(f"{answer.status} redirects, which isn't followed")
    return Failed(answer.says)


# -- the client ------------------------------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class Web:
    """The two HTTP clients, one for each kind of destination. Made by ``open_web``."""

    timeout: float
    """Seconds for a whole request."""
    _own: httpx.AsyncClient
    _guarded: httpx.AsyncClient

    async def send(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes = b"",
        method: str = "POST",
        guarded: bool = False,
    ) -> Answer:
        """Send one request and return its answer.

        Raises ``Unreachable``; ``PushError`` if ``url`` isn't a URL.
        """
        client = self._guarded if guarded else self._own
        try:
            with trio.fail_after(self.timeout):
                async with client.stream(
                    method, url, headers={**_ALWAYS, **headers}, content=content
                ) as response:
                    body = b""
                    async for part in response.aiter_raw():
                        body += part
                        if len(body) >= ANSWER_BYTES:
                            break
                    names = {name.lower(): value for name, value in response.headers.items()}
                    return Answer(response.status_code, names, body[:ANSWER_BYTES])
        except (trio.TooSlowError, httpcore.TimeoutException):
            raise Unreachable(f"no answer in {self.timeout:g} s") from None
        except (httpx.InvalidURL, httpcore.UnsupportedProtocol):  # a device's URL is checked before
            raise PushError(
                "an address in the settings isn't a URL as https://HOST/PATH: `appmux doctor` says"
                " which"
            ) from None
        except (httpx.HTTPError, *_FAILURES) as failure:
            raise Unreachable(_reason(failure)) from None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._own.aclose()
        await self._guarded.aclose()


_ALWAYS: Final = {"User-Agent": f"appmux/{mux.__version__}", "Accept-Encoding": "identity"}

_FAILURES: Final = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
    OSError,  # name resolution and TLS
    trio.BrokenResourceError,
)


def open_web(timeout: float, private_hosts: Collection[str], ca_file: Path | None) -> Web:
    """Make both clients. Blocks (it reads certificates).

    Raises ``PushError`` if ``ca_file`` can't be used.
    """
    trusting = ssl.create_default_context(cafile=certifi.where())
    trusting.load_default_certs()
    if ca_file is not None:
        try:
            trusting.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as failure:
            raise PushError(
                f"push.ca_file {ca_file} can't be used ({failure}): it must be the PEM certificate"
                " of an authority"
            ) from failure
    return Web(
        timeout,
        _client(trusting, timeout, httpcore.TrioBackend()),
        _client(trusting, timeout, _Judging(private_hosts)),
    )


def _client(
    trusting: ssl.SSLContext, timeout: float, backend: httpcore.AsyncNetworkBackend
) -> httpx.AsyncClient:
    pool = httpcore.AsyncConnectionPool(
        ssl_context=trusting,
        max_connections=CONNECTIONS,
        max_keepalive_connections=CONNECTIONS,
        keepalive_expiry=IDLE_SECONDS,
        http1=True,
        http2=True,
        network_backend=backend,
    )
    return httpx.AsyncClient(
        transport=_Transport(pool),
        timeout=timeout * SHARE,
        follow_redirects=False,
        trust_env=False,
    )


@attrs.define(eq=False, repr=False)
class _Transport(httpx.AsyncBaseTransport):
    """Connects httpx to httpcore with a network backend, which httpx's own transport doesn't take.

    httpcore's exceptions pass as they are.
    """

    pool: httpcore.AsyncConnectionPool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        outgoing = httpcore.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=_Once(await request.aread()),
            extensions=request.extensions,
        )
        answer = await self.pool.handle_async_request(outgoing)
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self.pool.aclose()


@attrs.define(eq=False, repr=False)
class _Once:
    """The body of a request. Not a generator, as a broken connection that leaves one half read
    would cause a warning."""

    content: bytes

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        if not self.content:
            raise StopAsyncIteration
        content, self.content = self.content, b""
        return content


@attrs.define(eq=False, repr=False)
class _Body(httpx.AsyncByteStream):
    answer: httpcore.Response

    async def __aiter__(self) -> Any:
        async for part in self.answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self.answer.aclose()


@attrs.define(eq=False, repr=False)
class _Judging(httpcore.AsyncNetworkBackend):
    """Connects to public addresses, and to the hosts that the settings name."""

    private_hosts: Collection[str]
    _backend: httpcore.AsyncNetworkBackend = attrs.field(factory=httpcore.TrioBackend)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Check the host's addresses, then connect. Raises ``httpcore.ConnectError``."""
        if named(host, port, self.private_hosts):
            return await self._backend.connect_tcp(
                host, port, timeout, local_address, socket_options
            )
        failure: Exception = httpcore.ConnectError("its name leads to no public address")
        for address in await _public_addresses(host, port):
            try:
                return await self._backend.connect_tcp(
                    address, port, min(timeout or ONE_ADDRESS, ONE_ADDRESS), local_address,
                    socket_options,
                )  # fmt: skip
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as caught:
                failure = caught
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Sleep; part of httpcore's interface."""
        await trio.sleep(seconds)


async def _public_addresses(host: str, port: int) -> list[str]:
    infos = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    texts = [str(each[4][0]).partition("%")[0] for each in infos]
    return [text for text in texts if public(ipaddress.ip_address(text))]


def _reason(failure: BaseException) -> str:
    """Return the failure's reason in one line: the words of the deepest cause that has some."""
    if isinstance(failure, httpcore.LocalProtocolError):  # its text holds the wrong header
        return "a key or address isn't one that HTTP can carry: is there a line end in it?"
    reason = type(failure).__name__
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate isn't good: {cause.verify_message}"
        own = cause.strerror if isinstance(cause, OSError) else None
        reason = own or str(cause) or reason
        inner = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = inner or cause.__cause__ or cause.__context__
    return " ".join(reason.split())[:SHOWN]
