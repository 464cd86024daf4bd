"""Stories of what belongs to one client: files, watches, commands, processes, searches."""

from __future__ import annotations

import base64
from typing import Final

from tests.conformance.stage import Player, Stage, Story
from tests.end_to_end.peer import Json
from tests.end_to_end.scenes import eventually

SIZE: Final = {"cols": 100, "rows": 30}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def _prints(player: Player, method: str, wanted: str) -> None:
    """Wait until a stream of the player's has printed `wanted`."""

    def printed() -> bool:
        pieces = [each["params"]["deltaBase64"] for each in player.peer.heard(method)]
        return wanted in b"".join(map(base64.b64decode, pieces)).decode()

    await eventually(printed, wanted)


async def files(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    place = stage.work / "place"
    file, copy = str(place / "file.txt"), str(place / "copy.txt")
    for player, method, params in (
        (a, "fs/createDirectory", {"path": str(place)}),
        (a, "fs/createDirectory", {"path": str(place / "x" / "y")}),
        (a, "fs/createDirectory", {"path": str(place / "x" / "y"), "recursive": False}),
        (a, "fs/writeFile", {"path": file, "dataBase64": _base64("hello\n")}),
        (a, "fs/writeFile", {"path": file, "dataBase64": "?"}),
        (b, "fs/readFile", {"path": file}),
        (b, "fs/readFile", {"path": str(place)}),
        (b, "fs/readFile", {"path": str(place / "nothing")}),
        (b, "fs/readFile", {"path": "relative"}),
        (b, "fs/getMetadata", {"path": file}),
        (b, "fs/getMetadata", {"path": str(place / "nothing")}),
        (a, "fs/copy", {"sourcePath": file, "destinationPath": copy}),
        (a, "fs/copy", {"sourcePath": str(place), "destinationPath": copy}),
        (a, "fs/remove", {"path": file}),
        (a, "fs/remove", {"path": file, "force": False}),
        (b, "fs/readDirectory", {"path": str(place)}),
        (b, "fs/readDirectory", {"path": copy}),
        (a, "fs/remove", {"path": str(place), "recursive": False}),
        (a, "fs/remove", {"path": str(place), "recursive": True}),
    ):
        await player.ask(method, params)


async def watches_of_one_id(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    for player in (a, b):
        place = stage.work / player.name
        place.mkdir()
        await player.ask("fs/watch", {"watchId": "w", "path": str(place)})
    await a.ask("fs/watch", {"watchId": "w", "path": str(stage.work)})
    for player in (a, b):
        # One change, not one for the making and one for the text.
        made = stage.work / f"new of {player.name}"
        made.write_text("x")
        made.rename(stage.work / player.name / "new")
        await player.hears("fs/changed")
    for player in (a, a, b):
        await player.ask("fs/unwatch", {"watchId": "w"})
    await a.ask("fs/watch", {"watchId": "v", "path": str(stage.work / "nothing")})


async def commands(stage: Stage) -> None:
    a = await stage.client("a")
    here = {"cwd": str(stage.work)}
    for params in (
        {"command": ["sh", "-c", "echo out; echo err >&2; exit 3"], **here},
        {"command": ["sh", "-c", "echo $WORD"], "env": {"WORD": "fig"}, **here},
        {"command": ["no-such-program"], **here},
        {"command": ["sleep", "600"], "timeoutMs": 50, **here},
        {"command": ["true"], "cwd": str(stage.work / "nothing")},
        {"command": ["sh", "-c", "echo 0123456789"], "outputBytesCap": 4, **here},
        {"command": ["true"], "streamStdin": True, **here},
        {"command": ["true"], "tty": True, **here},
    ):
        await a.ask("command/exec", params)


async def a_command_with_a_terminal(stage: Stage) -> None:
    a = await stage.client("a")
    script = "stty -echo; echo ready; read word; stty size; echo got $word; exec cat"
    ran = await a.send(
        "command/exec",
        {
            "command": ["sh", "-c", script],
            "cwd": str(stage.work),
            "processId": "p",
            "tty": True,
            "size": SIZE,
            "streamStdin": True,
            "streamStdoutStderr": True,
            "disableTimeout": True,
        },
    )
    await _prints(a, "command/exec/outputDelta", "ready")
    await a.ask("command/exec/resize", {"processId": "p", "size": {"cols": 80, "rows": 24}})
    await a.ask("command/exec/write", {"processId": "p", "deltaBase64": _base64("fig\n")})
    await _prints(a, "command/exec/outputDelta", "got fig")
    await a.ask("command/exec/terminate", {"processId": "p"})
    await a.answered(ran)
    for method in ("write", "resize", "terminate"):
        await a.ask(f"command/exec/{method}", {"processId": "p", "size": SIZE})


async def commands_of_one_id(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    cat: Json = {
        "command": ["cat"],
        "cwd": str(stage.work),
        "processId": "p",
        "streamStdin": True,
        "streamStdoutStderr": True,
        "disableTimeout": True,
    }
    ran = {}
    for player in (a, b):
        ran[player.name] = await player.send("command/exec", cat)
        said = _base64(f"from {player.name}\n")
        await player.ask("command/exec/write", {"processId": "p", "deltaBase64": said})
        await _prints(player, "command/exec/outputDelta", "from")
    await a.ask("command/exec", cat)
    await b.ask("command/exec/write", {"processId": "p", "deltaBase64": "", "closeStdin": True})
    await b.answered(ran["b"])
    await b.ask("command/exec/terminate", {"processId": "p"})
    await a.ask("command/exec/terminate", {"processId": "p"})
    await a.answered(ran["a"])


async def processes_of_one_handle(stage: Stage) -> None:
    a, b = await stage.clients("a", "b")
    spawned: Json = {
        "command": ["sh", "-c", "echo ready; read word; echo got $word; exec cat"],
        "cwd": str(stage.work),
        "processHandle": "h",
        "streamStdin": True,
        "streamStdoutStderr": True,
    }
    for player in (a, b):
        await player.ask("process/spawn", spawned)
        await _prints(player, "process/outputDelta", "ready")
    await a.ask("process/spawn", spawned)
    said = {"processHandle": "h", "deltaBase64": _base64("fig\n")}
    await a.ask("process/writeStdin", said)
    await _prints(a, "process/outputDelta", "got fig")
    await a.ask("process/resizePty", {"processHandle": "h", "size": SIZE})
    await a.ask("process/kill", {"processHandle": "h"})
    await a.hears("process/exited")
    await a.ask("process/kill", {"processHandle": "h"})
    await b.ask("process/writeStdin", said | {"closeStdin": True})
    await b.hears("process/exited")


async def a_process_with_a_terminal(stage: Stage) -> None:
    a = await stage.client("a")
    await a.ask(
        "process/spawn",
        {
            "command": ["sh", "-c", "stty size; exit 3"],
            "cwd": str(stage.work),
            "processHandle": "h",
            "tty": True,
            "size": SIZE,
        },
    )
    await a.hears("process/exited")
    await a.ask("process/spawn", {"command": ["no-such"], "cwd": "/", "processHandle": "n"})


async def a_search(stage: Stage) -> None:
    a = await stage.client("a")
    for name in ("plum.txt", "fig.txt", "plumage.md"):
        (stage.work / name).write_text("x")
    await a.ask("fuzzyFileSearch", {"query": "plum", "roots": [str(stage.work)]})
    await a.ask("fuzzyFileSearch", {"query": "nothing", "roots": [str(stage.work)]})
    asked = {"query": "fig", "roots": [str(stage.work)], "cancellationToken": "c"}
    await a.ask("fuzzyFileSearch", asked)


async def a_search_session(stage: Stage) -> None:
    """Natively it is everybody's."""
    a, b = await stage.clients("a", "b")
    (stage.work / "plum.txt").write_text("x")
    await a.ask("fuzzyFileSearch/sessionStart", {"sessionId": "s", "roots": [str(stage.work)]})
    await a.ask("fuzzyFileSearch/sessionUpdate", {"sessionId": "s", "query": "plum"})
    await a.hears("fuzzyFileSearch/sessionCompleted")
    await b.ask("fuzzyFileSearch/sessionUpdate", {"sessionId": "other", "query": "plum"})
    for player in (a, a, b):
        await player.ask("fuzzyFileSearch/sessionStop", {"sessionId": "s"})
    await a.ask("fuzzyFileSearch/sessionUpdate", {"sessionId": "s", "query": "plum"})


async def what_is_left_running(stage: Stage) -> None:
    """It ends with its client; another's goes on."""
    a, b = await stage.clients("a", "b")
    spawned: Json = {"cwd": str(stage.work), "processHandle": "h"}
    end = stage.work / "end"
    script = f"trap 'echo done > {end}; exit' TERM HUP; echo up; while :; do sleep 0.05; done"
    spawned |= {"command": ["sh", "-c", script], "streamStdoutStderr": True}
    for player in (a, b):
        await player.ask("process/spawn", spawned)
        await _prints(player, "process/outputDelta", "up")
    await a.leaves()
    await b.ask("process/spawn", spawned)
    await b.ask("process/kill", {"processHandle": "h"})
    await b.hears("process/exited")


STORIES = (
    Story(files),
    Story(watches_of_one_id),
    Story(commands),
    Story(a_command_with_a_terminal),
    Story(commands_of_one_id),
    Story(processes_of_one_handle),
    Story(a_process_with_a_terminal),
    Story(a_search),
    Story(
        a_search_session,
        alone=True,
        shows=("searches",),
        # Now and then, while it searches; and it may be through before it is told the word.
        chance=("fuzzyFileSearch/sessionUpdated", "fuzzyFileSearch/sessionCompleted"),
    ),
    Story(what_is_left_running),
)
