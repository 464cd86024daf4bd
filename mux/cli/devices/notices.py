"""``appmux notices``: list notices, their recipients with the reasons, and the services' answers.

The broker of a state directory is asked by ``mux/notices/*`` requests.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from mux.cli.common import broker
from mux.cli.common.broker import Json
from mux.cli.common.options import WholeLines, broker_flags, exits, json_flag, state_dir_of
from mux.cli.completion import device_names
from mux.text import visible

ANSWER_DEADLINE: Final = 10.0
"""Seconds. The broker answers in a millisecond; a slower one has a problem of its own."""

TEST_DEADLINE: Final = 120.0
"""Seconds: a service has ``push.timeout`` (20) for its answer, and there may be several devices."""


@click.group(
    cls=WholeLines,
    invoke_without_command=True,
    epilog=exits("0 the broker answered", "1 no broker answered"),
)
@click.option("--why", is_flag=True, help="Each decision and delivery too.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, metavar="N", help="The newest N (50)."
)
@json_flag
@broker_flags
@click.pass_context
def notices(
    ctx: click.Context, *, why: bool, limit: int, as_json: bool,
    state_dir: Path | None, config_file: Path | None,
) -> None:  # fmt: skip
    """List what devices were told by push, and why they were or weren't."""
    ctx.obj = state_dir_of(config_file, state_dir)
    if ctx.invoked_subcommand is None:
        sys.exit(show(ctx.obj, why=why, limit=limit, as_json=as_json))


@notices.command(
    "test",
    epilog=exits("0 every service took it", "1 one did not, or no broker answered"),
)
@click.option(
    "--device",
    metavar="NAME",
    help="One alone; else all that are registered.",
    shell_complete=device_names,
)
@json_flag
@click.pass_obj
def notices_test(state_dir: Path, device: str | None, *, as_json: bool) -> None:
    """Send a test and say what each service answered."""
    sys.exit(test(state_dir, device, as_json=as_json))


def show(state_dir: Path, *, why: bool, limit: int, as_json: bool) -> int:
    """List the notices, the newest last, and return the exit status. Raises ``AppmuxError``."""
    answer = _ask(state_dir, "mux/notices/list", ANSWER_DEADLINE, why=why, limit=limit)
    notices = answer["notices"]
    if as_json:
        sys.stdout.write(json.dumps(notices, indent=2) + "\n")
    elif not notices:
        sys.stdout.write("nothing was raised yet\n")
    for notice in [] if as_json else reversed(notices):
        sys.stdout.write("\n".join(lines(notice)) + "\n")
    return 0


def test(state_dir: Path, device: str | None, *, as_json: bool) -> int:
    """Send a test; exit status 1 if some service refused it. Raises ``AppmuxError``."""
    answers = send_test(state_dir, device)
    if as_json:
        sys.stdout.write(json.dumps(answers, indent=2) + "\n")
    for outcome in [] if as_json else answers:
        line = f"{outcome['device']}, {outcome['service']} ({outcome['level']}): {outcome['said']}"
        sys.stdout.write(visible(line) + "\n")
    return 0 if all(map(is_delivered, answers)) else 1


def send_test(state_dir: Path, device: str | None = None) -> list[Json]:
    """Have a test sent to one device or all; return the services' answers. Raises ``AppmuxError``.

    Each has ``device``, ``service``, ``level``, and what the service ``said``.
    """
    answer = _ask(state_dir, "mux/notices/test", TEST_DEADLINE, device=device)
    answers: list[Json] = answer["answers"]
    return answers


def is_delivered(answer: Json) -> bool:
    """Return whether a service has taken a test."""
    return bool(answer["said"].startswith("delivered"))


def _ask(state_dir: Path, method: str, deadline: float, **params: Any) -> Json:
    with broker.connected(broker.urls(state_dir)) as connection:
        return connection.request(method, params, deadline)


def lines(notice: Json) -> list[str]:
    """Describe one notice for a person; text that others wrote is made harmless."""
    return [visible(line) for line in _lines(notice)]


def _lines(notice: Json) -> Iterator[str]:
    what = notice["kind"]
    if notice["title"]:
        what += f', "{notice["title"]}"'
    if notice["threadId"]:
        what += f", thread {notice['threadId']}"
    to = ", ".join(notice["sentTo"]) or "nobody"
    over = "stands" if notice["over"] is None else f"over: {notice['overWhy']}"
    yield f"{_when(notice['raised'])}  {what}; sent to {to}; {over}"
    if notice["line"]:
        yield f"    {notice['line']}"
    for step in notice["steps"]:
        device = f" {step['device']}" if step["device"] else ""
        reason = f": {step['why']}" if step["why"] else ""
        yield f"    {_when(step['at'])}  {step['what']}{device}{reason}"
    for delivery in notice["deliveries"]:
        what = "withdrawal" if delivery["withdraw"] else "push"
        tries = f" after {delivery['attempts']} tries" if delivery["attempts"] > 1 else ""
        answer = f" ({delivery['said']})" if delivery["said"] else ""
        state = delivery["state"]
        if delivery.get("arrived") is not None:
            state = f"arrived {_when(delivery['arrived'])}"
        yield f"    {what} to {delivery['device']} by {delivery['service']}: {state}{tries}{answer}"


def _when(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")
