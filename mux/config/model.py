"""The settings of one broker: what can be set, its default, and the reason.

``load`` fills one frozen ``Config``, which everything uses. ``core.limits`` gives the limits with
their defaults, ``core.policy.approval_policy`` the approval policies.

A key is written with dots (``limits.in_flight``). Its variable is the same in capitals
(``APPMUX_LIMITS_IN_FLIGHT``). To add a setting, add a field here; a flag for it goes into ``FLAGS``
and ``cli``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import platformdirs

from mux.config.bounds import BOUNDS, MAX_SECONDS
from mux.core.limits import Limits
from mux.core.policy.approval_policy import Policies
from mux.core.policy.notice import Timing

APP_NAME = "appmux"
TIMING = Timing()
ENV_PREFIX = "APPMUX_"

AuthMode = Literal["capability-token", "signed-bearer-token", "device-token"]
Compression = Literal["remote", "always", "never"]
FilePlace = Literal["thread", "state"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
ContentLevel = Literal["opaque", "title", "full"]
"""The amount of content in a push.

``opaque``: kind and count only; ``title``: the thread's title too; ``full``: the command as well.
"""

FLAGS: Mapping[str, str] = {
    "listen": "--listen",
    "codex_bin": "--codex-bin",
    "codex_args": "arguments after --",
    "state_dir": "--state-dir",
    "auth.mode": "--ws-auth",
    "auth.token_file": "--ws-token-file",
    "auth.token_sha256": "--ws-token-sha256",
    "auth.shared_secret_file": "--ws-shared-secret-file",
    "auth.issuer": "--ws-issuer",
    "auth.audience": "--ws-audience",
    "auth.max_clock_skew_seconds": "--ws-max-clock-skew-seconds",
    "tls.cert": "--tls-cert",
    "tls.key": "--tls-key",
    "log.level": "--log-level",
    "log.format": "--log-format",
}
"""The flag that sets each key, as an error or ``appmux config`` names it."""


def _because(reason: str, default: Any, **more: Any) -> Any:
    return attrs.field(default=default, metadata={"reason": reason, **more})


@attrs.frozen
class Auth:
    """Authentication of WebSocket clients. The unix socket serves its owner and needs no token."""

    mode: AuthMode | None = _because("on loopback the native listener asks for nothing", None)
    token_file: Path | None = _because("a file keeps the token out of the process list", None)
    token_sha256: str | None = _because("64 hex digits, where even a file is too open", None)
    shared_secret_file: Path | None = _because("HS256 key of the bearer JWTs", None)
    issuer: str | None = _because("unset: any ``iss`` is taken", None)
    audience: str | None = _because("unset: any ``aud`` is taken", None)
    max_clock_skew_seconds: int | None = _because(
        "unset: 30 s, as natively; set without signed-bearer-token it is an error", None
    )


@attrs.frozen
class Tls:
    """The certificate of ``wss://`` listeners, as PEM files; read again on SIGHUP."""

    cert: Path | None = _because("needed by wss:// alone; the chain follows it in the file", None)
    key: Path | None = _because("its private key, not encrypted", None)


@attrs.frozen
class Tailnet:
    """https on the Tailnet, once `appmux tailnet enable` has switched it on."""

    port: int = _because("a port of its own, beside the phones' 14500", 14543)
    socket: Path | None = _because(
        "of tailscaled; unset: where it has it by itself, else the `tailscale` command is asked",
        None,
    )


@attrs.frozen
class Upstream:
    """The broker's introduction of itself to the app-server, and how long that waits for it."""

    client_name: str = _because("the app-server shows it as originator", APP_NAME)
    request_attestation: bool = _because("only if a client can make attestations", False)
    form_elicitation: bool = _because("only if every client can show an MCP form", False)
    orphan_wait: float = _because(
        "seconds it runs on with no broker: longer than any restart, then it is ended", 300.0
    )


@attrs.frozen
class Log:
    """The amount and the form of the log on stderr."""

    level: LogLevel = _because("debug costs a line for every message each way", "info")
    format: LogFormat = _because(
        "lines for a person on a terminal and in systemd's journal, JSON elsewhere", "auto"
    )


@attrs.frozen
class Audit:
    """The audit log in the state directory: connections, requests, offered requests and answers."""

    text: bool = _because("prompts and commands may hold secrets; their digest is kept", False)
    max_age: float = _because("a year; seconds", 365 * 86400.0)
    max_bytes: int = _because("a client can't fill the disk; decades of one person's work", 2**30)


