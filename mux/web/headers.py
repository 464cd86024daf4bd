"""The headers that every answer to a page carries.

They keep a script that isn't ours from running in the page, and other pages from framing it, from
embedding what it is answered, and from learning where links lead. There is no HSTS: it would bind
every port of the name, and an agent's dev servers speak plain http.
"""

from __future__ import annotations

from typing import Final

from mux.web.adapter import App, Message, Scope

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types appmux-worker",
    )
)
"""The page's own origin alone, no inline code, and Trusted Types with one policy, for the worker's
URL: nothing makes HTML of a text."""

EVERYWHERE: Final = (
    (b"content-security-policy", POLICY.encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=(), payment=(), usb=()"),
)

NO_STORE: Final = (b"cache-control", b"no-store")


def secured(app: App) -> App:
    """Return an application whose answers carry these headers; what isn't said is not cached."""

    async def serve(scope: Scope, receive: object, send: object) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *EVERYWHERE]
                if not any(name == NO_STORE[0] for name, _ in headers):
                    headers.append(NO_STORE)
                message = {**message, "headers": headers}
            await send(message)  # type: ignore[operator]

        await app(scope, receive, with_headers)  # type: ignore[arg-type]

    return serve
