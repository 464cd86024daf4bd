"""Web Push (RFC 8030): a browser's push service carries what only the browser can read."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mux.config import model
from mux.push.addresses import decoded
from mux.push.endpoints import Endpoint
from mux.push.http_client import Answer, Web, verdict
from mux.push.message import Push, encoded, fitting
from mux.push.outcome import Failed, Gone, Outcome
from mux.push.services.vapid import Vapid, open_vapid
from mux.push.services.webpush_encryption import PLAIN_BYTES, encrypt

WEB_PUSH: Final = 8030
"""Marks the declarative form: the number of Web Push's RFC."""

DECLARATIVE: Final = "application/notification+json"
PLAIN: Final = "application/octet-stream"

NO_SUCH: Final = frozenset({404, 410})
"""Statuses of a subscription that no longer exists."""

TOO_LARGE: Final = 413

TOPIC_LENGTH: Final = 32
"""Characters at most (RFC 8030), of base64url."""


@attrs.define(eq=False, repr=False)
class WebPush:
    """The service. Its key is read, or made, when it is first needed."""

    settings: model.WebPush
    state_dir: Path
    _vapid: Vapid | None = None

    async def deliver(self, web: Web, endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push. Raises ``PushError``, ``Unreachable``."""
        if self._vapid is None:
            self._vapid = await trio.to_thread.run_sync(open_vapid, self.settings, self.state_dir)
        address = endpoint.address
        plain = fitting(push, PLAIN_BYTES, lambda each: encoded(document(endpoint, each)))
        try:
            body = encrypt(plain, decoded(address["p256dh"]), decoded(address["auth"]))
        except ValueError:
            return Gone("the browser's p256dh is no point on the curve")
        headers = {
            **general_headers(push, now),
            "content-type": DECLARATIVE if _is_declarative(endpoint, push) else PLAIN,
            "content-encoding": "aes128gcm",
            "authorization": self._vapid.authorization(address["endpoint"], now),
        }
        answer = await web.send(address["endpoint"], headers=headers, content=body, guarded=True)
        return outcome(answer, now)


def document(endpoint: Endpoint, push: Push) -> dict[str, Any]:
    """Return what the browser gets.

    For a page it is the declarative form, which a browser that knows it shows by itself if the
    page's worker doesn't; ``mutable`` has the worker asked first. Our own document stands within,
    as the notification's data. A withdrawal shows nothing, so it has no such form.
    """
    own = push.document()
    if not _is_declarative(endpoint, push):
        return own
    shown: dict[str, Any] = {
        "title": push.headline,
        "body": push.text,
        "navigate": push.link(endpoint.navigate or ""),
        "tag": push.collapse,
        "silent": False,
        "mutable": True,
        "data": own,
    }
    if push.badge is not None:
        shown["app_badge"] = str(push.badge)  # as a text: the number 0 is refused by WebKit
    return {"web_push": WEB_PUSH, "notification": shown}


def _is_declarative(endpoint: Endpoint, push: Push) -> bool:
    return endpoint.navigate is not None and not push.withdraw


def general_headers(push: Push, now: float) -> dict[str, str]:
    """Return the headers of RFC 8030."""
    return {
        "content-type": PLAIN,
        "ttl": str(max(0, int(push.expires_at - now))),
        "urgency": "high" if push.urgent else "normal",
        "topic": topic(push.collapse),
    }


def topic(collapse: str) -> str:
    """Return the topic for a collapse key, shortened by a digest if need be.

    A push takes the place of one with the same topic that the device hasn't received yet.
    """
    if len(collapse) <= TOPIC_LENGTH:
        return collapse
    digest = hashlib.sha256(collapse.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode()[:TOPIC_LENGTH]


def outcome(answer: Answer, now: float) -> Outcome:
    """Return the meaning of the push service's answer."""
    if answer.status in NO_SUCH:
        return Gone(answer.says)
    if answer.status == TOO_LARGE:
        return Failed(f"{answer.says}: the service carries less than {PLAIN_BYTES} bytes")
    return verdict(answer, now)
