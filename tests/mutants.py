"""Faults put in at random into what guards and what keeps: which of them does no test notice?

    python -m tests.mutants [MODULE …]

runs mutmut over these modules (all of ``GUARDED`` without any), one after the other and in one
process, each with its own tests alone, in a copy of the tree. It prints every fault that went
through as a diff, and exits with 1 if there is one that isn't listed as harmless (``HARMLESS``).

Hands to: stdout. Hears from: ``make mutants``, which has mutmut in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent

MEMORY: Final = 4 * 1024**3
"""Bytes of address space that a process may have: ten times what the tests need. A fault that loops
and keeps what it makes would have the whole machine wait for memory."""

GUARDED: Final[dict[str, tuple[str, ...]]] = {
    "access.requests": ("tests/access/test_requests.py",),
    "storage.audit_log": ("tests/storage/test_audit_log.py",),
    "storage.audit_writer": ("tests/storage/test_audit_log.py",),
    "access.authentication": ("tests/access/test_authentication.py",),
    "access.auth_rules": ("tests/access/test_authentication.py",),
    "access.device": ("tests/access/test_devices.py",),
    "core.policy.approval_policy": (
        "tests/core/policy/test_approval_policy.py",
        "tests/core/features/approvals/test_voting.py",
    ),
    "core.policy.command_match": ("tests/core/policy/test_command_match.py",),
    "core.policy.directory_verdict": (
        "tests/core/policy/test_directory_verdict.py",
        "tests/core/features/requests/test_directory_clearance.py",
    ),
    "core.policy.scopes": ("tests/core/policy/test_scopes.py", "tests/core/test_broker_access.py"),
    "core.protocol.threads.thread_overrides": (
        "tests/core/protocol/threads/test_thread_overrides.py",
        "tests/core/policy/test_scopes.py",
    ),
    "access.devices": ("tests/access/test_devices.py",),
    "access.letters": ("tests/access/test_browser_pairing.py",),
    "access.public_key": ("tests/access/test_sessions.py", "tests/access/test_browser_pairing.py"),
    "access.sessions": ("tests/access/test_sessions.py",),
    "access.browser_pairing": ("tests/access/test_browser_pairing.py",),
    "downstream.http.origins": ("tests/downstream/http/test_origins.py",),
    "downstream.http.proxies": ("tests/downstream/http/test_proxies.py",),
    "access.throttle": ("tests/access/test_throttle.py",),
    "access.tickets": ("tests/access/test_pairing.py", "tests/access/test_browser_pairing.py"),
    "notices.lock_screen": ("tests/notices/test_lock_screen.py",),
    "notices.answer_tickets": ("tests/notices/test_answer_tickets.py",),
    "access.pairing": (
        "tests/access/test_pairing.py",
        "tests/access/test_browser_pairing.py",
        "tests/downstream/http/test_pairing_route.py",
    ),
    "downstream.http.post_routes": (
        "tests/downstream/http/test_post_routes.py",
        "tests/downstream/http/test_pairing_route.py",
    ),
    "posix.private_file": ("tests/posix/test_private_file.py",),
    "push.endpoints": ("tests/push/test_endpoints.py",),
    "push.services.fcm": ("tests/push/services/test_fcm.py",),
    "storage.journal_writer": (
        "tests/storage/test_journal.py",
        "tests/storage/test_journal_faults.py",
        "tests/storage/test_journal_writer.py",
    ),
    "storage.json_file": ("tests/storage/test_small_file.py", "tests/access/test_devices.py"),
    "storage.small_file": ("tests/storage/test_small_file.py", "tests/access/test_devices.py"),
    "storage.write_behind": (
        "tests/storage/test_write_behind.py",
        "tests/storage/test_audit_log.py",
        "tests/storage/test_small_file.py",
    ),
}
"""Each module with the tests that are to notice."""

HARMLESS: Final[tuple[tuple[str, str], ...]] = (
    (r"[\"']XX.*XX[\"']", "the words of an error or a log line; those that matter are tested"),
    (r"token_(urlsafe|hex)\(None\)", "32 bytes: as many or more"),
    (r"json\.dumps\(.*indent=", "how a file is laid out, for people"),
    (r"_unsaved_revocations\[.*\] = ", "a dictionary for its keys' order alone"),
    (r'decode\("(ASCII|LATIN-1|UTF-8)"', "the codec's other name"),
    (r"raise ValueError\(", "never shown: it says only that a token is refused"),
    (r"max_clock_skew_seconds or 1\)", "1 is as far from either bound as 0"),
    (r'"signed-bearer-token" or auth', "one without the other was refused before"),
    (r"HMACAlgorithm\(None\)", "the digest isn't used to judge a key"),
    (r"log\.debug\(None", "words for who looks for a fault"),
    (r"(answer|HttpResponse)\(.*, None, address", "only HEAD has no body, and these are POST's"),
    (r"receive_some\((None|2)\)", "how much of what is one word too many"),
    (r'"CACHE-CONTROL"', "HTTP names its headers in any case"),
    (r"ASKING\.index\(str\(requested\)\) >= ", "the same policy was answered before"),
    (r"_value\(fields\.get\(ROOTS, ", "none and null are read alike"),
    (r"attrs\.field\(.*reason", "done at the import, before a fault is put in"),
    (r"attrs\.field\(default=default, \)", "the same"),
    (r'float\("INF"\)', "the same in any case"),
    (r'("\*|\^!#\]"), "X"', "any letter stands for a star or a sign"),
    (r"converter = |converter\.register", "done at the import, before a fault is put in"),
    (r"DamagedError\(None\)", "known by its type; what it says isn't told"),
    (r"test\(status\.st_mode\)\), (None|[\"A-Z ]*)\)", "all that Linux has is among them"),
    (r"if not flags \| os\.O_CREAT", "to open what isn't there fails alike"),
    (r"begun\) \* 1001", "a thousandth more of a time for people"),
    (r"len\(self\._pending\) - self\._dropped", "the last flush has counted those"),
    (r"len\(text\) >= len\(whole\)", "nothing is cut off what is whole"),
    (r"size >= self\._size\)", "the same size was judged before"),
    (r"new = 1 if size", "1 is O_WRONLY, which it is opened with anyway"),
    (r"(strict=|adopt=|_head_owed = )None", "as false as False"),
    (r"\+    self\._saved = (None|-2)", "no number of an entry either"),
    (r'suspicion = ""', "as false as None"),
    (r"RESERVED / 2:", "it is even"),
    (r"\[0\] > limit:", "the query takes none of that moment"),
    (r"last >= reserved - RESERVED", "one of half a billion"),
    (r"max_bytes / (TRIMMED|FREE)_SHARE", "a part of a byte"),
    (r"if excess (< 0|<= 1):", "about so many bytes are to go: one more or less"),
    (r'rsplit\(b","', "what is split in vain is cut off behind it"),
    (r"- FREE - 1, 17\)", "2**16 times the first pause is far above the longest, too"),
)
"""Faults that change nothing that matters: what stands in the changed line, and why."""

COPIED: Final = ("docs", "contrib", "bench", "README.md", "Makefile", "constraints.txt")

SETTINGS: Final = """
[tool.mutmut]
source_paths = ["mux"]
only_mutate = ["mux/{file}"]
also_copy = {copied}
pytest_add_cli_args = [
    "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", "--hypothesis-profile=mutants",
]
timeout_multiplier = 6.0
timeout_constant = 2.0
pytest_add_cli_args_test_selection = {tests}
"""


def survivors(module: str) -> Iterator[tuple[str, str]]:
    """The faults in a module that went through: mutmut's name, and what was changed."""
    with tempfile.TemporaryDirectory(prefix="appmux-mutants-") as directory:
        tree = Path(directory)
        _copy(tree)
        tests = [each for each in GUARDED[module] if (ROOT / each).exists()]
        file = module.replace(".", "/") + ".py"
        with (tree / "pyproject.toml").open("a") as settings:
            settings.write(SETTINGS.format(file=file, copied=list(COPIED), tests=tests))
        ran = _mutmut(tree, "run", "--max-children", "1")
        if ran.returncode not in (0, 1):
            sys.exit(f"mutmut ended with {ran.returncode}:\n{ran.stdout[-2000:]}")
        found = _mutmut(tree, "results", "--all", "true").stdout.splitlines()
        states = [line.strip().partition(": ")[::2] for line in found if ": " in line]
        print(f"{len(states)} faults", flush=True)  # noqa: T201
        if not states or any(state == "not checked" for _, state in states):
            sys.exit(f"mutmut tried none, or not all:\n{ran.stdout[-2000:]}")
        for name, state in states:
            if state in ("survived", "no tests"):
                changed = _changed(_mutmut(tree, "show", name).stdout)
                if not _is_harmless(changed):
                    yield f"{name} ({state})", changed


