"""The registry of push services: maps each service to its object, and handles its errors.

Importing this module imports httpx and cryptography.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import attrs
import structlog

from mux.config import model
from mux.push import endpoints
from mux.push.endpoints import Endpoint
from mux.push.http_client import Unreachable, Web, open_web
from mux.push.message import Push, PushError
from mux.push.outcome import Failed, Outcome, Retry
from mux.push.services.apns import Apns
from mux.push.services.command import Exec
from mux.push.services.fcm import Fcm
from mux.push.services.ntfy import Ntfy
from mux.push.services.unifiedpush import UnifiedPush
from mux.push.services.webhook import Webhook
from mux.push.services.webpush import WebPush

SETTINGS_AGAIN = 30.0
"""Seconds until a push is tried again that wrong settings kept from being sent: meanwhile a person
may correct them."""


log = structlog.get_logger()


class Service(Protocol):
    """A push service."""

    async def deliver(self, web: Web, endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push.

        Raises ``PushError`` if the settings can't be used, ``Unreachable`` if there is no answer.
        """


@attrs.define(eq=False, repr=False)
class Services:
    """All push services, and the HTTP client that they use. Made by ``open_services``."""

    web: Web
    of: Mapping[endpoints.Service, Service]

    async def deliver(self, endpoint: Endpoint, push: Push, now: float) -> Outcome:
        """Send one push, and return the outcome. Errors become outcomes, too."""
        try:
            return await self.of[endpoint.service].deliver(self.web, endpoint, push, now)
        except Unreachable as failure:
            return Retry(None, str(failure))
        except PushError as failure:
            return Retry(SETTINGS_AGAIN, str(failure), ours=True)
        except Exception as failure:  # noqa: BLE001 (one push's fault mustn't end the broker)
            # Log the place of the failure, but not its text, which may hold a key.
            frames = traceback.extract_tb(failure.__traceback__)
            where = " ← ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
            name = type(failure).__name__
            log.error("a push service's module failed", service=endpoint.service, fault=name,
                      where=where)  # fmt: skip
            return Failed(f"a fault in appmux: {name}", ours=True)


def open_services(
    settings: model.Push, state_dir: Path, link: Callable[[], str | None] | None = None
) -> Services:
    """Make all services. Blocks, for some 100 ms. Raises ``PushError``.

    ``link`` returns the URL at which devices reach this broker at present; without it
    ``push.url`` says it.
    """
    web = open_web(settings.timeout, settings.private_hosts, settings.ca_file)
    webpush = WebPush(settings.webpush, state_dir)
    return Services(
        web,
        {
            "apns": Apns(settings.apns),
            "fcm": Fcm(settings.fcm),
            "webpush": webpush,
            "unifiedpush": UnifiedPush(webpush),
            "ntfy": Ntfy(settings.ntfy, link or (lambda: settings.url)),
            "webhook": Webhook(settings.webhook),
            "exec": Exec(settings.exec),
        },
    )
