"""The end of ``appmux setup``: the first phone is paired, and a test push makes it buzz."""

from __future__ import annotations

import click
import trio

from mux import documents
from mux.cli import confirmation, invitation, notices, output, pair
from mux.cli.broker import BrokerError
from mux.config.model import Config
from mux.text import visible

_BY_APP = "a phone's app by `appmux pair --app`"

NOT_FROM_A_PHONE = (
    "No phone reaches this address by itself. `appmux open` shows the page in this machine's"
    f" browser; {documents.page('remote')} has the ways for a phone."
)

HOW_TO_TURN_ON = (
    "Now have it buzz. On the phone, in the page, open Settings and turn push on. (On an iPhone put"
    " the page on the Home Screen first, and pair it there once more.)"
)


def offer(config: Config, url: str, *, ask: bool, secure: bool) -> None:
    """Offer to pair a phone: its browser if there is https, else an app that reaches ``url``."""
    if not secure and invitation.is_loopback(url):
        output.say(NOT_FROM_A_PHONE)
        return
    if not (
        ask and confirmation.is_terminal() and click.confirm("Pair a phone now?", default=True)
    ):
        click.echo(f"pair {'a phone by `appmux pair`' if secure else _BY_APP}")
        return
    wish = pair.PairingSpec("paired", pair.USUAL, app=not secure)
    if trio.run(pair.run, config, wish) == 0 and secure:
        _offer_test_push(config)


def _offer_test_push(config: Config) -> None:
    """Send test pushes for as long as the person wants to see one."""
    output.say(HOW_TO_TURN_ON)
    while click.confirm("Is push on? Then send a test", default=True):
        try:
            answers = notices.send_test(config.state_dir)
        except BrokerError as refused:
            if refused.code is None:
                raise
            click.echo("No device has push on yet.")
            continue
        for answer in answers:
            click.echo(visible(f"{answer['device']}, by {answer['service']}: {answer['said']}"))
        if all(map(notices.is_delivered, answers)):
            return
