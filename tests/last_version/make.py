"""Makes a state directory as a version leaves it, and notes what that version says of it.

`python -m tests.last_version.make` in a checkout of that version, on a machine that has no
`/home/ada`: the paths in the journal are those of nobody's machine.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from mux.demo import scripted_model
from mux.demo.scripted_model import Run, Say, Scripted
from mux.storage.journal import Store
from tests.end_to_end.brokered import brokered
from tests.end_to_end.devices import DEVICES_ONLY, operator_of, pair
from tests.end_to_end.native import Home, Native
from tests.end_to_end.peer import PATIENCE, Json, Peer, connect_ws
from tests.end_to_end.scenes import APPROVAL, LOOK_SECONDS, TURN_COMPLETED

ROOT: Final = Path("/home/ada")
HERE: Final = Path(__file__).parent
NOT_STATE: Final = shutil.ignore_patterns("codex-schema*", "*.lock", "*-shm")
NTFY: Final = {"server": "https://ntfy.example", "topic": "phone"}
WEB: Final = {
    "endpoint": "https://push.example/send/one",
    # The keys of RFC 8291's example.
    "p256dh": (
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
    ),
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
}
RULES: Final = [
    {"mode": "quiet", "start": "22:00", "end": "07:00", "kind": "turn-failed"},
    {"mode": "off", "kind": "turn-completed"},
]


async def journal(state: Path) -> Json:
    """All entries of the journal, as this version reads them from a copy."""
    with TemporaryDirectory() as copy:
        shutil.copytree(state, copy, dirs_exist_ok=True)
        store = Store.open(Path(copy), max_bytes=2**30, max_age=1e9)
        entries = await store.read(0, 2**53, None, 2**30)
        found = [[each.seq, each.thread, each.message.decode()] for each in entries]
        facts = {"epoch": store.epoch, "earliest": store.earliest, "entries": found}
        await store.close()
        return facts


async def story(broker: Native, operator: Peer) -> Json:
    """Threads, devices, endpoints, wishes and notices; what is left of them."""
    token = await pair(broker, operator, "phone", "observe", "approve", "drive")
    await pair(broker, operator, "lost", "observe")
    await operator.request("mux/devices/revoke", {"name": "lost"})
    async with connect_ws(broker.url, token) as phone:
        await phone.initialize("phone")
        for service, address in (("ntfy", NTFY), ("webpush", WEB)):
            asked = {"service": service, "address": address, "level": "title"}
            await phone.request("mux/push/register", asked)
        await phone.request("mux/notices/settings/write", {"rules": RULES})
        settings = await phone.request("mux/notices/settings/read")
    async with operator_of(broker) as desk:
        await desk.initialize("desk")
        thread = await desk.start_thread(broker.home.work)
        await desk.run_turn(thread, "hello")
        await desk.start_turn(thread, "run it")
        asked = await desk.wait_method(APPROVAL)
        await desk.respond(asked["id"], {"decision": "accept"})
        await desk.wait_method(TURN_COMPLETED, threadId=thread)
        other = await desk.start_thread(broker.home.work)
        await desk.start_turn(other, "run it")
        await desk.wait_method(APPROVAL, threadId=other)
    with trio.fail_after(PATIENCE):  # nobody is there any more: it goes out by push
        while True:
            if notices := await sent(operator):
                break
            await trio.sleep(LOOK_SECONDS)
    return {
        "token": token,
        "threads": [thread, other],
        "settings": settings,
        "notices": notices,
        "devices": await operator.request("mux/devices/list"),
    }


async def sent(operator: Peer) -> list[Json]:
    told = await operator.request("mux/notices/list", {"why": True})
    return [each for each in told["notices"] if each["sentTo"]]


async def main() -> None:
    """Play it in one life of a broker, and keep its state directory as it is after the end."""
    model = Scripted()
    model.on("run it", Run("echo ran", escalated=True), Say("It ran."))
    home = Home(ROOT)
    async with trio.open_nursery() as nursery:
        await nursery.start(scripted_model.serve, model)
        ROOT.mkdir()
        home.make(scripted_model.codex_config(model.base_url))
        async with brokered(*DEVICES_ONLY, home=home, model=model) as broker:
            async with operator_of(broker) as operator:
                await operator.initialize("operator")
                facts = await story(broker, operator)
                facts["endpoints"] = await operator.request("mux/push/list", {"all": True})
            facts["now"] = time.time()
            broker.process.send_signal(signal.SIGTERM)
            await broker.process.wait()
        nursery.cancel_scope.cancel()
    state = home.home / ".local" / "state" / "appmux"
    facts["journal"] = await journal(state)
    facts["audit"] = json.loads((state / "audit" / "head.json").read_text())
    shutil.rmtree(HERE / "state", ignore_errors=True)
    shutil.copytree(state, HERE / "state", ignore=NOT_STATE)
    with closing(sqlite3.connect(HERE / "state" / "notices.sqlite3")) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # small: without what was overwritten
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (HERE / "facts.json").write_text(text + "\n")
    shutil.rmtree(ROOT)


if __name__ == "__main__":
    trio.run(main)
