"""Notifications that somebody has looked at: they are as any, no id in them is a client's.

They go to the followers of their thread, or to everybody; ``methods`` has those of which more is to
be said. One that stands in neither comes of a codex that is newer than this list, and is told by
the ids that it names (see ``id_fields``): so add it here only when it names none, or its row there.

Heard from: ``methods``. What a new codex brings, ``make drift`` says.
"""

from __future__ import annotations

_PUBLISHED = """
    account/gatewayOAuth/changed account/login/completed account/updated app/list/updated
    autoApprovalReview/strictReviewRequired error externalAgentConfig/import/completed
    externalAgentConfig/import/progress guardianWarning hook/completed hook/started
    item/agentMessage/delta item/autoApprovalReview/completed item/autoApprovalReview/started
    item/commandExecution/outputDelta item/commandExecution/terminalInteraction item/completed
    item/fileChange/outputDelta item/fileChange/patchUpdated item/mcpToolCall/progress
    item/plan/delta item/reasoning/summaryPartAdded item/reasoning/summaryTextDelta
    item/reasoning/textDelta item/started mcpServer/oauthLogin/completed
    mcpServer/startupStatus/updated model/rerouted model/safetyBuffering/updated
    model/verification modelProvider/authRecoveryCompleted modelProvider/authRecoveryStarted
    project/changed serverRequest/resolved skills/changed thread/compacted
    thread/environment/connected thread/environment/disconnected thread/prediction/updated
    thread/queue/changed thread/readState/changed thread/realtime/closed thread/realtime/error
    thread/realtime/item/completed thread/realtime/item/started
    thread/realtime/item/transcript/delta thread/realtime/itemAdded
    thread/realtime/outputAudio/delta thread/realtime/sdp thread/realtime/started
    thread/realtime/transcript/delta thread/realtime/transcript/done thread/settings/updated
    thread/tokenUsage/updated turn/completed turn/diff/updated turn/moderationMetadata
    turn/plan/updated turn/started warning windows/worldWritableWarning
    windowsSandbox/setupCompleted
"""

PUBLISHED = frozenset(_PUBLISHED.split())
