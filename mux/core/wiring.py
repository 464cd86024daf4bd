"""The features of the broker, wired: each is given those that it uses.

Made by ``broker``; used by it, ``notifications`` and ``responses``.
"""

from __future__ import annotations

import attrs

from mux.core.features.attention import Attention
from mux.core.features.client_requests import ClientRequests
from mux.core.features.deduplication import Deduplicator
from mux.core.features.directory_clearance import DirectoryClearance
from mux.core.features.inbox import InboxRequests
from mux.core.features.inbox_cards import InboxCards
from mux.core.features.inbox_picture import InboxPicture
from mux.core.features.local_resume import LocalResumes
from mux.core.features.notices import Notices
from mux.core.features.presence import Presence
from mux.core.features.recovery import Recovery
from mux.core.features.replay import Replays
from mux.core.features.server_requests import ServerRequests
from mux.core.features.shared_titles import SharedTitles
from mux.core.features.subscriptions import Subscriptions
from mux.core.features.turn_queue import TurnQueueing
from mux.core.policy.notice import Timing
from mux.core.state.state import State


@attrs.frozen(eq=False)
class Features:
    """All features around one state. Made by ``wired``; ``broker`` says what each is for."""

    state: State
    deduplicator: Deduplicator
    client_requests: ClientRequests
    server_requests: ServerRequests
    subscriptions: Subscriptions
    local_resumes: LocalResumes
    recovery: Recovery
    replays: Replays
    presence: Presence
    attention: Attention
    notices: Notices
    shared_titles: SharedTitles
    turn_queueing: TurnQueueing
    clearance: DirectoryClearance
    inbox: InboxRequests

    @classmethod
    def wired(cls, state: State, timing: Timing, life: str, host: str) -> Features:
        """Make the features around a state.

        ``timing``, ``life``: see `Notices`; ``host``: see `InboxRequests`.
        """
        sent = Deduplicator(state)
        asking = ClientRequests(state, sent)
        offering = ServerRequests(state)
        recovery = Recovery(state, asking, offering)
        looking = Attention(state, timing)
        clearance = DirectoryClearance(state, asking)
        cards = InboxCards(state)
        picture = InboxPicture(state, cards, offering.voting)
        return cls(
            state=state,
            deduplicator=sent,
            client_requests=asking,
            server_requests=offering,
            subscriptions=Subscriptions(state, asking, offering, clearance),
            local_resumes=LocalResumes(state, asking),
            recovery=recovery,
            replays=Replays(state, asking, clearance),
            presence=Presence(state),
            attention=looking,
            notices=Notices(state, looking, timing, life),
            shared_titles=SharedTitles(state, asking, recovery),
            turn_queueing=TurnQueueing(state, asking, sent, recovery),
            clearance=clearance,
            inbox=InboxRequests(state, asking, cards, picture, host),
        )
