"""``appmux doctor``: everything that can be wrong on a host, each with its remedy.

The doctor changes nothing, connects to nothing but the broker, and starts nothing but `codex` to
ask its version, login and schema. ``host``, ``broker`` and ``push`` make the findings.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import click
import trio
from rich.console import Console
from rich.text import Text

from mux.cli.common.options import broker_flags, exits, json_flag
from mux.cli.doctor import addresses, broker, host, proxies, push
from mux.cli.doctor.credentials import credentials
from mux.cli.doctor.finding import Finding
from mux.cli.doctor.online import pages, pushes
from mux.cli.doctor.tailnet import tailnet
from mux.config import locate
from mux.config.load import ConfigError, Settled, load, recall
from mux.config.model import Config

MARKS: Final = {"well": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("WRONG", "bold red")}

MARK_WIDTH: Final = 7


@click.command(epilog=exits("0 nothing is wrong", "1 something is"))
@click.option("--online", is_flag=True, help="Try from outside, too: the page's own address.")
@click.option("--test-push", is_flag=True, help="Send a test push to each device.")
@json_flag
@broker_flags
def doctor(
    *,
    online: bool,
    test_push: bool,
    as_json: bool,
    state_dir: Path | None,
    config_file: Path | None,
) -> None:
    """Look for what is wrong, and say what to do; exits 1 if anything is.

    Codex and its login, tokens and certificates, the addresses and who has them, who writes which
    thread, the running broker and its app-server, disk, clock, the service. Changes nothing.
    """
    flags = {"state_dir": state_dir}
    more = [*([pages] if online else ()), *([pushes] if test_push else ())]
    sys.exit(trio.run(run, flags, config_file, dict(os.environ), as_json, more))


async def run(
    flags: Mapping[str, object],
    config_file: Path | None,
    environ: Mapping[str, str],
    as_json: bool,
    more: Sequence[Callable[[Config], Iterator[Finding]]] = (),
) -> int:
    """Run the checks, print the findings, and return the exit status: 1 if anything is wrong.

    ``more``: checks that a person asked for.
    """
    findings = await examine(flags, config_file, environ)
    if more and findings[0].verdict != "wrong":  # the settings can be read
        config = running_settings(load(flags, environ, config_file)).config
        for check in more:
            findings += await trio.to_thread.run_sync(_all, check, config)
    wrong = [each for each in findings if each.verdict == "wrong"]
    if as_json:
        shown = {"well": not wrong, "findings": [attrs.asdict(each) for each in findings]}
        sys.stdout.write(json.dumps(shown, indent=2, default=str) + "\n")
    else:
        _show(findings, wrong)
    return 1 if wrong else 0


def _all(check: Callable[[Config], Iterator[Finding]], config: Config) -> list[Finding]:
    return list(check(config))


async def examine(
    flags: Mapping[str, object], config_file: Path | None, environ: Mapping[str, str]
) -> list[Finding]:
    """Return all findings, a cause before what it causes."""
    try:
        settled = load(flags, environ, config_file)
    except ConfigError as failure:
        running = recall(locate.announced_settings(_state_dir(flags, environ)))
        remedy = "mend it; the rest is looked at once the settings can be read"
        if running is None:
            return [Finding("settings", "wrong", str(failure), remedy)]
        remedy = "mend it; the running broker was started with others, and is judged by these"
        return [
            Finding("settings", "wrong", str(failure), remedy),
            *await _examine(running, environ, present=None),
        ]
    where = "defaults" if settled.file is None else str(settled.file)
    return [Finding("settings", "well", where), *await _examine(settled, environ, settled)]


def _state_dir(flags: Mapping[str, object], environ: Mapping[str, str]) -> Path:
    named = flags.get("state_dir")
    return Path(str(named)) if named else locate.state_dir(environ)


async def _examine(
    settled: Settled, environ: Mapping[str, str], present: Settled | None
) -> list[Finding]:
    """Examine all but the settings; ``present`` is None if the present ones can't be read."""
    of_codex, _path = await host.codex(settled, environ)
    of_broker, report = await broker.broker(settled.config, environ)
    in_force = settled if report is None else running_settings(settled)
    config = in_force.config
    return [
        *of_codex,
        *host.disk(in_force, environ),
        host.clock(in_force, environ),
        *([] if present is None else host.supervised(present, environ)),
        *of_broker,
        *([] if present is None else _waiting(present, in_force)),
        *addresses.addresses(config, environ, report),
        *tailnet(report),
        *credentials(config),
        *addresses.trust(config, environ),
        *proxies.proxies(config, environ),
        *broker.threads(environ, report),
        *push.push(config),
    ]


def running_settings(settled: Settled) -> Settled:
    """Return the settings that the running broker was started with: flags and all.

    These are the present ones if it doesn't tell, as one of another version may.
    """
    state_dir = settled.config.state_dir
    return recall(locate.announced_settings(state_dir)) or settled


def _waiting(settled: Settled, in_force: Settled) -> Iterator[Finding]:
    """Report present settings that aren't those of the running broker, and what is wrong there."""
    keys = settled.differing(in_force)
    if not keys:
        return
    came = "; ".join(f"{key} ({in_force.origins[key]})" for key in keys)
    yield Finding(
        "settings in force",
        "note",
        f"the broker was started with others: {came}. It is judged by these",
        "`appmux service restart` (or a new `appmux serve`) takes the present ones",
        {"keys": keys},
    )
    for check in (credentials, push.push):
        now = list(check(in_force.config))
        for each in check(settled.config):
            if each.verdict != "well" and each not in now:
                yield attrs.evolve(each, about=f"{each.about}, after a restart")


def _show(findings: list[Finding], wrong: list[Finding]) -> None:
    console = Console(soft_wrap=True)
    width = max(len(each.about) for each in findings) + 2
    for finding in findings:
        mark, style = MARKS[finding.verdict]
        line = Text.assemble(
            (mark.ljust(MARK_WIDTH), style), finding.about.ljust(width), finding.says
        )
        console.print(line)
        if finding.remedy:
            console.print(Text(" " * (MARK_WIDTH + width) + f"→ {finding.remedy}"))
    verdict = f"{len(wrong)} wrong" if wrong else "all is well"
    console.print(Text(f"\n{verdict}", "bold red" if wrong else "bold green"))
