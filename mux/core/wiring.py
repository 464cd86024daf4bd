"""The features of the broker, wired: each is given those that it uses.

Made by ``broker``; used by it, ``notifications`` and ``responses``.
"""

from __future__ import annotations

import msgspec

from mux.core.features.approvals.approval_answers import ApprovalAnswers
from mux.core.features.approvals.resolutions import Resolutions
from mux.core.features.approvals.server_requests import ServerRequests
from mux.core.features.approvals.voting import Voting
from mux.core.features.clients.attention import Attention
from mux.core.features.clients.presence import Presence
from mux.core.features.handover.durability import Durability
from mux.core.features.handover.handover import Handover
from mux.core.features.history.digest import Digests
from mux.core.features.history.journal_sweep import JournalSweeps
from mux.core.features.history.thread_files import ThreadFiles
from mux.core.features.inbox.inbox import InboxRequests
from mux.core.features.inbox.inbox_cards import InboxCards
from mux.core.features.inbox.inbox_changes import InboxChanges
from mux.core.features.inbox.inbox_picture import InboxPicture
from mux.core.features.lifecycle.handshake import Handshakes
from mux.core.features.lifecycle.recovery import Recovery
from mux.core.features.notices.notice_triggers import NoticeTriggers
from mux.core.features.notices.notices import Notices
from mux.core.features.requests.client_requests import ClientRequests
from mux.core.features.requests.deduplication import Deduplicator
from mux.core.features.requests.deprecation_notices import DeprecationNotices
from mux.core.features.requests.directory_clearance import DirectoryClearance
from mux.core.features.subscriptions.local_resume import LocalResumes
from mux.core.features.subscriptions.replay import Replays
from mux.core.features.subscriptions.subscriptions import Subscriptions
from mux.core.features.turns.queue_requests import QueueRequests
from mux.core.features.turns.shared_titles import SharedTitles
from mux.core.features.turns.turn_queue import TurnQueueing
from mux.core.policy.notice import Timing
from mux.core.state.state import State


class Features(msgspec.Struct, frozen=True, eq=False):
    """All features around one state. Made by ``wired``; ``broker`` says what each is for."""

    state: State
    deduplicator: Deduplicator
    client_requests: ClientRequests
    deprecation_notices: DeprecationNotices
    server_requests: ServerRequests
    resolutions: Resolutions
    approval_answers: ApprovalAnswers
    subscriptions: Subscriptions
    local_resumes: LocalResumes
    recovery: Recovery
    replays: Replays
    presence: Presence
    attention: Attention
    notices: Notices
    notice_triggers: NoticeTriggers
    shared_titles: SharedTitles
    turn_queueing: TurnQueueing
    queue_requests: QueueRequests
    clearance: DirectoryClearance
    handshakes: Handshakes
    durability: Durability
    handover: Handover
    inbox: InboxRequests
    inbox_changes: InboxChanges
    files: ThreadFiles
    digests: Digests
    sweeps: JournalSweeps

    @classmethod
    def wired(cls, state: State, timing: Timing, life: str, host: str) -> Features:
        """Make the features around a state.

        ``timing``, ``life``: see `Notices`; ``host``: see `InboxRequests`.
        """
        deduplicator = Deduplicator(state)
        client_requests = ClientRequests(state, deduplicator)
        attention = Attention(state, timing)
        resolutions = Resolutions(state)
        server_requests = ServerRequests(state, Voting(state, attention), resolutions)
        recovery = Recovery(state, client_requests, resolutions)
        presence = Presence(state)
        notices = Notices(state, attention, timing, life)
        clearance = DirectoryClearance(state, client_requests)
        turn_queueing = TurnQueueing(state, client_requests, deduplicator, recovery)
        durability = Durability(state)
        handover = Handover(
            state, client_requests, server_requests, turn_queueing, recovery, durability
        )
        cards = InboxCards(state)
        sweeps = JournalSweeps(state)
        picture = InboxPicture(state, cards, server_requests.voting)
        inbox_changes = InboxChanges(state, cards, picture)
        return cls(
            state=state,
            deduplicator=deduplicator,
            client_requests=client_requests,
            deprecation_notices=DeprecationNotices(state),
            server_requests=server_requests,
            resolutions=resolutions,
            approval_answers=ApprovalAnswers(state, server_requests),
            subscriptions=Subscriptions(state, client_requests, server_requests, clearance),
            local_resumes=LocalResumes(state, client_requests),
            recovery=recovery,
            replays=Replays(state, client_requests, clearance),
            presence=presence,
            attention=attention,
            notices=notices,
            notice_triggers=NoticeTriggers(state, notices),
            shared_titles=SharedTitles(state, client_requests, recovery),
            turn_queueing=turn_queueing,
            queue_requests=QueueRequests(state),
            clearance=clearance,
            handshakes=Handshakes(state, client_requests, recovery, presence, attention),
            durability=durability,
            handover=handover,
            digests=Digests(state, sweeps),
            sweeps=sweeps,
            inbox=InboxRequests(state, client_requests, cards, picture, inbox_changes, host),
            inbox_changes=inbox_changes,
            files=ThreadFiles(state, sweeps),
        )
