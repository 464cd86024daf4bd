"""Stories of what the TUI asks, at its start and later, and of settings, sections and projects."""

from __future__ import annotations

from typing import Any, Final

from mux.demo.scripted_model import Say
from tests.conformance.stage import Player, Stage, Story
from tests.end_to_end.peer import Json

CAPABILITIES: Final[Json] = {
    "requiredHumanApproval": True,
    "experimentalApi": True,
    "requestAttestation": False,
    "optOutNotificationMethods": None,
}


async def _starts(stage: Stage, name: str) -> Player:
    """A client that comes as the TUI does, with ids of all kinds."""
    player = await stage.connect(name)
    info = {"name": "codex-tui", "title": None, "version": "0.169.0"}
    asked = {"clientInfo": info, "capabilities": CAPABILITIES}
    await player.ask("initialize", asked, id="initialize")
    await player.peer.notify("initialized")
    for at, (method, params) in enumerate(AT_THE_START):
        id = f"{method.replace('/', '-')}-{at}" if at % 2 else 100 + at
        await player.ask(method, params, id=id)
    return player


AT_THE_START: Final[tuple[tuple[str, Any], ...]] = (
    ("account/read", {"refreshToken": False}),
    ("model/list", {"includeHidden": True}),
    ("account/bedrock/checkGovCloudRequirements", {}),
    ("config/read", {"includeLayers": False}),
    ("account/read", {}),
    ("configRequirements/read", None),
    ("collaborationMode/list", {}),
    ("experimentalFeature/list", {}),
    ("modelProvider/capabilities/read", {}),
    ("permissionProfile/list", {}),
    ("plugin/installed", {}),
    ("app/installed", {}),
)


async def as_the_tui_starts(stage: Stage) -> None:
    a = await _starts(stage, "a")
    b = await _starts(stage, "b")
    here = str(stage.work)
    for player in (a, b):
        await player.ask("hooks/list", {"cwds": [here]})
        await player.ask("skills/list", {"cwds": [here], "forceReload": False})
    threads = [await a.thread(turn=True) for _ in range(2)]
    await b.ask("thread/list", {"cwd": here, "limit": 25, "sortKey": "updated_at"})
    asked = []
    for thread in threads:
        asked.append(await b.send("thread/read", {"threadId": thread}))
        asked.append(await b.send("thread/turns/list", {"threadId": thread, "limit": 1}))
    for each in asked:
        await b.answered(each)


async def as_the_tui_resumes(stage: Stage) -> None:
    stage.script("stream", Say(chunks=("early ", stage.gate("middle"), "late")))
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    await b.ask("thread/read", {"threadId": thread})
    await b.join(thread)
    for method in (
        "thread/turns/list",
        "thread/items/list",
        "thread/goal/get",
        "thread/attachment/list",
        "thread/backgroundTerminals/list",
        "thread/queue/list",
    ):
        await b.ask(method, {"threadId": thread})
    await a.say(thread, "stream")
    await b.hears("item/agentMessage/delta", delta="early ")
    await b.ask("thread/unsubscribe", {"threadId": thread})
    stage.release("middle")
    await a.ends(thread)
    await b.leaves()


async def who_is_signed_in(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    for method, params in (
        ("account/read", {}),
        ("account/rateLimits/read", None),
        ("account/usage/read", None),
        ("account/gatewayOAuth/read", None),
        ("account/workspaceMessages/read", None),
        ("account/login/cancel", {"loginId": "01900000-0000-7000-8000-000000000000"}),
        ("account/login/start", {"type": "nonsense"}),
        ("userVerification/status", {}),
        ("remoteControl/status/read", None),
    ):
        await a.ask(method, params)
    await a.ask("account/login/start", {"type": "apiKey", "apiKey": "sk-conformance"})
    for player in (a, b):
        await player.hears("account/updated")
    await b.ask("account/read", {})
    await b.ask("account/logout", None)
    for player in (a, b):
        await player.hears("account/updated")


async def the_config_written(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    key = {"keyPath": "model_verbosity", "mergeStrategy": "replace"}
    await a.ask("config/value/write", {**key, "value": "low"})
    await b.ask("config/read", {"includeLayers": True})
    await b.ask("config/value/write", {**key, "value": 5})
    await b.ask("config/value/write", {**key, "value": "high", "expectedVersion": "nonsense"})
    edits = [{**key, "value": "high"}, {**key, "keyPath": "hide_agent_reasoning", "value": True}]
    await b.ask("config/batchWrite", {"edits": edits, "reloadUserConfig": True})
    await a.ask("config/read")
    await a.ask("experimentalFeature/enablement/set", {"enablement": {"nonsense": True}})


async def skills(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    place = stage.work / "skills" / "fig"
    place.mkdir(parents=True)
    (place / "SKILL.md").write_text("---\nname: fig\ndescription: Figs.\n---\nEat figs.\n")
    await a.ask("skills/extraRoots/set", {"extraRoots": [str(stage.work / "skills")]})
    await b.ask("skills/list", {"cwds": [str(stage.work)], "forceReload": True})
    written = {"path": str(place / "SKILL.md"), "enabled": False}
    await b.ask("skills/config/write", written)
    await a.ask("skills/list", {"cwds": [str(stage.work)], "forceReload": True})
    for player in (a, b):
        await player.hears("skills/changed")


async def sections(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    thread = await a.thread(turn=True)
    made = await a.ask("threadSection/create", {"name": "A section"})
    section = made["section"]["id"]
    await b.ask("threadSection/list", {})
    await b.ask("thread/section/move", {"threadId": thread, "sectionId": section})
    await b.ask("threadSection/update", {"sectionId": section, "name": "Another"})
    await a.ask("thread/read", {"threadId": thread})
    await a.ask("threadSection/delete", {"sectionId": section})
    await a.ask("threadSection/delete", {"sectionId": section})


async def projects(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    asked = {"idempotencyKey": stage.name, "name": "A project", "roots": []}
    made = await a.ask("project/create", asked)
    await a.ask("project/create", asked)
    project = {"projectId": made["project"]["id"]} if isinstance(made, dict) else {}
    await b.ask("project/list", {})
    await b.ask("project/update", {**project, "name": "Another"})
    await a.ask("project/read", project)
    await a.ask("project/delete", project)
    await a.ask("project/read", project)


async def environments_and_the_rest(stage: Stage) -> None:
    a = await stage.client("a")
    for method, params in (
        ("environment/info", {"environmentId": "local"}),
        ("environment/info", {"environmentId": "nonsense"}),
        ("environment/status", {"environmentId": "local"}),
        ("memory/status", {}),
        ("mock/experimentalMethod", {"value": "x"}),
        ("windowsSandbox/readiness", None),
        ("plugin/list", {}),
        ("app/list", {}),
        ("app/read", {"appIds": []}),
        ("externalAgentConfig/detect", {}),
        ("thread/realtime/listVoices", {}),
        ("thread/sample", {}),
        ("accountSession/list", {}),
        ("modelProvider/list", {}),
    ):
        await a.ask(method, params)


STORIES = (
    Story(as_the_tui_starts, alone=True),
    Story(as_the_tui_resumes),
    Story(who_is_signed_in, alone=True),
    Story(the_config_written, alone=True),
    Story(skills, alone=True),
    Story(sections, alone=True),
    Story(projects, alone=True),
    Story(environments_and_the_rest),
)
