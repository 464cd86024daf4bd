"""The parts of the broker, wired: each is made of those that it uses.

Made by ``broker``; used by it, and by ``hearing`` and ``settling``, which take in what the
app-server says.
"""

from __future__ import annotations

import attrs

from mux.core.asking import Asking
from mux.core.clearance import Clearance
from mux.core.following import Following
from mux.core.looking import Looking
from mux.core.notices import Notices
from mux.core.offering import Offering
from mux.core.policy.notice import Timing
from mux.core.presence import Presence
from mux.core.queueing import Queueing
from mux.core.readings import Readings
from mux.core.recovery import Recovery
from mux.core.replaying import Replaying
from mux.core.sent import Sent
from mux.core.state.state import State
from mux.core.titles import Titles


@attrs.frozen(eq=False)
class Parts:
    """All of them; what each is for stands in ``broker``. Made by ``wired``."""

    state: State
    sent: Sent
    asking: Asking
    offering: Offering
    following: Following
    readings: Readings
    recovery: Recovery
    replaying: Replaying
    presence: Presence
    looking: Looking
    notices: Notices
    titles: Titles
    queueing: Queueing
    clearance: Clearance

    @classmethod
    def wired(cls, state: State, timing: Timing, life: str) -> Parts:
        """The parts around a state. ``timing``, ``life``: see `Notices`."""
        sent = Sent(state)
        asking = Asking(state, sent)
        offering = Offering(state)
        recovery = Recovery(state, asking, offering)
        looking = Looking(state, timing)
        clearance = Clearance(state, asking)
        return cls(
            state=state,
            sent=sent,
            asking=asking,
            offering=offering,
            following=Following(state, asking, offering, clearance),
            readings=Readings(state, asking),
            recovery=recovery,
            replaying=Replaying(state, asking, clearance),
            presence=Presence(state),
            looking=looking,
            notices=Notices(state, looking, timing, life),
            titles=Titles(state, asking, recovery),
            queueing=Queueing(state, asking, sent, recovery),
            clearance=clearance,
        )
