"""The doctor's check of https on the Tailnet, from the running broker's own report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mux.cli.doctor.finding import Finding
from mux.text import day

ABOUT = "https (Tailnet)"


def tailnet(report: dict[str, Any] | None) -> Iterator[Finding]:
    """Report what is wrong with https by the host's own name, if its operator wants it."""
    shown = (report or {}).get("tailnet") or {}
    if not shown.get("enabled"):
        return
    if shown["trouble"]:
        yield Finding(ABOUT, "wrong", shown["trouble"], shown["remedy"] or "", shown)
    elif shown["url"]:
        says = f"{shown['url']}, certificate until {day(shown['certificateUntil'])}"
        yield Finding(ABOUT, "well", says, facts=shown)
    else:
        yield Finding(ABOUT, "note", "it is being opened", "`appmux tailnet status`", shown)
