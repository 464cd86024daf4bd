"""The page of all settings: `python -m tests.settings_page` writes `docs/settings.md`.

It is made of the classes in `mux.config.model`, of the defaults, and of the reasons beside these.
`tests/test_docs.py` keeps it in step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import attrs

from mux.config.bounds import NOT_GREATER
from mux.config.model import FLAGS, Leaf, bounds, leaves, tables

PAGE: Final = Path(__file__).parents[1] / "docs" / "settings.md"

HEAD: Final = """\
# Settings

<!-- Made by `make settings` from mux/config/model.py: change the reasons there. -->

A setting is a key of a TOML file, a variable or a flag. The file is
`~/.config/appmux/config.toml` on Linux, or the one that `--config` names. A flag goes over a
variable, a variable over the file. A wrong key or value is an error that names it and says where
it stands. `appmux config` shows every setting, its value, and where that came from.

The variable of a key is `APPMUX_`, then the key in capitals with `_` for each dot:
`APPMUX_LIMITS_IN_FLIGHT` is `limits.in_flight`. A list is written there as in TOML. Times are
seconds, sizes are bytes. A path in the file starts from where the file is.
"""


def page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *(line for prefix in tables() for line in _section(prefix))])


def _section(prefix: str) -> Iterator[str]:
    kind = tables()[prefix]
    title, _, rest = (kind.__doc__ or "").partition("\n")
    yield f"## `[{prefix.removesuffix('.')}]`" if prefix else "## At the top of the file"
    yield ""
    yield _prose(title + rest)
    yield ""
    rows = [field for field in attrs.fields(kind) if prefix + field.name in leaves()]
    if rows:
        yield "| key | default | takes | why |"
        yield "|---|---|---|---|"
        yield from (_row(leaves()[prefix + field.name], field) for field in rows)
        yield ""


def _row(leaf: Leaf, field: attrs.Attribute[Any]) -> str:
    reason = str(field.metadata["reason"]).replace("|", "\\|").replace("``", "`")
    flag = FLAGS.get(leaf.key)
    taken = [*_taken(leaf), *([f"`{flag}`" if flag.startswith("-") else flag] if flag else ())]
    return f"| `{leaf.key}` | {_default(leaf, field)} | {'; '.join(taken)} | {reason} |"


def _taken(leaf: Leaf) -> Iterator[str]:
    """Tell what values a setting takes."""
    kind = leaf.plain
    if get_origin(kind) is Literal:
        yield ", ".join(f"`{each}`" for each in get_args(kind))
    elif kind in {int, float}:
        least, most = bounds(leaf)
        if kind is float:  # a time is above 0, whatever its bounds
            yield f"above {least:g}" if most is None else f"above {least:g}, at most {most:,.0f}"
        elif most is not None:
            yield f"{least:g} to {most:,.0f}"
        elif leaf.key not in NOT_GREATER.values():
            yield f"at least {least:g}"
        yield from (f"at most `{large}`" for key, large in NOT_GREATER.items() if key == leaf.key)
        yield from (f"at least `{key}`" for key, large in NOT_GREATER.items() if large == leaf.key)
    elif kind is Path:
        yield "a path"
    elif get_origin(kind) is tuple:
        yield "tables (`[[…]]`)" if attrs.has(get_args(kind)[0]) else "a list"
    elif kind is bool:
        yield "`true`, `false`"
    else:
        yield "text"


def _default(leaf: Leaf, field: attrs.Attribute[Any]) -> str:
    if leaf.key == "state_dir":
        return "`~/.local/state/appmux`, or the platform's own place"
    value = field.default
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return "`[" + ", ".join(json.dumps(each) for each in value) + "]`"
    if isinstance(value, float):
        return f"`{value:.0f}`" if value.is_integer() else f"`{value:g}`"
    return f"`{json.dumps(value)}`"


def _prose(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
