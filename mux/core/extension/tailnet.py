"""``mux/tailnet/*``: https by the host's own name in its Tailnet."""

from __future__ import annotations

import msgspec

from mux.core.extension.parts import Described, Nothing, method
from mux.core.protocol.envelope.text_limits import Name


class EnableParams(msgspec.Struct):
    """Params of ``mux/tailnet/enable``.

    ``name``: the name that becomes public; another than the machine's present name is refused.
    """

    name: Name


class TailnetShown(msgspec.Struct, kw_only=True):
    """The status of https on the Tailnet.

    ``enabled``: true if the operator has consented to ``name``. ``name``: while https isn't
    enabled, the name that tailscaled has told, or null. ``url``: the page's, while it is served;
    else null. ``addresses``: those that are listened on. ``certificateUntil``: Unix seconds, or
    null. ``trouble``: what is wrong, or null. ``remedy``: what to run or click.
    """

    enabled: bool
    name: str | None
    url: str | None
    addresses: list[str]
    certificateUntil: float | None
    trouble: str | None
    remedy: str | None


SHOWN = TailnetShown(
    enabled=True,
    name="box.tail1234.ts.net",
    url="https://box.tail1234.ts.net:14543/",
    addresses=["100.64.0.7", "fd7a:115c:a1e0::7"],
    certificateUntil=1_900_000_000.0,
    trouble=None,
    remedy=None,
)

METHODS: dict[str, Described] = {
    "mux/tailnet/read": method(
        "What tailscaled says now, and what is served; no `initialize` needed.", Nothing(), SHOWN
    ),
    "mux/tailnet/enable": method(
        "Get a certificate, and serve https by this name. What is in the way is in the answer, and"
        " is tried again; no `initialize` needed.",
        EnableParams("box.tail1234.ts.net"),
        SHOWN,
    ),
    "mux/tailnet/disable": method(
        "Serve https on the Tailnet no longer; no `initialize` needed.",
        Nothing(),
        TailnetShown(
            enabled=False,
            name="box.tail1234.ts.net",
            url=None,
            addresses=[],
            certificateUntil=None,
            trouble=None,
            remedy=None,
        ),
    ),
}
