"""What stories of notices begin with: a phone and a tablet to push to; and who was told."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from mux.core.commands import LogNoticeDecision, Notify, Withdraw
from mux.core.events import RecipientsChanged
from mux.core.policy.notice import Recipient, Rule
from mux.core.policy.principal import Principal
from mux.core.policy.scopes import ALL
from mux.core.protocol.scope import Scope
from tests.core.stories import APPROVAL, Peer, Story

OBSERVE: frozenset[Scope] = frozenset({"observe"})
WATCHER = Principal("wall", "device", scopes=OBSERVE, device="d3")
PHONE = Principal("phone", "device", device="d1")


def recipient(
    device: str, used: float = 0.0, *rules: Rule, scopes: frozenset[Scope] = ALL, **more: bool
) -> Recipient:
    return Recipient(f"device:{device}", device, scopes, used, rules, **more)


PHONE_AND_TABLET = (recipient("d1", 50.0), recipient("d2", 20.0))


def peopled(story: Story, *programs: str) -> None:
    """Have people sit before the programs of these names."""
    attention = story.broker.attention
    attention.timing = replace(attention.timing, people=programs)


def reachable(story: Story, *recipients: Recipient) -> None:
    story.tell(RecipientsChanged(recipients or PHONE_AND_TABLET))


def noticed(*recipients: Recipient) -> tuple[Story, Peer]:
    """A story with a phone (used last) and a tablet, and a client that follows the thread ``t``."""
    story = Story.begun()
    peopled(story, "desk")
    reachable(story, *recipients)
    desk = story.peer("desk")
    story.follows(desk)
    return story, desk


def told(story: Story) -> list[str]:
    """To whom something went or from whom it was taken since the last look: ``+d1 approval``."""
    return list(_told(story))


def _told(story: Story) -> Iterator[str]:
    notices, story.notices = story.notices, []
    for each in notices:
        match each:
            case Notify(notice, device):
                yield f"+{device.removeprefix('device:')} {notice.kind}"
            case Withdraw(notice, devices):
                yield from (f"-{one.removeprefix('device:')} {notice.kind}" for one in devices)


def why(story: Story) -> list[tuple[str, str]]:
    """What was explained and not told since the last look: what, and why."""
    found = [
        (each.outcome, each.reason) for each in story.notices if isinstance(each, LogNoticeDecision)
    ]
    story.notices.clear()
    return found


def asks(story: Story, id: int = 5, thread: str = "t") -> int:
    """An approval; the id under which it is offered."""
    story.asks(id, APPROVAL, threadId=thread, itemId="i1", turnId="u1", command="make")
    return story.broker.state.pending_requests.next_id
