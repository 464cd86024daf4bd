"""The doctor's look from outside, on request: whether the page answers, and the push services.

Unlike all other checks it leaves this machine, and a test push is seen by whoever has the device.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from mux import documents
from mux.cli.common.broker import BrokerError
from mux.cli.devices import notices
from mux.cli.doctor.finding import Finding, Verdict
from mux.config.model import Config
from mux.errors import AppmuxError

DEADLINE: Final = 10.0
"""Seconds for an answer of the page, by whatever passes it on."""

FINE: Final = 200

PAGE: Final = documents.page("push")


def pages(settings: Config) -> Iterator[Finding]:
    """Check whether the broker answers under each name by which browsers reach it."""
    for origin in settings.web.origins:
        yield _page(origin)


def _page(origin: str) -> Finding:
    parts = urlsplit(origin)
    about = f"page ({origin})"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=DEADLINE)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as failure:
        remedy = "give the listener, or what is before it, a certificate for this name"
        return Finding(about, "wrong", f"no browser trusts it: {failure.verify_message}", remedy)
    except (OSError, http.client.HTTPException) as failure:
        reason = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
        remedy = "see `appmux doctor` above for the addresses, and what passes this name on"
        return Finding(about, "wrong", f"no answer: {reason}", remedy)
    finally:
        connection.close()
    if status != FINE:
        says = f"/healthz answered {status}: something else is there"
        return Finding(about, "wrong", says, "let this name lead to the broker")
    return Finding(about, "well", "answers, with a certificate that browsers trust")


def pushes(settings: Config) -> Iterator[Finding]:
    """Send a test push to each device, and report what each service answered."""
    try:
        answers = notices.send_test(settings.state_dir)
    except BrokerError as refused:  # no device has registered, say
        verdict: Verdict = "wrong" if refused.code is None else "note"
        yield Finding("test push", verdict, str(refused), f"{PAGE} says how a device registers")
        return
    except AppmuxError as failure:
        yield Finding("test push", "wrong", str(failure), "see the broker above")
        return
    for each in answers:
        good = notices.is_delivered(each)
        says = f"{each['device']}, by {each['service']}: {each['said']}"
        remedy = "" if good else f"{PAGE} says how the service is set up"
        yield Finding("test push", "well" if good else "wrong", says, remedy)
