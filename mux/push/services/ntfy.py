"""ntfy: sends a message to a topic, whose subscribers see it as it is.

There is no app of ours at the other end, so the text is written here. Whoever knows the topic can
read it: buttons, which carry a ticket, are sent at the level ``full`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import attrs
import trio

from mux.config import model
from mux.push import key_file
from mux.push.endpoints import HOST, Endpoint
from mux.push.http_client import Web, verdict
from mux.push.message import Push, encoded, fitting
from mux.push.outcome import Failed, Outcome

MESSAGE_BYTES: Final = 4096
"""The largest JSON. Some servers turn a longer text into an attachment."""

TAGS: Final = {
    "approval": "raised_hand",
    "question": "question",
    "completed": "white_check_mark",
    "failed": "x",
    "interrupted": "stop_sign",
    "goal": "dart",
    "limit": "hourglass",
    "down": "warning",
    "back": "sunrise",
    "moved": "signpost",
    "test": "bell",
}
"""Short codes that ntfy shows as emoji."""

HIGH: Final = 4
DEFAULT: Final = 3

UNKNOWN_HERE: Final = frozenset({404, 405})
"""Statuses of a server that can't take a message back."""


@attrs.define(eq=False, repr=False)
class Ntfy:
    """The service."""

    settings: model.Ntfy
    link: Callable[[], str | None]
    """Returns the URL at which devices reach this broker at present, for links and buttons."""

    async def deliver(self, web: Web, endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push. Raises ``PushError``, ``Unreachable``."""
        server, topic = endpoint.address["server"], endpoint.address["topic"]
        headers = {"content-type": "application/json"}
        token = await self._token(endpoint)
        if token:
            headers["authorization"] = f"Bearer {token}"
        guarded = endpoint.device != HOST
        if push.withdraw:
            answer = await web.send(
                f"{server}/{quote(topic, safe='')}/{push.collapse}",
                method="DELETE",
                headers=headers,
                guarded=guarded,
            )
            if answer.status in UNKNOWN_HERE:
                return Failed(f"{answer.says}: ntfy takes notices back from version 2.16 on")
            return verdict(answer, now)

        def render(each: Push) -> bytes:
            return encoded(self._message(endpoint, topic, each))

        answer = await web.send(
            f"{server}/",
            headers=headers,
            content=fitting(push, MESSAGE_BYTES, render),
            guarded=guarded,
        )
        return verdict(answer, now)

    async def _token(self, endpoint: Endpoint) -> str | None:
        if endpoint.device == HOST and self.settings.token_file is not None:
            return await trio.to_thread.run_sync(
                key_file.read, self.settings.token_file, "push.ntfy.token_file"
            )
        return endpoint.address.get("token")

    def _message(self, endpoint: Endpoint, topic: str, push: Push) -> dict[str, Any]:
        message: dict[str, Any] = {
            "topic": topic,
            "title": push.headline,
            "message": push.text,
            "tags": [TAGS[push.kind]],
            "priority": HIGH if push.urgent else DEFAULT,
            # A later message with the same id takes its place (from ntfy 2.16 on).
            "sequence_id": push.collapse,
        }
        if page := (self.link() or "").rstrip("/"):
            message["click"] = push.link(f"{page}/")
            if push.ticket and endpoint.level == "full":
                message["actions"] = [self._button(page, push, answer) for answer in push.actions]
        return message

    def _button(self, page: str, push: Push, answer: str) -> dict[str, Any]:
        return {
            "action": "http",
            "label": answer.capitalize(),
            "url": f"{page}/v1/approvals/{push.id}",
            "method": "POST",
            "headers": {
                "Authorization": f"Bearer {push.ticket}",
                "Content-Type": "application/json",
            },
            "body": encoded({"answer": answer}).decode(),
            "clear": True,
        }