def _copy(tree: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def _mutmut(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=tree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )


def _is_harmless(changed: str) -> bool:
    return any(re.search(pattern, changed) for pattern, _why in HARMLESS) or _is_case(changed)


def _is_case(changed: str) -> bool:
    """Whether only the case of an error's or a log line's words was changed, or of SQL's."""
    before, _, after = changed.partition("\n")
    alike = before.strip(" -+").casefold() == after.strip(" -+").casefold()
    if alike and re.search(r'"(DELETE|FROM|INSERT|PRAGMA|SELECT|UPDATE) [^\']*$', before):
        return True
    # Words of a text that goes over several lines stand on one of their own.
    return alike and any(sign in before for sign in ("Error(", "log.", '-            "'))


def _changed(diff: str) -> str:
    """The lines that differ, each with its sign."""
    lines = diff.splitlines()
    return "\n".join(
        f"  {line}" for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")
    )


def main() -> None:
    """Exits; never returns."""
    if importlib.util.find_spec("mutmut") is None:
        sys.exit("mutmut isn't installed here: `make mutants` has it")
    chosen = sys.argv[1:] or list(GUARDED)
    if unknown := [module for module in chosen if module not in GUARDED]:
        sys.exit(f"no such module: {', '.join(unknown)}; there are: {', '.join(GUARDED)}")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))  # of mutmut and its tests, too
    found = 0
    for module in chosen:
        print(f"== {module}", flush=True)  # noqa: T201
        for name, changed in survivors(module):
            found += 1
            print(f"{name}\n{changed}", flush=True)  # noqa: T201
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