@attrs.frozen
class Devices:
    """Rights of restricted devices: paired ones, and other clients without ``admin``."""

    directories: tuple[str, ...] = _because(
        "globs; elsewhere a thread that a device starts takes no settings from its directory", ()
    )


@attrs.frozen
class Apns:
    """Apple's push service, by token: one key serves all apps of a team."""

    key_file: Path | None = _because("the team's .p8 file, mode 0600; unset: no APNs", None)
    key_id: str | None = _because("10 characters, in the file's name as Apple gives it", None)
    team_id: str | None = _because("10 characters, from the developer account's page", None)
    topic: str | None = _because("the app's bundle id", None)
    url: str | None = _because("unset: Apple's two, as each device says which", None)


@attrs.frozen
class Fcm:
    """Firebase Cloud Messaging, HTTP v1."""

    service_account_file: Path | None = _because(
        "the project's .json, mode 0600; unset: none", None
    )
    url: str | None = _because("unset: Google's", None)


@attrs.frozen
class WebPush:
    """Browsers, and UnifiedPush with encryption: our identity for their push services (VAPID)."""

    subject: str | None = _because(
        "mailto: or https:, where a push service's operator reaches you; some demand it", None
    )
    key_file: Path | None = _because("PEM, P-256; unset: made in the state directory once", None)


@attrs.frozen
class Ntfy:
    """A topic of an ntfy server that is the host's own; devices may register others."""

    server: str | None = _because("as https://ntfy.sh; unset: no topic of the host's own", None)
    topic: str | None = _because("whoever knows its name reads it: a long random one", None)
    token_file: Path | None = _because("access token (tk_…), mode 0600, if the topic asks", None)
    level: ContentLevel = _because("the server reads what it passes on", "opaque")


@attrs.frozen
class Webhook:
    """Your own program, by HTTP: each push as signed JSON."""

    url: str | None = _because("unset: no webhook", None)
    secret_file: Path | None = _because("of the HMAC, mode 0600; an unsigned one isn't sent", None)
    level: ContentLevel = _because("where it goes isn't known here", "opaque")


@attrs.frozen
class Exec:
    """Your own program on this host: each push as JSON on its stdin."""

    command: tuple[str, ...] = _because("program and arguments, without a shell; empty: none", ())
    timeout: float = _because("then its whole process group is killed", 10.0)
    level: ContentLevel = _because("the command may send it anywhere", "opaque")


@attrs.frozen
class Push:
    """The push services that this host may use to bring notices to devices."""

    url: str | None = _because(
        "https:, where devices reach this broker: for links and buttons in ntfy", None
    )
    timeout: float = _because("a service that takes longer for one push is tried again", 20.0)
    private_hosts: tuple[str, ...] = _because(
        "hosts (NAME or NAME:PORT) that a device may name although they aren't public", ()
    )
    ca_file: Path | None = _because("a private authority's, beside the public ones", None)
    apns: Apns = attrs.field(factory=Apns)
    fcm: Fcm = attrs.field(factory=Fcm)
    webpush: WebPush = attrs.field(factory=WebPush)
    ntfy: Ntfy = attrs.field(factory=Ntfy)
    webhook: Webhook = attrs.field(factory=Webhook)
    exec: Exec = attrs.field(factory=Exec)


@attrs.frozen
class Web:
    """The page for browsers: the names it is reached under, and its files."""

    origins: tuple[str, ...] = _because(
        "as https://NAME[:PORT]: where browsers reach this broker besides its listeners' addresses",
        (),
    )
    trusted_proxies: tuple[str, ...] = _because(
        "addresses or networks of your proxies: from these alone X-Forwarded-For and -Proto count",
        (),
    )
    files: Path | None = _because("a folder with a page of your own; unset: appmux's", None)


@attrs.frozen
class Files:
    """Files that people upload to a thread."""

    place: FilePlace = _because(
        "`uploads/` in the thread's directory, where the agent's sandbox lets it read; or the state"
        " directory",
        "thread",
    )


