"""Check whether codex can reach a model: logged in, or with a provider that needs no login.

Reads codex's own configuration, and asks codex where only codex can know.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from mux.host.steps import Runner, run

BUILT_IN: Final = "openai"
"""Codex's default model provider."""
FILE: Final = "file"
"""Codex's default place for its login."""

LOCAL: Final = frozenset({"oss", "ollama", "lmstudio", "ollama-chat"})
"""Providers of codex's own that run on this machine."""


LOG_IN: Final = "`codex login`; `appmux-codex login` where only appmux has brought a codex"
"""What a person types: the package's own codex isn't on PATH by that name."""


@attrs.frozen
class Login:
    """The state of codex's access to a model."""

    well: bool
    """A turn can start."""
    words: str
    """The way codex reaches a model, or what is missing."""
    remedy: str = ""


def check(
    codex: Path, home: Path, environ: Mapping[str, str], file: Path, runner: Runner = run
) -> Login:
    """Check the login in codex's ``home``. ``file`` is the service's environment file."""
    config = _config(home / "config.toml")
    provider = str(config.get("model_provider", BUILT_IN))
    if provider in LOCAL:
        return Login(True, f"the model provider {provider!r} needs no login")
    described = config.get("model_providers", {}).get(provider)
    if isinstance(described, dict) and not described.get("requires_openai_auth"):
        return _with_key(provider, described.get("env_key"), environ, file)
    if (home / "auth.json").exists():
        return Login(True, "logged in")
    if config.get("cli_auth_credentials_store", FILE) == FILE:
        return Login(False, "codex is not logged in", LOG_IN)
    return _login_status(codex, runner)


def _login_status(codex: Path, runner: Runner) -> Login:
    """Ask codex itself: only codex can read the system's keyring."""
    done = runner((str(codex), "login", "status"))
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" not in line]
    words = lines[-1].strip() if lines else "it said nothing"
    if done.returncode == 0:
        return Login(True, words)
    return Login(False, f"codex is not logged in ({words})", LOG_IN)


def _config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # codex itself will say what is wrong with it
        return {}


def _with_key(provider: str, key: object, environ: Mapping[str, str], file: Path) -> Login:
    if not isinstance(key, str) or not key:
        return Login(True, f"the model provider {provider!r} needs no login")
    if _has(file, key):
        return Login(True, f"{key} for the model provider {provider!r} is in {file}")
    if environ.get(key):
        return Login(
            True,
            f"{key} for the model provider {provider!r} is in this shell's environment,"
            f" which a service doesn't see: put `{key}=…` into {file} (mode 0600)",
        )
    return Login(
        False,
        f"the model provider {provider!r} wants {key}, which isn't set",
        f"`{key}=…` in {file} (mode 0600) for the service, or in the environment of `appmux serve`",
    )


def _has(file: Path, key: str) -> bool:
    try:
        return any(line.startswith(f"{key}=") for line in file.read_text().splitlines())
    except OSError:
        return False
