"""The settings that `docs/push.md` shows are settings."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from mux.config.load import load

DOCS = Path(__file__).parents[2] / "docs" / "push.md"


def test_the_examples_are_taken(tmp_path: Path) -> None:
    text = DOCS.read_text()
    fenced = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    # Indented by four: lines of a table, up to a line that isn't.
    indented = re.findall(r"(?m)^    \[push.*\n(?:(?:    .*)?\n)*", text)
    examples = [textwrap.dedent(each) for each in (*fenced, *indented)]
    tables = {name for each in examples for name in re.findall(r"^\[(.*)\]", each, re.MULTILINE)}
    wanted = {"apns", "fcm", "webpush", "ntfy", "webhook", "exec"}
    assert {f"push.{name}" for name in wanted} <= tables
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example)
        load({}, {}, file)