@attrs.frozen
class Notices:
    """Rules for pushing notices to devices: which, and when (see ``core.features.notices``)."""

    off: tuple[str, ...] = _because("kinds that no device is told of, unless it asks for them", ())
    quiet: str | None = _because("as 22:00-07:00, in the host's time; each device may say", None)
    long_turn: float = _because("who waits for a shorter one is still there", TIMING.long_turn)
    people: tuple[str, ...] = _because(
        "names of programs whose acts show that a person looks, though they don't say so",
        TIMING.people,
    )
    looking: float = _because("how long what a person did shows that they look", TIMING.looking)
    escalate_after: float = _because(
        "from the device used last to all of them", TIMING.escalate_after
    )
    escalate_further_after: float = _because(
        "to those in escalate_to", TIMING.escalate_further_after
    )
    escalate_to: tuple[str, ...] = _because(
        'names of devices (or "host") that are told last: a second person\'s, say', ()
    )
    ticket_seconds: float = _because("a lock screen that is answered later opens the app", 900.0)


def _default_state_dir() -> Path:
    return platformdirs.user_state_path(APP_NAME)


@attrs.frozen
class Config:
    """Every setting of one broker. Paths are absolute, except a bare command name."""

    listen: tuple[str, ...] = _because(
        "Codex's own control socket, so that plain `codex` attaches; and loopback for the rest",
        ("unix://", "ws://127.0.0.1:14500"),
    )
    codex_bin: Path | None = _because(
        "unset: `codex` on PATH, then the codex package", None, command=True
    )
    codex_args: tuple[str, ...] = _because("appended to `codex app-server`", ())
    state_dir: Path = _because(
        "where the platform keeps an application's state", attrs.Factory(_default_state_dir)
    )
    host: str | None = _because(
        "how pages and notices call this machine; unset: the name that it has itself", None
    )
    compression: Compression = _because(
        "who gets messages compressed that offers it; on this machine bytes cost less than work",
        "remote",
    )
    auth: Auth = attrs.field(factory=Auth)
    tls: Tls = attrs.field(factory=Tls)
    tailnet: Tailnet = attrs.field(factory=Tailnet)
    limits: Limits = attrs.field(factory=Limits)
    upstream: Upstream = attrs.field(factory=Upstream)
    log: Log = attrs.field(factory=Log)
    audit: Audit = attrs.field(factory=Audit)
    devices: Devices = attrs.field(factory=Devices)
    push: Push = attrs.field(factory=Push)
    files: Files = attrs.field(factory=Files)
    approvals: Policies = attrs.field(factory=Policies)
    notices: Notices = attrs.field(factory=Notices)
    web: Web = attrs.field(factory=Web)

    @property
    def link(self) -> str | None:
        """Return the https URL at which devices reach this broker, if one is known."""
        named = (each for each in self.web.origins if each.startswith("https://"))
        return self.push.url or next(named, None)

    @property
    def host_name(self) -> str:
        """Return the machine's name, as people are shown it."""
        return self.host or platform.node().partition(".")[0] or "this machine"


@attrs.frozen
class Leaf:
    """A setting, by its key."""

    key: str
    """Its dotted key."""
    type: Any
    command: bool = False
    """A bare name in it is a command on PATH."""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENV_PREFIX + self.key.upper().replace(".", "_")

    @property
    def plain(self) -> Any:
        """Return the type without its ``| None``."""
        kinds = [kind for kind in get_args(self.type) if kind is not type(None)]
        optional = type(None) in get_args(self.type)
        return kinds[0] if optional else self.type


@cache
def leaves() -> Mapping[str, Leaf]:
    """Return every setting by its dotted key."""
    settings = {}
    for prefix, cls in tables().items():
        for field in attrs.fields(cls):
            if not attrs.has(field.type):
                key = prefix + field.name
                settings[key] = Leaf(key, field.type, bool(field.metadata.get("command")))
    return settings


@cache
def tables() -> Mapping[str, type]:
    """Return every class of settings by its keys' prefix: ``""``, ``auth.``, ``push.apns.``, …"""
    return dict(_tables_of(Config, ""))


def _tables_of(cls: type, prefix: str) -> Iterator[tuple[str, type]]:
    yield prefix, cls
    for field in attrs.fields(attrs.resolve_types(cls)):
        if attrs.has(field.type):
            yield from _tables_of(field.type, f"{prefix}{field.name}.")


@cache
def sections() -> frozenset[str]:
    """Return the dotted names of the tables: ``auth``, ``limits``, ``push.apns``, …"""
    return frozenset(prefix.removesuffix(".") for prefix in tables() if prefix)


def bounds(leaf: Leaf) -> tuple[float, float | None]:
    """Return the least and greatest value of a number; a time must also be above 0."""
    if leaf.key in BOUNDS:
        return BOUNDS[leaf.key]
    return (0, MAX_SECONDS) if leaf.plain is float else (1, None)
