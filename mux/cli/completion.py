"""``appmux completion``: a shell's completion; and what it completes besides commands and flags.

Ids and names are asked of the running broker, within a moment; where it doesn't answer, nothing is
completed.
"""

from __future__ import annotations

from typing import Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from mux.cli.common import broker
from mux.cli.common.options import exits, state_dir_of
from mux.cli.terminal import screen, waiting
from mux.errors import AppmuxError
from mux.text import visible

PROGRAM: Final = "appmux"
VARIABLE: Final = "_APPMUX_COMPLETE"
"""The variable by which click is told to complete, instead of to run."""

SHELLS: Final = ("bash", "zsh", "fish")

DEADLINE: Final = 1.0
"""Seconds for the broker's answer: a person waits for the list with a finger on the key."""


@click.command(epilog=exits("0 the script was printed", "2 there is no such shell"))
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands, flags, thread ids and device names.

    \b
    bash  add to ~/.bashrc:  eval "$(appmux completion bash)"
    zsh   add to ~/.zshrc:   eval "$(appmux completion zsh)"
    fish  appmux completion fish > ~/.config/fish/completions/appmux.fish
    """
    of_shell = get_completion_class(shell)
    assert of_shell is not None
    command = click.get_current_context().find_root().command
    # The source is a template; click's own `source` runs bash first, to see its version.
    made = of_shell(command, {}, PROGRAM, VARIABLE)
    click.echo(made.source_template % made.source_vars())


def _fetch(ctx: click.Context, method: str) -> dict[str, Any]:
    """Return the broker's answer; an empty one if there is none in time."""
    named = {name: ctx.params.get(name) for name in ("config_file", "state_dir")}
    try:
        where = broker.urls(state_dir_of(**named))
        with broker.connected(where) as connection:
            return connection.request(method, deadline=DEADLINE)
    except (AppmuxError, OSError):
        return {}


def approval_ids(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the id of an approval that waits."""
    pending = _fetch(ctx, "mux/approvals/list").get("approvals", [])
    return [
        CompletionItem(str(each["id"]), help=visible(waiting.what(each)))
        for each in pending
        if str(each["id"]).startswith(incomplete)
    ]


def thread_ids(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a thread's id: the short one, or the whole where its beginning was typed."""
    threads = _fetch(ctx, "mux/status").get("threads", [])
    short = screen.short_ids(each["id"] for each in threads)
    return [
        CompletionItem(id, help=visible(each.get("title") or each.get("directory") or ""))
        for each in threads
        for id in (short[each["id"]], each["id"])
        if id.startswith(incomplete) and (incomplete or id == short[each["id"]])
    ]


def device_names(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a paired device."""
    root = ctx.parent or ctx  # the flags that name the broker stand before the sub-command
    return [
        CompletionItem(each["name"], help=", ".join(each["scopes"]))
        for each in _fetch(root, "mux/devices/list").get("devices", [])
        if each["name"].startswith(incomplete)
    ]
