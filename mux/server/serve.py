"""``serve(config)`` opens everything in order, or says what is in the way. Start reading here.

``nursery`` then runs the broker until it ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import trio

import mux
from mux.access.authentication import Authenticator, open_auth
from mux.access.devices import DeviceRegistry, open_registry
from mux.access.requests import DeviceRequests
from mux.access.throttle import LoginThrottle
from mux.config.addresses import Address, UnixAddress, parse_listen_url, refuse_open_door
from mux.config.codex_binary import app_server_command, codex_home, find_codex
from mux.config.model import Config
from mux.core.broker import Broker
from mux.core.events import ExperimentalSchemaLoaded
from mux.core.policy import notice
from mux.core.state import app_server
from mux.dispatch.dispatcher import Dispatcher
from mux.dispatch.shells import Shells
from mux.downstream import listener
from mux.downstream.http.origins import require_origins
from mux.downstream.listener import Listener
from mux.downstream.sockets.tls import Certificate, open_certificate
from mux.files.spool import FOLDER, Spool
from mux.files.uploads import Uploads
from mux.host.directories import Directories
from mux.host.socket_owner import socket_owner
from mux.notices.requests import NoticeRequests
from mux.posix import descriptors
from mux.server import handover
from mux.server.journal_reads import JournalReads
from mux.server.nursery import RunningServer
from mux.server.observability import operator_log
from mux.server.requests import OutsideRequests
from mux.server.settings_watch import SettingsWatch
from mux.storage import state_dir
from mux.storage.audit_log import Audit
from mux.storage.journal import Store
from mux.supervisor.opening import Opening
from mux.tailnet.https import MOVED, TailnetHttps
from mux.upstream.process import Upstream
from mux.upstream.schema import CodexSchema
from mux.upstream.supervised import Supervision

IDS_PER_SECOND = 2**20
"""The first id of a server request is the broker's start in Unix seconds times this number. A
broker that makes fewer requests a second never repeats an id of the broker before it, and the ids
stay exact in JavaScript (2**53)."""

log = structlog.get_logger()


async def serve(
    config: Config,
    take_over: float | None = None,
    settings: SettingsWatch | None = None,
    opening: Opening | None = None,
) -> None:
    """Run the broker until a signal drains it. Raises ``AppmuxError`` if it can't start.

    ``take_over``: most seconds to wait until the app-server at Codex's control socket is idle, to
    take its place then. None leaves that app-server alone.
    ``settings``: where the settings came from, to be compared in ``mux/status``.
    ``opening``: the channel to the supervisor; None if there is none.
    """
    supervision = Supervision.open(opening)
    descriptors.raise_limit()
    codex = find_codex(config.codex_bin, os.environ)
    opened = listener.inherited_listeners(os.environ)
    urls = [*config.listen, *(each.url for each in opened)]
    home = codex_home(os.environ)
    addresses = [parse_listen_url(url, home) for url in urls]
    refuse_open_door(addresses, config.auth.mode)
    require_origins(config.web.origins)
    certificate = open_certificate(config.tls)
    listener.configure_inherited(opened, addresses, certificate)
    authenticator = open_auth(config.auth)  # wrong settings are reported before anything is claimed
    held = handover.Sockets(supervision)
    state = state_dir.claim(config.state_dir, held.lock())
    held.hold_lock(state.descriptor)
    state.settings = None if settings is None else settings.settled.to_json()
    inherited = {each.url.partition("://")[2] for each in opened}
    try:
        book = open_registry(config.state_dir, time.time)
        authenticator.device = book.by_token
        limits = config.limits
        left = handover.left_behind(supervision, config.state_dir)
        store = Store.open(
            config.state_dir,
            max_bytes=limits.journal_bytes,
            max_age=limits.journal_age,
            rest=None if left is None else left.rest,
        )
        audit = Audit.open(
            config.state_dir, max_bytes=config.audit.max_bytes, max_age=config.audit.max_age
        )
        if supervision is not None and supervision.trouble is not None:
            audit.record("appserver/notKept", {"why": supervision.trouble})
        missing = [address for address in addresses if str(address) not in inherited]
        if take_over is not None:
            await _try([each for each in missing if not held.has(str(each))], certificate)
        for address in missing:
            reopened = held.reopened(str(address), address, certificate)
            opened.append(reopened or await _open(address, certificate, take_over, supervision))
            held.hold(str(address), opened[-1])
        tailnet = TailnetHttps.open(config.tailnet, config.state_dir, held, time.time, audit.record)
        tailnet.announce = lambda: state.announce([*(each.url for each in opened), *tailnet.urls])
        held.let_go()
        tailnet.announce()
        server = _assemble(
            config,
            codex,
            opened,
            supervision,
            None if supervision is None else await handover.begin(supervision, left, store),
            authenticator=authenticator,
            certificate=certificate,
            store=store,
            book=book,
            audit=audit,
            tailnet=tailnet,
            settings=settings,
        )
        try:
            await server.run()
        finally:
            book.file.flush()
    finally:
        for bound in opened:
            with trio.CancelScope(shield=True):
                await bound.aclose()
        state.release()


async def _try(addresses: list[Address], certificate: Certificate | None) -> None:
    """Bind each address but the control socket once, and close it again.

    So a wrong address is reported before the take-over starts. The listeners aren't left open
    meanwhile: clients would wait in vain.
    """
    for address in addresses:
        if not _is_control(address):
            await (await listener.open_listener(address, certificate)).aclose()


async def _open(
    address: Address,
    certificate: Certificate | None,
    take_over: float | None,
    supervision: Supervision | None,
) -> Listener:
    if not _is_control(address):
        return await listener.open_listener(address, certificate)
    path = Path(str(address))
    owner = socket_owner(path)
    # Our own supervisor may still hold a socket whose path somebody has removed.
    ours = None if supervision is None else os.getppid()
    if owner is None or owner.holder.pid == ours:
        return await listener.open_listener(address)

    from mux.host import take_over as takeover  # noqa: PLC0415 (with a WebSocket client, which is seldom needed)

    if take_over is None:
        raise await takeover.refusal(path, owner)
    lock = await takeover.vacate(path, take_over, lambda text: log.warning(f"taking over: {text}"))
    try:
        return await listener.open_listener(address, startup_held=True)
    finally:
        lock.release()


def _is_control(address: Address) -> bool:
    return isinstance(address, UnixAddress) and address.control


def _assemble(
    config: Config,
    codex: Path,
    opened: list[Listener],
    supervision: Supervision | None,
    kept: handover.KeptState | None,
    *,
    authenticator: Authenticator,
    certificate: Certificate | None,
    store: Store,
    book: DeviceRegistry,
    audit: Audit,
    tailnet: TailnetHttps,
    settings: SettingsWatch | None,
) -> RunningServer:
    introduction = app_server.Introduction(
        name=config.upstream.client_name,
        version=mux.__version__,
        request_attestation=config.upstream.request_attestation,
        form_elicitation=config.upstream.form_elicitation,
    )
    broker = Broker(
        config.limits,
        introduction,
        durable=kept is not None,
        first_id=int(time.time()) * IDS_PER_SECOND,
        epoch=store.epoch,
        head=store.next_seq - 1,
        audit_text=config.audit.text,
        policies=config.approvals,
        timing=notice.Timing(
            long_turn=config.notices.long_turn,
            looking=config.notices.looking,
            people=config.notices.people,
            escalate_after=config.notices.escalate_after,
            escalate_further_after=config.notices.escalate_further_after,
        ),
        host=config.host_name,
    )
    dispatcher = Dispatcher(broker, debug=config.log.level == "debug")
    upstream = Upstream(app_server_command(codex, config.codex_args), dispatcher, supervision)
    save: Callable[[str, bytes | None], None] = handover.ignore_save
    if kept is not None:
        save = kept.state.put
        upstream.durable, upstream.inheritance = kept.state, kept.inheritance
        dispatcher.number_clients_after(kept.clients)
        dispatcher.writes.before = kept.state.commit
    schema = CodexSchema(
        codex, config.state_dir, lambda gate: dispatcher.handle(ExperimentalSchemaLoaded(gate))
    )
    directories = Directories(config.devices.directories, str(Path.cwd()), dispatcher.handle)
    notices = NoticeRequests.open(
        config, book, dispatcher, audit.record, lambda: config.link or tailnet.origin
    )
    tailnet.moved = notices.delivery.origin_ended
    tailnet.ended = lambda origin, why: dispatcher.close_all(MOVED, why, origin)
    devices = DeviceRequests(
        book,
        dispatcher,
        config.auth.mode is None,
        audit.record,
        changed=notices.delivery.report_recipients,
        revoked=notices.delivery.revoked,
        origins=lambda: [*config.web.origins, *filter(None, [tailnet.origin])],
    )
    devices.sessions.host = config.host_name
    reads, throttle = JournalReads(store, dispatcher), LoginThrottle()
    requests = OutsideRequests(
        opened,
        dispatcher,
        upstream,
        schema,
        store,
        audit,
        devices,
        notices,
        throttle,
        tailnet,
        settings,
    )
    uploads = Uploads(
        Spool(config.state_dir / FOLDER),
        broker.directory_of,
        dispatcher.handle,
        devices.still,
        in_threads=config.files.place == "thread",
    )
    server = RunningServer(
        config,
        authenticator,
        opened,
        dispatcher,
        upstream,
        schema,
        directories,
        store,
        devices,
        audit,
        notices,
        reads,
        requests,
        uploads,
        certificate,
        throttle,
        tailnet,
    )
    dispatcher.connect(Shells(
        app_server=upstream,
        connections=devices,
        notices=notices.delivery,
        save=save,
        keep=store.append,
        read_journal=reads.read,
        record=operator_log.logging(audit.record),
        resolve=directories.resolve,
        load_experimental_schema=schema.learn,
        answer=requests.answer,
        status=requests.status,
        renew=server.renew,
        give_up=server.give_up,
    ))  # fmt: skip
    return server
