"""The dashboard of `contrib/grafana` is one by Grafana's own types (`@grafana/schema`, by npm)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.page.node import WEB, node

ROOT: Final = Path(__file__).parents[3]
DASHBOARD: Final = ROOT / "contrib" / "grafana" / "appmux.json"
SCHEMA: Final = ROOT / "tests" / "grafana" / "node_modules" / "@grafana" / "schema"
TSC: Final = WEB / "node_modules" / "typescript" / "bin" / "tsc"

SOURCE: Final = """
import type {{ Dashboard }} from "{schema}/dist/types/index";

// The types have TypeScript's enums where the JSON has their texts.
type Written<T> = T extends string ? `${{T}}`
  : T extends readonly (infer U)[] ? Written<U>[]
  : T extends object ? {{ [K in keyof T]: Written<T[K]> }}
  : T;

export const dashboard: Written<Dashboard> = {dashboard};
"""

CONFIG: Final = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "module": "esnext",
        "moduleResolution": "bundler",
        "skipLibCheck": True,
        "target": "es2022",
        "types": [],
    },
    "files": ["check.ts"],
}


def checked(where: Path, dashboard: object) -> str:
    """What TypeScript says of a dashboard; nothing if it is one."""
    found = node()
    if found is None or not TSC.is_file() or not SCHEMA.is_dir():
        pytest.skip(
            "node, web/node_modules or tests/grafana/node_modules is missing: `make newest`"
        )
    written = SOURCE.format(schema=SCHEMA, dashboard=json.dumps(dashboard, indent=1))
    (where / "check.ts").write_text(written)
    (where / "tsconfig.json").write_text(json.dumps(CONFIG))
    command = [str(found), str(TSC), "-p", str(where)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_the_dashboard_is_one_by_grafanas_types(tmp_path: Path) -> None:
    assert checked(tmp_path, json.loads(DASHBOARD.read_text())) == ""


@pytest.mark.parametrize(
    ("old", "new"), [('"type": "value"', '"type": "values"'), ('"gridPos"', '"gridPosition"')]
)
def test_what_is_none_is_found(tmp_path: Path, old: str, new: str) -> None:
    text = DASHBOARD.read_text()
    assert old in text
    assert new.rpartition('"')[0].rpartition('"')[2] in checked(
        tmp_path, json.loads(text.replace(old, new))
    )
