"""Notifications that were examined: they go to their audience, as no id in them is a client's.

They go to the followers of their thread, or to everybody. ``methods`` has rows for notifications of
which more must be said. A notification that is in neither list is newer than this list:
``id_fields`` finds its client by the ids in it. So add it here only if it names no such id; else
give it a row there.

``make drift`` says what a new codex brings.
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
