"""Build the wheel and the sdist, check both, and try both without the clone.

Run by `make release`, from the environment that `make` set up. Each artefact is installed into an
empty environment of its own; there the demo runs, and a broker is started, asked and stopped.
Nothing is uploaded: the last line says what to type for that.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import metadata
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[2]
DIST: Final = ROOT / "dist"

OF_EXTRAS: Final = {"http2": "h2"}
"""What an extra of a dependency brings."""

SERVING_SECONDS: Final = 30.0
"""A broker of the artefact answers `appmux status` within this: a cold start on a slow disk."""


def main() -> None:
    """Build, check and try; end with a message where one of these fails."""
    parser = argparse.ArgumentParser(description="Build the wheel and the sdist, and try both.")
    parser.add_argument("--twine", required=True, help="path of the twine command")
    parser.add_argument("--dirty", action="store_true", help="a trial, with what isn't committed")
    arguments = parser.parse_args()
    version = _version()
    if not arguments.dirty:
        _unchanged()
    _described(version)
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "hatchling", "build", "-d", str(DIST), cwd=ROOT)
    artefacts = sorted(path for path in DIST.iterdir() if path.suffix in {".whl", ".gz"})
    _run(arguments.twine, "check", "--strict", *map(str, artefacts))
    for artefact in artefacts:
        _try(artefact, version)
    home = metadata.homepage((ROOT / "mux/documents.py").read_text())
    if home:
        _fill_in(version, home)
    else:
        print("HOMEPAGE in mux/documents.py is empty: no formula, no PKGBUILD")
    print(f"{version} is in dist/. To publish it: git tag v{version}; twine upload dist/*")


def _version() -> str:
    """Return the version, which stands in `mux/__init__.py` alone."""
    return metadata.version((ROOT / "mux/__init__.py").read_text())


def _unchanged() -> None:
    status = ["git", "status", "--porcelain"]
    changed = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if changed:
        sys.exit(f"Commit these first, or add --dirty for a trial:\n{changed}")


def _described(version: str) -> None:
    if f"\n## {version}" not in (ROOT / "CHANGELOG.md").read_text():
        sys.exit(f"CHANGELOG.md has no section `## {version}`")


def _fill_in(version: str, homepage: str) -> None:
    """Write the files of other packagers (`contrib/*/*.in`) into dist/, for this sdist."""
    sdist = next(DIST.glob("*.tar.gz"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    values = {
        "VERSION": version,
        "HOMEPAGE": homepage,
        "SDIST": f"{homepage}/releases/download/v{version}/{sdist.name}",
        "SHA256": hashlib.sha256(sdist.read_bytes()).hexdigest(),
        "DEPENDS": " ".join(_of_arch(project["dependencies"])),
    }
    for template in sorted(ROOT.glob("contrib/*/*.in")):
        text = re.sub(r"@([A-Z0-9]+)@", lambda found: values[found[1]], template.read_text())
        (DIST / template.name.removesuffix(".in")).write_text(text)


def _of_arch(dependencies: list[str]) -> list[str]:
    """Return the packages of Arch Linux: what an extra brings is named there by itself."""
    names = []
    for each in dependencies:
        requirement = Requirement(each)
        if requirement.marker is None:  # the others are for older Pythons than Arch has
            names.append(requirement.name.lower())
            names += [OF_EXTRAS[extra] for extra in sorted(requirement.extras)]
    return [f"python-{name}" for name in names]


def _try(artefact: Path, version: str) -> None:
    print(f"trying {artefact.name}", flush=True)
    with tempfile.TemporaryDirectory(prefix="appmux-release-") as name:
        place = Path(name)
        venv.create(place / "venv", with_pip=True)
        python, appmux = place / "venv/bin/python", str(place / "venv/bin/appmux")
        _run(str(python), "-m", "pip", "install", "--quiet", f"{artefact}[codex]", cwd=place)
        said = _run(appmux, "--version", cwd=place)
        if said != f"appmux {version}\n":
            sys.exit(f"{artefact.name}: `appmux --version` says {said!r}")
        _run(appmux, "demo", cwd=place)
        _serves(appmux, place)


def _serves(appmux: str, place: Path) -> None:
    """Start a broker with a home of its own, have `appmux status` find it, and stop it."""
    home = place / "home"
    (home / "codex").mkdir(parents=True)
    names = {"HOME": home, "CODEX_HOME": home / "codex", "XDG_STATE_HOME": home / "state"}
    env = {**os.environ, **{name: str(path) for name, path in names.items()}}
    broker = subprocess.Popen([appmux, "serve", "--listen", "unix://"], env=env, cwd=place)
    try:
        _answers(appmux, env, place)
    finally:
        broker.terminate()
        status = broker.wait(timeout=SERVING_SECONDS)
    if status != 0:
        sys.exit(f"`appmux serve` ended with status {status}")


def _answers(appmux: str, env: Mapping[str, str], place: Path) -> None:
    asked = [appmux, "status", "--json"]
    end = time.monotonic() + SERVING_SECONDS
    while subprocess.run(asked, env=env, cwd=place, capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            sys.exit("`appmux status` doesn't find the broker that `appmux serve` started")
        time.sleep(0.2)


def _run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
