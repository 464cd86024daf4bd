"""The doctor's checks of push: the keys and addresses in the settings.

Nothing is sent: `appmux notices test` does that. ``broker`` reports how push works in a running
broker.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from mux import documents
from mux.cli.doctor.finding import Finding
from mux.config import model
from mux.config.model import Config
from mux.errors import AppmuxError
from mux.push import key_file
from mux.push.http_client import open_web
from mux.push.services.apns import Apns
from mux.push.services.fcm import assertion, read_account
from mux.push.services.vapid import FILE, open_vapid
from mux.push.services.webhook import SETTING, secret_of

REMEDY: Final = f"{documents.page('push')} says how each service is set up"


def push(settings: Config) -> Iterator[Finding]:
    """Check each service that the settings name."""
    for service, check in _checks(settings):
        try:
            says = check()
        except AppmuxError as failure:
            yield Finding(f"push ({service})", "wrong", str(failure), REMEDY)
        else:
            yield Finding(f"push ({service})", "well", says)


def _checks(settings: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    given = settings.push
    if given.apns != model.Apns():
        yield "apns", partial(_apns, given.apns)
    if given.fcm != model.Fcm():
        yield "fcm", partial(_fcm, given.fcm)
    if given.webpush != model.WebPush():
        yield "webpush", partial(_webpush, settings)
    if given.ntfy != model.Ntfy():
        yield "ntfy", partial(_ntfy, given.ntfy)
    if given.webhook != model.Webhook():
        yield "webhook", partial(_webhook, given.webhook)
    if given.exec.command:
        yield "exec", partial(_exec, given.exec)
    if given.url is not None or given.ca_file is not None:
        yield "settings", partial(_general, given)


class PushCheckError(AppmuxError):
    """A setting can't be used, and no service's own module has found that."""


def _apns(apns: model.Apns) -> str:
    Apns(apns).renew(time.time())
    return f"the key {apns.key_id} can sign for {apns.topic}"


def _fcm(fcm: model.Fcm) -> str:
    if fcm.service_account_file is None:
        raise PushCheckError("push.fcm.service_account_file isn't set, but other keys of it are")
    account = read_account(fcm.service_account_file)
    assertion(account, time.time())
    return f"the key of {account.email} can sign for the project {account.project}"


def _webpush(settings: Config) -> str:
    webpush = settings.push.webpush
    if webpush.subject and not webpush.subject.startswith(("mailto:", "https:")):
        raise PushCheckError("push.webpush.subject must begin with mailto: or https:")
    if webpush.key_file is None and not (settings.state_dir / FILE).exists():
        return "its key will be made when the first browser registers"
    open_vapid(webpush, settings.state_dir)
    return "its key can sign"


def _ntfy(ntfy: model.Ntfy) -> str:
    if not (ntfy.server and ntfy.topic):
        raise PushCheckError("push.ntfy needs both server and topic")
    _require_url("push.ntfy.server", ntfy.server)
    if ntfy.token_file is not None:
        key_file.read(ntfy.token_file, "push.ntfy.token_file")
    return f"a topic at {ntfy.server}"


def _webhook(webhook: model.Webhook) -> str:
    if webhook.url is None or webhook.secret_file is None:
        raise PushCheckError("push.webhook needs both url and secret_file")
    _require_url("push.webhook.url", webhook.url)
    secret_of(key_file.read(webhook.secret_file, SETTING))
    return f"signed, to {urlsplit(webhook.url).hostname}"


def _exec(given: model.Exec) -> str:
    program = shutil.which(given.command[0])
    if program is None:
        raise PushCheckError(f"push.exec.command: no program {given.command[0]!r} that can be run")
    return program


def _general(given: model.Push) -> str:
    if given.url is not None:
        _require_url("push.url", given.url)
    if given.ca_file is not None:
        open_web(given.timeout, (), given.ca_file)
    return "as they should be"


def _require_url(setting: str, text: str) -> None:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PushCheckError(f"{setting}: {text!r} isn't a URL as https://HOST")
