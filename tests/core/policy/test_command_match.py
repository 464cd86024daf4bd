"""Commands as rules see them: read completely, or looked through for a rule's words."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mux.core.policy.approval_policy import Policies, Rule
from mux.core.policy.command_match import LONGEST, MOST_TOKENS, is_plain, read, word_fits
from tests.core.stories import APPROVAL


def just(command: str, pattern: str) -> bool:
    return read(command).is_just(tuple(pattern.split()))


def may_run(command: str, pattern: str) -> bool:
    return read(command).may_run(tuple(pattern.split()))


# ── read completely ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("git status", ["git", "status"]),
        (" git\tstatus  -s ", ["git", "status", "-s"]),
        ("/bin/bash -lc 'git status'", ["git", "status"]),
        ("/usr/bin/zsh -c 'git status'", ["git", "status"]),
        ("/bin/bash -lc git", ["git"]),
        ("/bin/bash -lc \"git log --format='%h %s'\"", ["git", "log", "--format=%h %s"]),
        ("grep -r 'a | b; $(c)' src", ["grep", "-r", "a | b; $(c)", "src"]),
        ('echo "a b"c\'d\' ""', ["echo", "a bcd", ""]),
        ("git add a.py b_c-d+e,f@g:h%i=j/k", ["git", "add", "a.py", "b_c-d+e,f@g:h%i=j/k"]),
        ("'git' \"status\"", ["git", "status"]),
    ],
)
def test_a_simple_command_is_its_words(command: str, argv: list[str]) -> None:
    assert read(command).argv == tuple(argv)


@pytest.mark.parametrize(
    "command",
    [
        # before it
        "PATH=/tmp/evil git status", "LD_PRELOAD=/tmp/x.so git status", "A+=1 git status",
        "! git status", "time git status", "exec git status", "command git status",
        "if git status", "\\git status", ">o git status", "noglob git status",
        # around it
        "(git status)", "{ git status; }", "$(git status)", "`git status`",
        "bash -c 'git status'", "/bin/bash --norc -c 'git status'", "/bin/bash -x -lc 'git status'",
        "/tmp/bash -lc 'git status'", "./bash -lc 'git status'", "bash -lc 'git status'",
        "/bin/bash -lc 'git status' x", "/bin/bash -lc", "env git status", "sudo git status",
        # beside it
        "git status; rm x", "git status && rm x", "git status || rm x", "git status & rm x",
        "git status | sh", "git status\nrm x", "git status\r\nrm x", "git status\n",
        "git status > f", "git status >> f", "git status < f", "git status 2>&1", "git status &",
        "git status $(rm x)", "git status `rm x`", "git status <(rm x)", "git status # x",
        # what becomes something else
        "git status $x", "git status ${x}", 'git status "$x"', "git status *", "git status a?",
        "git status [a]", "git status {a,b}", "git status ~", "git status !x", "git status ^x",
        "git status \\\n -s", "git status a\\ b", 'git status "\\a"', "git status $'x'",
        "git status =ls", 'git status "`x`"', "git status 'a\nb'", "git status 'a", "git 'status",
        "git\u00a0status", "git\u3000status", "git status \u00e9", "git\x0bstatus",
        "git \x00status",
        "", " ", "x" * (LONGEST + 1),
    ],
)  # fmt: skip
def test_what_is_more_than_a_simple_command_is_no_lax_rules(command: str) -> None:
    assert not just(command, "git status")
    strict = Policies("quorum", rules=(Rule("first", command="git status"),))
    assert strict.of(APPROVAL, command).quorum == 2


@pytest.mark.parametrize(
    ("command", "pattern", "is_it"),
    [
        ("git status", "git status", True),
        ("git status -s", "git status", True),
        ("git statuses", "git status", False),
        ("git statuses", "git status*", True),
        ("git", "git status", False),
        ("Git status", "git status", False),
        ("git -C x status", "git * * status", True),
        # by its name it's the one that is found by it, and by its path that one alone
        ("/usr/bin/git status", "git status", False),
        ("./git status", "git status", False),
        ("/usr/bin/git status", "/usr/bin/git status", True),
        ("git status", "/usr/bin/git status", False),
        ("/tmp/git status", "/usr/bin/git status", False),
        ("./git status", "./git status", False),
        ("bin/git status", "bin/git status", False),
        ("/usr/bin/git", "/usr/bin/*", True),
        ("/usr/bin/../../tmp/git", "/usr/bin/*", False),
        ("/usr/bin/x/git", "/usr/bin/*", False),
        ("/usr/bin/..", "/usr/bin/*", False),
        ("/usr/./git", "/usr/*/git", False),
        ("/usr/bin/git", "/usr/*/git", True),
        ("./git", "*", False),
        ("git", "*", True),
    ],
)
def test_whether_it_is_what_a_lax_rule_names(command: str, pattern: str, is_it: bool) -> None:
    assert just(command, pattern) is is_it


NASTY = "git status-s /.\t\n'\"\\$`;|&<>(){}[]*?~#!=%^,é\u00a0A"


@given(st.text(alphabet=NASTY, max_size=30).map("git ".__add__) | st.text(max_size=40))
@settings(max_examples=500)
def test_a_shell_is_given_just_the_words_that_were_read(command: str) -> None:
    argv = read(command).argv
    if argv is not None:
        assert tuple(shlex.split(command, posix=True)) == argv
        strict = Policies("quorum", rules=(Rule("first", command="git status"),))
        if strict.of(APPROVAL, command).is_first:
            assert argv[:2] == ("git", "status")


SHELLS = [path for name in ("bash", "dash", "zsh") if (path := shutil.which(name))]
ORACLE = "git() { printf '%s\\0' git \"$@\"; }\n"


@pytest.mark.parametrize("shell", SHELLS)
@given(texts=st.lists(st.text(alphabet=NASTY, max_size=12), min_size=40, max_size=40))
@settings(max_examples=8, deadline=None)
def test_real_shells_read_the_same(shell: str, texts: list[str]) -> None:
    """Each is to print the words that its `git` was given, and nothing else is to happen."""
    read_completely = [f"git {text}" for text in texts if read(f"git {text}").argv is not None]
    read_completely.append("git 'a;b' \"c d\" e=f")
    script = ORACLE + "\n".join(f"{each}\nprintf '\\1'" for each in read_completely)
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, check=True, timeout=60, cwd="/"
    )
    told = [part.split("\0")[:-1] for part in done.stdout.decode().split("\1")[:-1]]
    assert told == [list(read(each).argv or ()) for each in read_completely]


# ── looked through ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    [
        "git push", "/usr/bin/git push -f", "git \\\n push", "git \\\r\n push", "gi\\\nt push",
        ">o git push", "2>/dev/null git push", "bash -e -c 'git push'",
        "bash -o pipefail -c 'git push'", "eval git push", "eval 'git push'", "env A=1 git push",
        "env -S 'git\\_push'", "env -i git push", "xargs git push", "echo push | xargs git",
        "sudo -u x git push", "command git push", "nohup git push &", "timeout 5 git push",
        "nice git push", "$'\\x67it' push", "{git,push}", "gi{t,} push", "alias g='git push'; g",
        "alias g=git; g push", "g'i't pu\"s\"h", "\\g\\it push", "(git push)", "{ git push; }",
        "if git push; then :; fi", "while ! git push; do :; done", "x=git; $x push",
        "echo $(git push)", "`git push`", "cd /x&&git push", "git -C x push", "git --no-pager push",
        "git -c a=b push", "/usr/bin/g?t push", "g[i]t push", "/*/bin/g*t push", "g* p*", "*",
        "GIT push", "echo Z2l0IHB1c2g= | base64 -d | sh", "echo x | bash -s", "bash < f",
        "bash <<E\nx\nE", "echo x | /bin/zsh", "echo x | bash +x", "bash /dev/stdin <<<x",
        "python3 -c 'import os; os.system(\"git push\")'", "perl -e 'system\"git push\"'",
        "python3 -c 'subprocess.run([\"git\", \"push\"])'", "ssh h git push",
        "find . -exec git push",
        "make x; git push", "git push # x", "coproc git push", "time git push", "! git push",
        "hash -p /usr/bin/git x; x push", "=git push", "/usr/bin/g(i|o)t push", "x" * (LONGEST + 1),
        ";".join(f"a{n}" for n in range(MOST_TOKENS + 1)),
    ],
)  # fmt: skip
def test_a_strict_rule_holds_wherever_its_words_could_be_run(command: str) -> None:
    strict = Policies(rules=(Rule("quorum", command="git push"),))
    assert strict.of(APPROVAL, command).quorum == 2
    shown = shlex.join(["/bin/bash", "-lc", command])
    assert strict.of(APPROVAL, shown).quorum == 2
    assert strict.of(APPROVAL, f"/opt/bin/bash -lc {shlex.quote(command)}").quorum == 2


@pytest.mark.parametrize(
    "command",
    [
        "git status", "ls", "push git", "git pusher", "digit push", "cat *.py", "make test 2>&1",
        "cd x && cargo build --release | tail -5", "grep -r 'push' src", "bash scripts/test.sh",
        "/bin/bash -lc 'bash -c ls'", "git commit -m 'it is done'",
        "find . -name '*.rs' -exec ls {} +",
        "echo 'a\nb' >f", "", ";;",
    ],
)  # fmt: skip
def test_a_strict_rule_leaves_alone_what_is_plainly_something_else(command: str) -> None:
    assert not may_run(command, "git push")
    assert Policies(rules=(Rule("quorum", command="git push"),)).of(APPROVAL, command).is_first


@pytest.mark.parametrize(
    ("command", "pattern", "may"),
    [
        ("git push", "/usr/bin/git push", True),  # which one, nobody knows
        ("/opt/git push", "/usr/bin/git push", True),
        ("npm run build:prod", "npm run build:prod", True),
        ("npm run build", "npm run build:prod", False),
        ("make deploy-prod", "make deploy*", True),
        ("make d*", "make deploy*", True),
        ("make x*", "make deploy*", False),
        ("make deploy-p?od", "make deploy*", True),
        ("gitx* push", "git push", False),
        ("g*it push", "git push", True),
        ("g*xt push", "git push", False),
        ("cat /tmp/key", "cat /etc/key", False),  # where what isn't a program stands, matters
        ("rm x", "rm", True),
        ("docker rm x", "rm", True),  # for all we know, docker could be another `sudo`
        ("form x", "rm", False),
    ],
)
def test_whether_a_strict_rules_words_are_there(command: str, pattern: str, may: bool) -> None:
    assert may_run(command, pattern) is may


WRAPPED: list[Callable[[str], str]] = [
    lambda it: f"sudo {it}",
    lambda it: f"env A=1 {it}",
    lambda it: f"nohup {it} &",
    lambda it: f">out {it} 2>&1",
    lambda it: f"cd /; {it}",
    lambda it: f"true && {it} || false",
    lambda it: f"({it})",
    lambda it: f"{{ {it}; }}",
    lambda it: f"if {it}; then ls; fi",
    lambda it: f"echo $({it})",
    lambda it: f"bash -e -c {shlex.quote(it)}",
    lambda it: f"/opt/bin/zsh -lc {shlex.quote(it)}",
    lambda it: shlex.join(["/bin/bash", "-lc", it]),
    lambda it: f"eval {shlex.quote(it)}",
    lambda it: f"ssh host {shlex.quote(it)}",
    lambda it: f"alias x={shlex.quote(it)}; x",
    lambda it: f"python3 -c 'import os; os.system({it!r})'",
    lambda it: f"ls | xargs {it}",
    lambda it: f"timeout 5 \\\n {it}",
    lambda it: f"{it} | tee log",
    lambda it: f"/usr/bin/{it}",
]
SPELT = [
    "git push", "git \\\n push", "gi\\\nt push", "g'i't push", "\\g\\i\\t \"pu\"sh",
    "git -C x push -f",
    "/usr/bin/git   push", "g?t push", "'git' 'push'", "git --no-pager \t push",
]  # fmt: skip


@given(st.sampled_from(SPELT), st.lists(st.sampled_from(WRAPPED), max_size=5))
@settings(max_examples=500)
def test_a_strict_rule_holds_whatever_is_put_around(
    command: str, wrapped: list[Callable[[str], str]]
) -> None:
    for each in wrapped:
        command = each(command)
    strict = Policies(rules=(Rule("first", command="ls"), Rule("quorum", command="git push")))
    assert strict.of(APPROVAL, command).quorum == 2, command
    lax = Policies("quorum", rules=(Rule("first", command="git push"),))
    if lax.of(APPROVAL, command).is_first:
        assert (read(command).argv or ())[:2] == ("git", "push")


@given(st.text(alphabet=NASTY, max_size=20), st.text(alphabet=NASTY, max_size=20))
def test_what_stands_beside_it_hides_nothing(before: str, after: str) -> None:
    """Whatever that is, if it is set off by a blank."""
    assert may_run(f"{before} git push {after}", "git push")


# ── patterns ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pattern", "plain"),
    [
        ("git push", True), ("git * push*", True), ("/usr/bin/git", True), ("npm run a:b", True),
        ("bash", True), ("bash x.sh", True), ("make CC=gcc", True), ("*", True),
        ("a && b", False), ("a;b", False), ("'a b'", False), ("a\\b", False), ("$x", False),
        ("a >b", False), ("A=1 b", False), ("exec b", False), ("bash -lc x", False), ("", False),
        ("bash -c", False), ("bash -l*c x", False), ("bash -x", True), ("/bin/sh -c x", False),
        ("(a)", False), ("`a`", False),
    ],
)  # fmt: skip
def test_what_a_rule_may_name(pattern: str, plain: bool) -> None:
    assert is_plain(pattern) is plain
    if plain:  # then it fits itself
        command = pattern.replace("*", "x")
        assert may_run(command, pattern)
        assert just(command, pattern)


@pytest.mark.parametrize(
    ("word", "pattern", "does"),
    [
        ("", "", True), ("", "*", True), ("abc", "*", True), ("abc", "a*c", True),
        ("abc", "a*b", False), ("aa", "a*a", True), ("a", "a*a", False), ("abcbc", "a*bc*bc", True),
        ("abc", "a*bc*bc", False), ("a.c", "a?c", False), ("[a]", "[a]", True),
    ],
)  # fmt: skip
def test_a_star_stands_for_any_characters(word: str, pattern: str, does: bool) -> None:
    assert word_fits(word, pattern) is does


@given(st.text(max_size=80), st.sampled_from(["git push", "*", "a*b c", "/x/*"]))
def test_any_text_can_be_judged(text: str, pattern: str) -> None:
    reading = read(text)
    words = tuple(pattern.split())
    assert reading.may_run(words) or not reading.is_just(words)


@pytest.mark.parametrize(
    "text",
    [
        "A=" * (LONGEST // 2), "bash -c " * (LONGEST // 8), "'" * LONGEST,
        "'a'" * (LONGEST // 3) + "|",
        "a " * (LONGEST // 2), "\\" * LONGEST, "\\\n" * (LONGEST // 2), "*" * LONGEST,
        "{" * LONGEST,
        "/bin/bash -lc '" + "a" * (LONGEST - 20) + "'", "sh " * (LONGEST // 3),
        "- " * (LONGEST // 2),
        "a" * (LONGEST - 1) + "(", "* " * (MOST_TOKENS // 2),
    ],
)  # fmt: skip
def test_hostile_texts_cost_little(text: str) -> None:
    rules = tuple(Rule("quorum", command=f"*{n}*a git* push{n}") for n in range(100))
    assert lines_run(lambda: Policies(rules=rules).of(APPROVAL, text)) < MOST_LINES
    assert lines_run(lambda: word_fits("a" * LONGEST, "*a" * 50 + "*b")) < MOST_LINES


MOST_LINES = 10 * MOST_TOKENS * 100
"""Of ours that run: some for each of the tokens and each of a hundred rules."""


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python some work takes: how much it is, on any machine."""
    count = 0

    def trace(_frame: FrameType, event: str, _of: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


# ── single rules of the reading ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("command", "unsure"),
    [
        # expansions that make words of their own
        ("ls `whoami`", True), ("ls {,x}", True), ("ls {a,{b}}", True), ("ls {a}{b,c}", True),
        ("ls {1..3}", True),
        # commas and braces that don't
        ("ls a,b c", False), ("ls ,{b}", False), ("ls a,b {c}", False), ("ls {a} b,c", False),
        # `env` that splits a text into words, and that doesn't; others' flags of that name
        ("env --split-string=a", True), ("env -S a", True), ("env -i ls", False),
        ("env ls", False), ("git log --stat", False), ("ls -S", False),
        (" ".join(["a"] * MOST_TOKENS), False), (" ".join(["a"] * (MOST_TOKENS + 1)), True),
    ],
)  # fmt: skip
def test_what_could_run_words_that_dont_stand_there(command: str, unsure: bool) -> None:
    """Then a strict rule holds, whatever it names."""
    assert may_run(command, "rm") is unsure


@pytest.mark.parametrize("command", ["if x", "time git", "A=1 x", "A= x", "x =ls"])
def test_a_word_that_means_more_to_a_shell_makes_it_no_simple_command(command: str) -> None:
    assert read(command).argv is None


@pytest.mark.parametrize(
    ("word", "pattern", "does"),
    [
        ("aXbYc", "a*b*b*c", False), ("aXbYbc", "a*b*b*c", True), ("abcbd", "a*b*c*d", True),
        ("a", "*a*", True), ("ab", "ab*b*", False), ("abb", "ab*b*", True),
    ],
)  # fmt: skip
def test_each_piece_between_stars_stands_behind_the_one_before(
    word: str, pattern: str, does: bool
) -> None:
    assert word_fits(word, pattern) is does
