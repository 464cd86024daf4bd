"""UnifiedPush: the push service that a person chose; since 2024 it is Web Push.

An app that registers keys gets Web Push. An older app without keys gets the plain document, which
its push service can read. So nothing beyond the level ``opaque`` is sent to it, whatever its
endpoint asks for, and no ticket, with which a reader could answer.
"""

from __future__ import annotations

import attrs
from msgspec.structs import replace

from mux.push.endpoints import Endpoint
from mux.push.http_client import Web
from mux.push.message import Push, encoded, fitting
from mux.push.outcome import Outcome
from mux.push.services import webpush
from mux.push.services.webpush_encryption import PLAIN_BYTES


@attrs.define(eq=False, repr=False)
class UnifiedPush:
    """The service. Sends by Web Push, with the same key."""

    encrypted: webpush.WebPush

    async def deliver(self, web: Web, endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push. Raises ``PushError``, ``Unreachable``."""
        if "auth" in endpoint.address:
            return await self.encrypted.deliver(web, endpoint, push, now)
        bare = replace(push.at("opaque"), ticket=None, actions=())
        plain = fitting(bare, PLAIN_BYTES, lambda each: encoded(each.document()))
        answer = await web.send(
            endpoint.address["endpoint"],
            headers=webpush.general_headers(push, now),
            content=plain,
            guarded=True,
        )
        return webpush.outcome(answer, now)
