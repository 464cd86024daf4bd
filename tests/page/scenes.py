"""What the scripted model does in the page's stories, by the words that a person says.

Hands to: the page's tests, and the script that takes its pictures.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from mux.demo.scripted_model import CallTool, Fail, Hold, Patch, Reason, Run, Say, Scripted

PARSER: Final = """import re

WORD = re.compile(r"[a-z]+")


def words(text):
    return WORD.findall(text)


def count(text):
    found = {}
    for word in words(text):
        found[word] = found.get(word, 0) + 1
    return found
"""

PATCH: Final = """*** Begin Patch
*** Update File: parser.py
@@
-WORD = re.compile(r"[a-z]+")
+WORD = re.compile(r"\\w+", re.UNICODE)
@@
 def words(text):
-    return WORD.findall(text)
+    \"\"\"Return the words of a text, in lower case.\"\"\"
+    return WORD.findall(text.lower())
*** Add File: test_parser.py
+from parser import count, words
+
+
+def test_capitals_are_words():
+    assert words("Ada wrote") == ["ada", "wrote"]
+
+
+def test_accents_are_letters():
+    assert count("café café") == {"café": 2}
*** End Patch"""

FOUND: Final = """The parser drops every word with a capital or an accent: the pattern is `[a-z]+`,
so *Ada* is read as `da`.

1. Match letters of any script.
2. Compare in lower case.
3. Add a test for both.
"""

DONE: Final = """Both are fixed, and the tests pass.

| text | before | now |
|---|---|---|
| `Ada wrote` | `da`, `wrote` | `ada`, `wrote` |
| `café` | `caf` | `café` |

```python
WORD = re.compile(r"\\w+", re.UNICODE)
```

Next could be numbers with decimals, which are two words so far.
"""

PLAN: Final = [
    {"step": "Read the parser", "status": "completed"},
    {"step": "Change the pattern", "status": "in_progress"},
    {"step": "Run the tests", "status": "pending"},
]

QUESTION: Final = {
    "questions": [
        {
            "id": "scope",
            "header": "Scope",
            "question": "Which files should the change touch?",
            "options": [
                {"label": "Only the parser (Recommended)", "description": "The smallest change."},
                {"label": "Parser and callers", "description": "Also renames count() everywhere."},
            ],
        },
        {
            "id": "name",
            "header": "Name",
            "question": "What should the new function be called?",
            "options": [
                {"label": "tokens", "description": "Short."},
                {"label": "split_words", "description": "Says what it does."},
            ],
        },
    ]
}

HOSTILE: Final = """# <img src=x onerror="window.hurt=1">

<script>window.hurt = 1</script> [click me](javascript:window.hurt=1)
[data](data:text/html,<script>window.hurt=1</script>) ![pixel](https://tracker.invalid/pixel.png)
<iframe src="https://tracker.invalid/"></iframe> <style>body{display:none}</style>
[a link](https://example.invalid/path)
<form action="https://tracker.invalid/"><input name=q></form>
<svg onload="window.hurt=1"></svg>
<a href="https://tracker.invalid" style="position:fixed;inset:0">x</a>
"""


def script(*, pace: float = 0.0) -> Scripted:
    """Return the model's part. ``pace``: seconds between two deltas, for a person who watches."""
    model = Scripted()
    say = partial(Say, pace=pace)
    model.on("ello", say("Hello! What shall we look at?", chunks=6))
    model.on(
        "parser",
        (
            Reason("**Reading the parser**\n\nThe pattern only takes a-z; capitals get lost."),
            Run("ls -la && cat parser.py"),
        ),
        (say(FOUND, chunks=30), CallTool("update_plan", {"plan": PLAN}), Patch(PATCH)),
        Run(
            "python3 -c 'import parser; print(parser.count(\"Ada wrote\"))'",
            escalated=True,
            justification="The tests need to write their cache outside of the sandbox. Run them?",
        ),
        say(DONE, chunks=40),
    )
    model.on("install", (say("I need one package for that."), Run(
        "pip install --no-cache-dir 'regex==2026.11.3' && python3 -m pytest -q tests/ --maxfail=1",
        escalated=True,
        justification="Installing needs the network, which the sandbox doesn't have. May I?",
    )), say("Installed."))  # fmt: skip
    model.on("note", Run("echo approved | tee -a note.txt", escalated=True,
                         justification="It leaves a note."), say("The note is there."))  # fmt: skip
    model.on("patch", Patch(PATCH), say("Patched."))
    model.on("question", CallTool("request_user_input", QUESTION), say("Thank you."))
    model.on("form", CallTool("ask", {}, namespace="mcp__elicitor"), say("The form came back."))
    sentences = tuple(f"Sentence {n} of the story. " for n in range(20))
    model.on("story", Say(pace=pace, chunks=(*sentences, Hold("story"), "The end.")))
    model.on("long output", Run("for i in $(seq 1 400); do echo line $i of the output; done"),
             say("That was long."))  # fmt: skip
    model.on("colours", Run("printf '\\033[31mred\\033[0m \\033[1;32mbold green\\033[0m\\n'"),
             say("Seen."))  # fmt: skip
    model.on("hostile", say(HOSTILE, chunks=9))
    model.on("fail", Fail(400, "the model says no"))
    return model
