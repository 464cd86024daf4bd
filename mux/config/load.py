"""Load one ``Config`` from flags, environment and file, and say where each value came from.

Flags win over the environment, the environment over the TOML file, the file over the defaults, key
by key. All wrong keys of all sources are reported at once. ``model`` says what can be set.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

import attrs
import msgspec
import platformdirs

from mux.config import approval_rules
from mux.config.bounds import NOT_GREATER
from mux.config.model import (
    APP_NAME,
    ENV_PREFIX,
    FLAGS,
    Config,
    Leaf,
    leaves,
    sections,
    tables,
)
from mux.config.values import RULES, checked, expected, shown
from mux.errors import AppmuxError

CONFIG_FILE_VARIABLE = "APPMUX_CONFIG"


class ConfigError(AppmuxError):
    """A setting can't be used. Each line names the source, the key and what was expected."""


class SourcedValue(msgspec.Struct, frozen=True):
    """A value as a source gave it, and the words for that source."""

    value: object
    origin: str


class Settled(msgspec.Struct, frozen=True):
    """A ``Config``, and for each of its values the source."""

    config: Config
    origins: Mapping[str, str]
    """The source of each value in words, by dotted key."""
    file: Path | None = None
    """The config file that was read; None if there was none."""
    given: Mapping[str, SourcedValue] = msgspec.field(default_factory=dict)
    """The values that aren't defaults, as their sources gave them."""

    def items(self) -> Iterator[tuple[str, object, str]]:
        """Yield every setting as (dotted key, value, origin), in the order of ``model``."""
        for key in leaves():
            yield key, _value_at(self.config, key), self.origins[key]

    def differing(self, other: Settled) -> list[str]:
        """Return the keys whose values aren't those of the other settings."""
        values = {key: value for key, value, _ in other.items()}
        return [key for key, value, _ in self.items() if values[key] != value]

    def to_json(self) -> dict[str, Any]:
        """Return what ``recall`` reads: what was given, by key, with its origin."""
        given = {key: [each.value, each.origin] for key, each in self.given.items()}
        return {"file": None if self.file is None else str(self.file), "given": given}


