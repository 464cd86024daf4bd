"""``appmux audit``: print the audit log for a person or a program, and check it for changes.

Reads the files, so it works without a broker, and beside one.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from mux.cli.common.options import broker_flags, exits, json_flag
from mux.cli.common.settings import of_broker
from mux.errors import AppmuxError
from mux.storage import audit_chain
from mux.storage.audit_log import DIRECTORY
from mux.text import visible

UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_SPAN = re.compile(r"(\d{1,6})([smhdw])")

ENVELOPE: Final = frozenset({"n", "at", "kind", "before"})
DIGEST_SHOWN: Final = 12
"""Hex digits of a digest that a person is shown: enough to compare two of them."""


class AuditError(AppmuxError):
    """Raised when there is no audit log, or it can't be read."""


@click.command(
    epilog=exits("0 printed, or the log is as it was written", "1 it is damaged, or there is none")
)
@click.option("--since", metavar="WHEN", help="30m, 2h, 7d ago, or a date such as 2026-11-23.")
@json_flag
@click.option("--verify", is_flag=True, help="Check the whole log; exit status 1 if it's damaged.")
@broker_flags
def audit(
    since: str | None, as_json: bool, verify: bool, state_dir: Path | None, config_file: Path | None
) -> None:
    """Show who came and went, asked for what, and who approved it.

    Works on the files of the state directory, with or without a broker. Each record carries the
    digest of the one before; --verify says which was changed, removed, moved or cut off.
    """
    directory = of_broker(config_file, state_dir).state_dir
    sys.exit(run(directory, since=since, as_json=as_json, verify=verify))


def run(state_dir: Path, *, since: str | None, as_json: bool, verify: bool) -> int:
    """Print or verify the log, and return the exit status.

    Raises ``AuditError`` if there is no log.
    """
    directory = state_dir / DIRECTORY
    if not directory.is_dir():
        raise AuditError(
            f"no audit log in the state directory {state_dir}: a broker begins one with its start;"
            " name another directory with --state-dir"
        )
    try:
        if verify:
            return _verify(directory, as_json=as_json)
        oldest = moment(since, datetime.now(UTC)) if since else None
        for line in _since(directory, oldest):
            text = line.decode(errors="replace") if as_json else shown(line)
            sys.stdout.write(text + "\n")
    except OSError as failure:
        raise AuditError(
            f"the audit log {directory} can't be read: {failure.strerror or failure}"
        ) from failure
    return 0


def moment(text: str, now: datetime) -> datetime:
    """Parse ``2h``, ``30m``, ``7d`` ago, or a date as in ISO 8601. Raises ``AuditError``."""
    if match := _SPAN.fullmatch(text):
        return now - timedelta(seconds=int(match[1]) * UNITS[match[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise AuditError(
            f"--since {text}: expected a time ago (30m, 2h, 7d) or a date (2026-11-23T14:00)"
        ) from None
    return at if at.tzinfo else at.astimezone()


def _since(directory: Path, oldest: datetime | None) -> Iterator[bytes]:
    text = oldest.astimezone(UTC).isoformat(timespec="milliseconds") if oldest is not None else ""
    for line in audit_chain.lines(directory):
        record = audit_chain.read(line.text)
        if record is None or record.at >= text.replace("+00:00", "Z"):
            yield line.text


# -- for a person ----------------------------------------------------------------------------------


def shown(line: bytes) -> str:
    """Return a record as one line: when, which kind, by whom, and the rest."""
    record = audit_chain.read(line)
    if record is None:
        return f"(no record: {visible(line[:100].decode(errors='replace'))})"
    fields = audit_chain.fields(line) or {}
    who = _who(fields.pop("by", None))
    rest = [
        f"{name} {_value(name, value)}"
        for name, value in fields.items()
        if _is_own_field(name, value)
    ]
    words = (_when(record.at), f"{record.kind:<19}", *([who] if who else []), *rest)
    return "  ".join(visible(word) for word in words)


def _when(at: str) -> str:
    try:
        local = datetime.fromisoformat(at).astimezone()
    except (ValueError, OverflowError):  # changed by somebody: a time beyond all calendars
        return at
    return local.strftime("%Y-%m-%d %H:%M:%S")


def _who(by: Any) -> str:
    if not isinstance(by, dict):
        return str(by) if by else ""
    client = f", client {by['client']}" if by.get("client") is not None else ""
    name = f"{by['name']} " if by.get("name") else ""
    return f"{name}({by.get('principal')}{client})"


def _is_own_field(name: str, value: Any) -> bool:
    return name not in ENVELOPE and value is not None


def _value(name: str, value: Any) -> str:
    if name in ("digest", "config") and isinstance(value, str):
        return value[:DIGEST_SHOWN] + "…"
    if name == "votes" and isinstance(value, list):
        votes = [each if isinstance(each, dict) else {} for each in value]
        return "; ".join(f"{_who(each.get('by'))}: {each.get('decision')}" for each in votes)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


# -- whether it is as it was written ---------------------------------------------------------------


def _verify(directory: Path, *, as_json: bool) -> int:
    verdict = audit_chain.verify(directory)
    if as_json:
        sys.stdout.write(json.dumps(verdict.to_json(), indent=2) + "\n")
    else:
        for fault in verdict.faults:
            sys.stdout.write(f"FAULT: {visible(fault)}\n")
        for note in verdict.notes:
            sys.stdout.write(f"note: {visible(note)}\n")
        span = f", {verdict.first} to {verdict.last}" if verdict.records else ""
        state = "NOT as they were written" if verdict.faults else "as they were written"
        sys.stdout.write(f"{verdict.records} records{span}: {state}\n")
        sys.stdout.write(f"head: record {verdict.last}, digest {verdict.digest}\n")
    return 1 if verdict.faults else 0
