"""Firebase Cloud Messaging, HTTP v1.

A service account signs an assertion, which Google exchanges for an access token, which authorizes
messages. A message has ``data`` alone, no ``notification``: so the app shows it itself, as the
level allows, and can remove it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import attrs
import jwt
import trio
from msgspec.structs import replace

from mux import documents
from mux.config import model
from mux.push import key_file
from mux.push.endpoints import Endpoint
from mux.push.http_client import TOO_MANY, Answer, Web, verdict
from mux.push.message import Push, PushError, encoded, fitting
from mux.push.outcome import Delivered, Failed, Gone, Outcome, Retry

HOST: Final = "https://fcm.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

DATA_BYTES: Final = 4096
"""The largest ``data``, keys and values."""

ASSERTION_SECONDS: Final = 3600.0
"""Seconds for which an assertion is valid."""
RENEW_BEFORE: Final = 300.0
"""Seconds before its end at which a token is renewed: our clock, and Google's, may be off."""

SHORTEST_QUOTA_WAIT: Final = 60.0
"""Seconds to wait after 429 without ``Retry-After``, as Google asks."""

LONGEST_TTL: Final = 28 * 86_400
"""Seconds that FCM keeps a message at most."""

SETTING: Final = "push.fcm.service_account_file"

OK: Final = 200
BAD: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403


@attrs.frozen
class Account:
    """The fields needed of a service account's file."""

    email: str
    key: str = attrs.field(repr=False)
    key_id: str
    project: str
    token_url: str


def read_account(path: Path) -> Account:
    """Read a service account's file. Raises ``PushError``."""
    try:
        document = json.loads(key_file.read(path, SETTING))
        names = ("client_email", "private_key", "private_key_id", "project_id", "token_uri")
        values = [document[name] for name in names]
        if not all(isinstance(value, str) and value for value in values):
            raise ValueError("not texts")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PushError(
            f"{SETTING}: {path} isn't the JSON of a service account, as the Firebase console's"
            " `Generate new private key` gives it"
        ) from None
    return Account(*values)


def assertion(account: Account, now: float) -> str:
    """Return the signed text that is exchanged for an access token. Raises ``PushError``."""
    claims = {
        "iss": account.email,
        "scope": SCOPE,
        "aud": account.token_url,
        "iat": int(now),
        "exp": int(now + ASSERTION_SECONDS),
    }
    try:
        return jwt.encode(claims, account.key, algorithm="RS256", headers={"kid": account.key_id})
    except (ValueError, TypeError, jwt.PyJWTError):
        raise PushError(f"{SETTING}: its private_key isn't an RSA key in PEM") from None