def _value_at(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> Settled:
    """Determine the value of every key.

    ``flags`` maps dotted keys to values; None and ``()`` mean that the flag wasn't given.
    ``file`` None means ``$APPMUX_CONFIG``, else the platform's own place if there is a file there.
    Raises ``ConfigError``, which reports every wrong key at once.
    """
    path = _config_file(environ, file)
    values: dict[str, SourcedValue] = {}
    wrong: list[str] = []
    if path is not None:
        values.update(_from_file(path, wrong))
    values.update(_from_environ(environ, wrong))
    values.update(_from_flags(flags))
    config = _structure(values, wrong)
    _check_together(config)
    origins = {key: values[key].origin if key in values else "default" for key in leaves()}
    return Settled(config, origins, path, values)


def recall(document: object) -> Settled | None:
    """Return settings that ``Settled.to_json`` wrote; None if they can't be read.

    Another version of appmux may have written them, so nothing is said of what is wrong.
    """
    try:
        file, given = document["file"], document["given"]  # type: ignore[index]
        values = {
            str(key): SourcedValue(value, str(origin)) for key, (value, origin) in given.items()
        }
        config = _structure(values, [])
    except (ConfigError, TypeError, KeyError, ValueError, AttributeError):
        return None
    origins = {key: values[key].origin if key in values else "default" for key in leaves()}
    return Settled(config, origins, None if file is None else Path(file), values)


def default_file() -> Path:
    """Return the path of the config file that is used when nobody names one."""
    return platformdirs.user_config_path(APP_NAME) / "config.toml"


def _config_file(environ: Mapping[str, str], file: Path | None) -> Path | None:
    if file is not None:
        return file
    named = environ.get(CONFIG_FILE_VARIABLE)
    if named:
        return Path(named).expanduser()
    path = default_file()
    return path if path.is_file() else None


def _from_file(path: Path, wrong: list[str]) -> dict[str, SourcedValue]:
    """Return the file's values. What is wrong with the file itself is appended to ``wrong``."""
    origin = f"file {_shown_path(path)}"
    document: dict[str, object] = {}
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        wrong.append(f"{origin}: can't be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        wrong.append(f"{origin}: is not UTF-8, at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        wrong.append(f"{origin}: is not TOML: {error}")
    base = path.absolute().parent
    return {
        key: SourcedValue(_placed(key, value, base), origin)
        for key, value in _flat(document, "", origin, wrong)
    }


def _flat(
    table: Mapping[str, object], prefix: str, origin: str, wrong: list[str]
) -> Iterator[tuple[str, object]]:
    """Yield every value in the tables that we know, by its dotted key."""
    for name, value in table.items():
        key = prefix + name
        # A quoted name may contain dots; then the name isn't a path through tables.
        if "." in name or key not in sections():
            yield key, value
        elif isinstance(value, dict):
            yield from _flat(value, f"{key}.", origin, wrong)
        else:
            wrong.append(f"{origin}: {key}: expected a table, found {shown(key, value)}")


def _from_environ(environ: Mapping[str, str], wrong: list[str]) -> dict[str, SourcedValue]:
    by_variable = {leaf.variable: leaf for leaf in leaves().values()}
    values = {}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        origin = f"environment {variable}"
        leaf = by_variable.get(variable)
        if leaf is None:
            wrong.extend(_unknown_in_section(variable, origin, by_variable))
        elif text:  # an empty variable is how a shell says "unset"
            value = _placed(leaf.key, _from_text(leaf, text), Path.cwd())
            values[leaf.key] = SourcedValue(value, origin)
    return values


def _unknown_in_section(variable: str, origin: str, known: Mapping[str, Leaf]) -> Iterator[str]:
    """Yield the complaint of an unknown variable inside one of our sections.

    Other variables with our prefix may be somebody's own (a token for ``--remote-auth-token-env``).
    """
    section = variable.removeprefix(ENV_PREFIX).partition("_")[0].lower()
    if section in sections():
        yield f"{origin}: no such setting{_nearest(variable, list(known))}"


def _from_flags(flags: Mapping[str, object]) -> dict[str, SourcedValue]:
    values = {}
    for key, value in flags.items():
        if value is None or value == ():
            continue
        name = FLAGS[key]
        origin = f"flag {name}" if name.startswith("--") else name
        values[key] = SourcedValue(_placed(key, value, Path.cwd()), origin)
    return values


def _from_text(leaf: Leaf, text: str) -> object:
    """Convert a variable's text to this key's type.

    Unusable text is returned as it is, for the check to refuse.
    """
    if leaf.plain is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return words.get(text.lower(), text)
    if leaf.plain in (int, float):
        try:
            return leaf.plain(text)
        except ValueError:
            return text
    if leaf.key in _READ:
        try:
            return _READ[leaf.key](text)
        except ValueError:
            return text
    if get_origin(leaf.plain) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


_READ: Mapping[str, Callable[[str], object]] = {
    RULES: lambda text: tomllib.loads(f"rules = {text}").get("rules"),
    "codex_args": shlex.split,
}
"""Readers of a variable's text where its type isn't enough. Each raises ValueError."""


def _placed(key: str, value: object, base: Path) -> object:
    """Return ``value``, made absolute if its key holds a path: the broker may start anywhere."""
    leaf = leaves().get(key)
    if leaf is None or leaf.plain is not Path or not isinstance(value, str | Path):
        return value
    if not str(value) or (leaf.command and os.sep not in str(value)):
        return value
    try:
        return str(base / Path(value).expanduser())
    except RuntimeError:  # no home directory for ~name: then it is a plain name
        return str(base / value)


# --- The check ------------------------------------------------------------------------------------


def _structure(values: Mapping[str, SourcedValue], wrong: list[str]) -> Config:
    """Return the settings. Raises ``ConfigError`` with all that is wrong, known before or not."""
    settings: dict[str, dict[str, object]] = {prefix: {} for prefix in tables()}
    unfit = []
    for key, item in values.items():
        leaf = leaves().get(key)
        prefix, dot, name = key.rpartition(".")
        try:
            if leaf is not None:
                settings[prefix + dot][name] = checked(leaf, item.value)
        except ValueError:
            leaf = None
        if leaf is None:
            unfit.append(key)
    if wrong or unfit:
        raise ConfigError("\n".join([*wrong, *(_complaint(key, values) for key in sorted(unfit))]))
    config: Config = _table("", settings)
    return config


def _table(prefix: str, settings: Mapping[str, Mapping[str, object]]) -> Any:
    """Return the table of this prefix with the tables in it, given the values of each."""
    cls = tables()[prefix]
    inner = {
        field.name: _table(f"{prefix}{field.name}.", settings)
        for field in attrs.fields(cls)
        if f"{prefix}{field.name}." in settings
    }
    return cls(**settings[prefix], **inner)


def _complaint(key: str, values: Mapping[str, SourcedValue]) -> str:
    item = values[key]
    leaf = leaves().get(key)
    if leaf is None:
        return f"{item.origin}: {key}: unknown key{_nearest(key, [*leaves(), *sections()])}"
    if key == RULES and (wrong := approval_rules.faults(item.value)):
        return "\n".join(f"{item.origin}: {key}{where}: {what}" for where, what in wrong)
    return f"{item.origin}: {key}: expected {expected(leaf)}, found {shown(key, item.value)}"


def _check_together(config: Config) -> None:
    """Check the rules that concern more than one key."""
    for small, large in NOT_GREATER.items():
        least, most = _value_at(config, small), _value_at(config, large)
        if least > most:
            raise ConfigError(
                f"{small} ({least}) must not be greater than {large} ({most});"
                " `appmux config` shows where each comes from"
            )


def _shown_path(path: Path) -> str:
    try:
        return f"~/{path.absolute().relative_to(Path.home())}"
    except (ValueError, RuntimeError):  # outside the home directory, or there is none
        return str(path)


def _nearest(name: str, known: list[str]) -> str:
    near = approval_rules.nearest(name, known)
    return f"; did you mean {near}?" if near else "; `appmux config` prints every key"
