"""Apple's push service: HTTP/2, one token of the team for all requests, a reason with each refusal.

An alert says what the level allows. It is ``mutable-content``, so that the app's extension may
replace its text with what the extension fetches itself. A withdrawal is a background push: it wakes
the app, which removes what stands under ``collapse``.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import jwt
from msgspec.structs import replace

from mux import documents
from mux.config import model
from mux.push import key_file
from mux.push.endpoints import Endpoint
from mux.push.http_client import TOO_MANY, Answer, Web, verdict
from mux.push.message import Push, PushError, encoded, fitting
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry

HOSTS: Final = {
    "production": "https://api.push.apple.com",
    "sandbox": "https://api.sandbox.push.apple.com",
}

PAYLOAD_BYTES: Final = 4096
"""The largest payload that Apple accepts."""

RENEW_AFTER: Final = 40 * 60.0
NOT_BEFORE: Final = 20 * 60.0
"""Seconds of a token's life after which it is renewed, and before which it can't be. Apple refuses
a token of more than 60 minutes, and a sender that makes a new one within 20 minutes of the last."""

CATEGORY: Final = "APPMUX_{}"
"""The category of an alert, by which the app knows its buttons."""

DEAD_TOKENS: Final = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic", "Unregistered"})
"""Reasons after which the device token is of no use here."""

SET_UP: Final = frozenset({
    "BadTopic", "ExpiredProviderToken", "Forbidden", "InvalidProviderToken", "MissingProviderToken",
    "MissingTopic", "TopicDisallowed", "TooManyProviderTokenUpdates", "UnrelatedKeyIdInToken",
    "BadEnvironmentKeyIdInToken",
})  # fmt: skip
"""Reasons that lie in the host's settings, not in this push."""

GONE: Final = 410
FORBIDDEN: Final = 403
OK: Final = 200


@attrs.define(eq=False, repr=False)
class Apns:
    """The service, and the token that it uses at present."""

    settings: model.Apns
    _token: str = attrs.field(default="", repr=False)
    _made: float = float("-inf")
    """When the token was made."""

    async def deliver(self, web: Web, endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push. Raises ``PushError`` if the settings can't be used, ``Unreachable``."""
        if now - self._made >= RENEW_AFTER or now < self._made:
            self.renew(now)
        used = self._token
        answer = await self._send(web, endpoint, push)
        reason = _reason(answer)
        if (answer.status, reason) == (FORBIDDEN, "ExpiredProviderToken"):
            wait = NOT_BEFORE - (now - self._made)
            if used == self._token and wait > 0:
                # Our clock or Apple's is wrong: a newer token wouldn't help.
                text = f"{answer.status} {reason}: is this host's clock right?"
                return Retry(wait, text, ours=True)
            if used == self._token:  # else another push had the same answer, and renewed it
                self.renew(now)
            answer = await self._send(web, endpoint, push)
            reason = _reason(answer)
        return _outcome(answer, reason, now)

    def renew(self, now: float) -> None:
        """Make a token. Raises ``PushError`` if the settings don't allow it."""
        settings = self.settings
        if settings.key_file is None or not (
            settings.key_id and settings.team_id and settings.topic
        ):
            raise PushError(
                "APNs needs all four of push.apns.key_file, key_id, team_id and topic: see"
                f" {documents.page('push')}"
            )
        key = key_file.read(settings.key_file, "push.apns.key_file")
        try:
            self._token = jwt.encode(
                {"iss": settings.team_id, "iat": int(now)},
                key,
                algorithm="ES256",
                headers={"kid": settings.key_id},
            )
        except (ValueError, TypeError, jwt.PyJWTError):
            raise PushError(
                f"push.apns.key_file: {settings.key_file} isn't a P-256 private key in PEM: take"
                " the .p8 file as Apple gave it"
            ) from None
        self._made = now

    async def _send(self, web: Web, endpoint: Endpoint, push: Push) -> Answer:
        host = self.settings.url or HOSTS[endpoint.address["environment"]]
        return await web.send(
            f"{host}/3/device/{endpoint.address['token']}",
            headers={
                "authorization": f"bearer {self._token}",
                "apns-topic": self.settings.topic or "",
                "apns-push-type": "background" if push.withdraw else "alert",
                # A background push with priority 10 is refused.
                "apns-priority": "10" if push.urgent and not push.withdraw else "5",
                "apns-expiration": str(int(push.expires_at)),
                "apns-collapse-id": push.collapse,
                "apns-id": push.delivery,
                "content-type": "application/json",
            },
            content=fitting(push, PAYLOAD_BYTES, payload),
        )


def payload(push: Push) -> bytes:
    """Return the JSON that goes to the device. Our own fields are under ``appmux``."""
    document = push.document()
    # Title and body stand in the alert already; twice, only half as much would fit.
    for name in ("title", "body"):
        document.pop(name, None)
    aps: dict[str, Any]
    if push.withdraw:
        aps = {"content-available": 1}
    else:
        aps = {
            "alert": {"title": push.headline, "body": push.text},
            "sound": "default",
            "thread-id": push.collapse,
            "mutable-content": 1,
            "interruption-level": "time-sensitive" if push.urgent else "active",
        }
        if push.actions:
            aps["category"] = CATEGORY.format(push.kind.upper())
    return encoded({"aps": aps, "appmux": document})


def _reason(answer: Answer) -> str:
    try:
        reason = json.loads(answer.body)["reason"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return reason[:64] if isinstance(reason, str) and reason.isprintable() else ""


def _outcome(answer: Answer, reason: str, now: float) -> Outcome:
    text = f"{answer.status} {reason}".rstrip()
    if answer.status == OK:
        return Delivered(f"{text}, apns-id {answer.headers.get('apns-id', 'unknown')}")
    if answer.status == GONE or reason in DEAD_TOKENS:
        return Gone(text)
    if reason == "TooManyProviderTokenUpdates" or answer.status == TOO_MANY:
        return Retry(answer.retry_after(now), text, ours=reason in SET_UP)
    if reason in SET_UP or answer.status == FORBIDDEN:
        return Failed(f"{text}: see push.apns in the settings", ours=True)
    general = verdict(answer, now)
    return replace(general, reason=text) if isinstance(general, Retry | Failed) else Failed(text)
