"""codex-client-provider: two completions at once, in ephemeral threads of one app-server."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from codex_client_provider.langchain import CodexAppServerClient

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


async def main() -> None:
    client = CodexAppServerClient(os.environ["CODEX"])
    for prompt in ("say hello", "run it"):
        done: dict[str, Any] = await client.run_completion(
            model="auto",
            effort=None,
            cwd=os.environ["WORK"],
            base_instructions="You answer.",
            developer_instructions="Briefly.",
            inputs=[{"type": "text", "text": prompt}],
            output_schema=SCHEMA,
            timeout_seconds=60,
        )
        print(done["text"], done["usage"] is not None)
    await client.close()


asyncio.run(main())