@attrs.define(eq=False, repr=False)
class Fcm:
    """The service, and the access token that it uses at present."""

    settings: model.Fcm
    _account: Account | None = None
    _token: str = attrs.field(default="", repr=False)
    _until: float = 0.0
    """When the token ends."""
    _renewing: trio.Event | None = None
    """Set when the renewal that runs is done; None if none runs."""

    async def deliver(self, web: Web, endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push. Raises ``PushError`` if the settings can't be used, ``Unreachable``."""
        if self.settings.service_account_file is None:
            raise PushError(f"FCM needs {SETTING}: see {documents.page('push')}")
        if self._account is None:
            self._account = read_account(self.settings.service_account_file)
        account = self._account
        while not now < self._until - RENEW_BEFORE < now + ASSERTION_SECONDS:
            if (refused := await self._renew(web, account, now)) is not None:
                return refused
        used = self._token
        answer = await self._send(web, account, endpoint, push, now)
        if answer.status == UNAUTHORIZED and _error(answer) != "THIRD_PARTY_AUTH_ERROR":
            while used == self._token:
                if (refused := await self._renew(web, account, now)) is not None:
                    return refused
            answer = await self._send(web, account, endpoint, push, now)
        return _outcome(answer, now)

    async def _renew(self, web: Web, account: Account, now: float) -> Outcome | None:
        """Get a token, or wait for another push that is getting it.

        Returns the outcome to give up with if the token is refused, or None.
        """
        if self._renewing is not None:
            await self._renewing.wait()
            return None
        self._renewing = trio.Event()
        try:
            return await self._ask(web, account, now)
        finally:
            done, self._renewing = self._renewing, None
            done.set()

    async def _ask(self, web: Web, account: Account, now: float) -> Outcome | None:
        answer = await web.send(
            account.token_url,
            headers={"content-type": "application/x-www-form-urlencoded"},
            content=urlencode({"grant_type": GRANT, "assertion": assertion(account, now)}).encode(),
        )
        document = _object(answer)
        token, seconds = document.get("access_token"), document.get("expires_in")
        if answer.status == OK and isinstance(token, str) and isinstance(seconds, int):
            self._token, self._until = token, now + seconds
            return None
        self._account = None  # the file may have been replaced by the next time
        self._until = 0.0
        general = verdict(answer, now)
        if isinstance(general, Retry):
            return general
        reason = f"{answer.status} {document.get('error', '')}".rstrip()
        return Failed(f"Google gave no access token: {reason}; see {SETTING}", ours=True)

    async def _send(
        self, web: Web, account: Account, endpoint: Endpoint, push: Push, now: float
    ) -> Answer:
        host = self.settings.url or HOST
        ttl = max(0, min(int(push.expires_at - now), LONGEST_TTL))
        data = json.loads(fitting(push, DATA_BYTES, lambda each: encoded(_data(each))))
        message = {
            "token": endpoint.address["token"],
            "data": data,
            "android": {
                # A silent message at high priority makes Android lower those that follow.
                "priority": "HIGH" if push.urgent and not push.withdraw else "NORMAL",
                "ttl": f"{ttl}s",
                # No collapse_key: of a device that is off line FCM keeps the messages of four keys,
                # and drops what it likes of more; without, it keeps a hundred.
            },
        }
        return await web.send(
            f"{host}/v1/projects/{quote(account.project, safe='')}/messages:send",
            headers={
                "authorization": f"Bearer {self._token}",
                "content-type": "application/json",
            },
            content=encoded({"message": message}),
        )


def _data(push: Push) -> dict[str, str]:
    """Return the document as FCM wants it: all values are texts; ``title`` and ``body`` at any
    level."""
    document = push.document()
    if not push.withdraw:
        document |= {"title": push.headline, "body": push.text}
    return {
        name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in document.items()
    }


def _object(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _error(answer: Answer) -> str:
    """Return FCM's own error code, otherwise Google's general one."""
    error = _object(answer).get("error")
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    codes = [
        each["errorCode"]
        for each in (details if isinstance(details, list) else [])
        if isinstance(each, dict) and isinstance(each.get("errorCode"), str)
    ]
    code = codes[0] if codes else error.get("status")
    return code[:64] if isinstance(code, str) and code.isprintable() else ""


def _about_token(answer: Answer) -> bool:
    """Return whether a 400 says that the registration token isn't one.

    Google gives a message that it rejects the same code, but then names the field.
    """
    message = _object(answer)["error"].get("message")
    return isinstance(message, str) and "registration token" in message.lower()


def _outcome(answer: Answer, now: float) -> Outcome:
    code = _error(answer)
    text = f"{answer.status} {code}".rstrip()
    if answer.status == OK:
        name = _object(answer).get("name")
        return Delivered(f"{text} {name.rpartition('/')[2]}" if isinstance(name, str) else text)
    if code in ("UNREGISTERED", "SENDER_ID_MISMATCH"):
        return Gone(text)
    if answer.status == BAD and code == "INVALID_ARGUMENT" and _about_token(answer):
        return Gone(f"{text}: no registration token")
    if answer.status == TOO_MANY:
        return Retry(answer.retry_after(now) or SHORTEST_QUOTA_WAIT, text)
    if answer.status in (UNAUTHORIZED, FORBIDDEN):
        return Failed(f"{text}: see {SETTING}", ours=True)
    general = verdict(answer, now)
    return replace(general, reason=text) if isinstance(general, Retry | Failed) else Failed(text)
