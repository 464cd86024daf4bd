"""Stories in which clients lag: the story plays their outboxes, and the disk.

A client takes what it is sent at once, unless the test says that it `lags`; then it waits for
`drains`, and for `reads_disk` where the journal's memory doesn't reach back. `settles` does all
that is still to be done.

Hands to: the tests of the backlog and of replay. Hears from: `stories`.
"""

from __future__ import annotations

import attrs

from mux.core.broker import Broker
from mux.core.commands import Command, Publish, PublishRun, ReadJournal, ReportWhenDrained
from mux.core.events import ClientDrained, ClientLags, ClientLeft, Event, JournalExtent, JournalRead
from mux.core.policy.principal import ClientId
from mux.core.protocol.journal_entry import Entry
from tests.core.stories import FIRST_ID, Json, Peer, Story

EPOCH = "an-epoch"
AWARE: Json = {"extensions": {"appmux": {"version": 1}}}


@attrs.define(eq=False)
class PacedStory(Story):
    """A story with a disk. ``disk``: all entries; ``trimmed``: the last seq that it lost."""

    disk: list[Entry] = attrs.field(factory=list)
    trimmed: int = 0
    waiting: dict[ClientId, None] = attrs.field(factory=dict)
    fetches: list[ReadJournal] = attrs.field(factory=list)

    @classmethod
    def with_disk(cls, **limits: float) -> PacedStory:
        """A story whose app-server is ready and whose journal is kept."""
        story = cls.begun(**limits)
        assert isinstance(story, PacedStory)
        story.tell(JournalExtent(EPOCH, 0))
        return story

    @classmethod
    def restarted(cls, before: PacedStory) -> PacedStory:
        """The next broker on the same state directory, its app-server ready, nobody attached."""
        story = cls(before.limits, disk=before.disk, trimmed=before.trimmed)
        head = before.broker.state.journal.head + 1_000  # more than were ever handed out
        story.broker = Broker(
            before.limits, before.introduction, first_id=FIRST_ID * 2, epoch=EPOCH, head=head
        )
        story.starts()
        story.initialized()
        story.written()
        story.tell(JournalExtent(EPOCH, story.trimmed))
        return story

    def tell(self, event: Event) -> list[Command]:
        if isinstance(event, ClientLeft):
            self.waiting.pop(event.client, None)
        return super().tell(event)

    def _perform(self, command: Command) -> None:
        match command:
            case Publish(_, _, _, Entry() as entry):
                assert not self.disk or entry.seq > self.disk[-1].seq
                self.disk.append(entry)
                super()._perform(command)
            case PublishRun(entries=entries) if entries:
                assert not self.disk or entries[0].seq > self.disk[-1].seq
                self.disk += entries
                super()._perform(command)
            case ReportWhenDrained(client):
                self.waiting[client] = None
            case ReadJournal():
                self.fetches.append(command)
            case _:
                super()._perform(command)

    def lags(self, peer: Peer) -> None:
        """The peer's outbox is full."""
        self.tell(ClientLags(peer.id))

    def drains(self, peer: Peer) -> bool:
        """The peer's outbox has room again; False if nobody waits for that."""
        if peer.id not in self.waiting:
            return False
        del self.waiting[peer.id]
        self.tell(ClientDrained(peer.id))
        return True

    def reads_disk(self) -> bool:
        """The disk answers the oldest question; False if there is none."""
        if not self.fetches:
            return False
        wanted = self.fetches.pop(0)
        entries: list[Entry] = []
        room, until = wanted.max_bytes, wanted.until
        after = max(wanted.after, self.trimmed)
        for entry in self.disk:
            mine = entry.thread is None or entry.thread in wanted.threads
            if mine and after < entry.seq <= wanted.until:
                entries.append(entry)
                room -= len(entry.message)
                if room <= 0:
                    until = entry.seq
                    break
        self.tell(JournalExtent(EPOCH, self.trimmed))
        self.tell(JournalRead(wanted.client, tuple(entries), until, wanted.case))
        return True

    def settles(self) -> None:
        """All clients catch up."""
        while self.fetches or self.waiting:
            self.reads_disk()
            for id in list(self.waiting):
                self.drains(self.peers[id])

    def is_behind(self, peer: Peer) -> bool:
        return self.broker.state.clients[peer.id].backlog is not None

    def returns(
        self, name: str, after: int, thread: str | None = None, *, merged: bool = False
    ) -> Peer:
        """A client that knows the broker comes back and asks for what came after this."""
        peer = self.peer(name, **AWARE)
        params: Json = {"after": {"epoch": EPOCH, "seq": after}, "merged": merged}
        peer.asks("mux/replay", params | ({"threadId": thread} if thread else {}), id="replay")
        return peer

    def loads(self, *, fails: bool = False) -> list[str]:
        """Answer what the broker asks to have loaded; the threads' ids."""
        asked = self.written("thread/resume")
        for request in asked:
            if fails:
                self.fails(request)
            else:
                self.answers(request, {"thread": {"id": request["params"]["threadId"]}})
        return [request["params"]["threadId"] for request in asked]
