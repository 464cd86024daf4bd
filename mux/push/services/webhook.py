"""A webhook of the operator's: sends the document by POST, signed as in Standard Webhooks.

The signature is an HMAC-SHA256 over ``id.timestamp.body``. The id is the same each time that this
push is sent, so that the receiver can recognize a repeat. The timestamp is that of the single
request, so that the receiver may refuse one older than ``REPLAY_WINDOW``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import attrs
import trio

from mux import documents
from mux.config import model
from mux.push import key_file
from mux.push.endpoints import Endpoint
from mux.push.http_client import Web, verdict
from mux.push.message import Push, PushError, encoded
from mux.push.outcome import Outcome

REPLAY_WINDOW: Final = 300
"""Seconds by which a receiver should let the timestamp differ from its own clock."""

PREFIX: Final = "whsec_"
"""Prefix of a secret in base64; any other text is used as it is."""

SHORTEST_SECRET: Final = 24
"""Bytes, as the standard requires."""

SETTING: Final = "push.webhook.secret_file"


@attrs.define(eq=False, repr=False)
class Webhook:
    """The service."""

    settings: model.Webhook

    async def deliver(self, web: Web, _endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push. Raises ``PushError`` if the settings can't be used, ``Unreachable``."""
        if self.settings.url is None or self.settings.secret_file is None:
            raise PushError(
                f"the webhook needs push.webhook.url and {SETTING}: see {documents.page('push')}"
            )
        text = await trio.to_thread.run_sync(key_file.read, self.settings.secret_file, SETTING)
        body, timestamp = encoded(push.document()), int(now)
        headers = {
            "content-type": "application/json",
            "webhook-id": push.delivery,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret_of(text), push.delivery, timestamp, body),
        }
        answer = await web.send(self.settings.url, headers=headers, content=body)
        return verdict(answer, now)


def secret_of(text: str) -> bytes:
    """Return the key that a secret's text stands for. Raises ``PushError``."""
    secret = text.encode()
    if text.startswith(PREFIX):
        try:
            secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (ValueError, binascii.Error):
            raise PushError(f"{SETTING}: what follows {PREFIX} isn't base64") from None
    if len(secret) < SHORTEST_SECRET:
        raise PushError(
            f"{SETTING}: a secret has {SHORTEST_SECRET} bytes at least:"
            " `openssl rand -base64 32` makes one"
        )
    return secret


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the ``webhook-signature`` header."""
    signed = f"{id}.{timestamp}.".encode() + body
    mac = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"
