"""Where a setting comes from, which source wins, and what a wrong one is told."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mux.config import proxies
from mux.config.bounds import BOUNDS
from mux.config.load import ConfigError, load, recall
from mux.config.model import FLAGS, Apns, Auth, Config, Log, Push, leaves, sections, tables
from mux.config.values import toml_value
from mux.core.policy.approval_policy import Policies, Rule


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def complaint(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags, environ, file)
    assert caught.value.exit_status == 1
    return str(caught.value)


def test_defaults() -> None:
    settled = load({}, {})
    assert settled.config == Config()
    assert settled.config.listen == ("unix://", "ws://127.0.0.1:14500")
    assert settled.config.state_dir.name == "appmux"
    assert settled.file is None
    assert set(settled.origins.values()) == {"default"}
    assert set(settled.origins) == set(leaves())


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'codex_args = ["a"]\n[limits]\nin_flight = 1\nin_flight_per_client = 1\n'
        '[log]\nlevel = "error"\n[upstream]\nclient_name = "from-file"\n',
    )
    environ = {
        "APPMUX_LIMITS_IN_FLIGHT": "2",
        "APPMUX_LOG_LEVEL": "warning",
        "APPMUX_LISTEN": "",
        "HOME": "x",
    }
    settled = load({"log.level": "debug", "listen": (), "codex_bin": None}, environ, file)
    assert settled.config.log.level == "debug"
    assert settled.config.limits.in_flight == 2
    assert settled.config.upstream.client_name == "from-file"
    assert settled.config.codex_args == ("a",)
    assert settled.config.listen == Config().listen
    assert settled.origins["log.level"] == "flag --log-level"
    assert settled.origins["limits.in_flight"] == "environment APPMUX_LIMITS_IN_FLIGHT"
    assert settled.origins["upstream.client_name"] == f"file {file}"
    assert settled.origins["listen"] == "default"


def test_environment_has_every_type() -> None:
    config = load(
        {},
        {
            "APPMUX_LISTEN": "ws://127.0.0.1:0, unix:///run/x.sock",
            "APPMUX_CODEX_ARGS": "-c 'a = \"b c\"'",
            "APPMUX_CODEX_BIN": "/opt/codex",
            "APPMUX_STATE_DIR": "/var/lib/x",
            "APPMUX_AUTH_MODE": "signed-bearer-token",
            "APPMUX_AUTH_MAX_CLOCK_SKEW_SECONDS": "0",
            "APPMUX_LIMITS_REQUEST_DEADLINE": "1.5",
            "APPMUX_UPSTREAM_REQUEST_ATTESTATION": "yes",
        },
    ).config
    assert config.listen == ("ws://127.0.0.1:0", "unix:///run/x.sock")
    assert config.codex_args == ("-c", 'a = "b c"')
    assert config.codex_bin == Path("/opt/codex")
    assert config.state_dir == Path("/var/lib/x")
    assert config.auth == Auth(mode="signed-bearer-token", max_clock_skew_seconds=0)
    assert config.limits.request_deadline == 1.5
    assert config.upstream.request_attestation is True


def test_paths_are_taken_from_where_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()
    file = write(tmp_path / "etc", 'state_dir = "state"\n[auth]\ntoken_file = "~/token"\n')
    flags = {"auth.shared_secret_file": Path("secret"), "codex_bin": "codex-nightly"}
    config = load(flags, {}, file).config
    assert config.state_dir == tmp_path / "etc" / "state"
    assert config.auth.token_file == tmp_path / "home" / "token"
    assert config.auth.shared_secret_file == tmp_path / "secret"
    assert config.codex_bin == Path("codex-nightly")  # a command on PATH, not a file here


def test_the_platforms_file_is_read_if_there_is_one(tmp_path: Path) -> None:
    where = tmp_path / "home" / "appmux"
    where.mkdir(parents=True)
    write(where, '[log]\nformat = "json"\n')
    settled = load({}, {})
    if settled.file is None:
        pytest.skip("this platform keeps configuration elsewhere")
    assert settled.config.log == Log(format="json")
    assert settled.origins["log.format"] == "file ~/appmux/config.toml"


def test_environment_can_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[log]\nlevel = "debug"\n')
    assert load({}, {"APPMUX_CONFIG": str(file)}).config.log.level == "debug"
    assert "doesn't exist" not in complaint({}, {"APPMUX_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('lisen = ["unix://"]', "lisen: unknown key; did you mean listen?"),
        (
            "[limits]\nin_fligth = 3",
            "limits.in_fligth: unknown key; did you mean limits.in_flight?",
        ),
        ("[wholly]\nother = 3", "wholly: unknown key; `appmux config` prints every key"),
        ('"a.b" = 3', "a.b: unknown key"),
        ('[limits]\n"" = 3', "limits.: unknown key"),
        ('listen = "unix://"', 'listen: expected a list of at least one URL, as ["unix://",'),
        ("listen = []", "listen: expected a list of at least one URL"),
        *(
            (
                f"[web]\ntrusted_proxies = {each}",
                f"web.trusted_proxies: expected {proxies.EXPECTED}",
            )
            for each in (
                "'127.0.0.1'",
                "['proxy.example']",
                "['10.0.0.1/8']",
                "['0.0.0.0/0']",
                "['::/0']",
                "['::ffff:10.0.0.1']",
                "['127.0.0.1:80']",
                "['[::1]']",
                "['']",
                "[1]",
            )
        ),
        ("codex_args = [1]", "codex_args: expected a list of texts, found a list"),
        ("state_dir = 3", "state_dir: expected a path, found 3"),
        ('state_dir = ""', 'state_dir: expected a path, found ""'),
        ("limits = 3", "limits: expected a table, found 3"),
        ("[push]\napns = 3", "push.apns: expected a table, found 3"),
        ('[push.apns]\ntopik = "x"', "push.apns.topik: unknown key; did you mean push.apns.topic?"),
        ('[push]\n"apns.topic" = 3', "push.apns.topic: expected a text that isn't empty"),
        ("[push.appns]\ntopic = 3", "push.appns: unknown key; did you mean push.apns?"),
        ("[log.level]\nx = 1", 'log.level: expected one of "debug", "info", "warning", "error",'),
        ('[log]\nlevel = "loud"', 'found "loud"'),
        (
            '[limits]\nin_flight = "64"',
            'limits.in_flight: expected a whole number of at least 1 and at most 128, found "64"',
        ),
        ("[limits]\nin_flight = true", "at most 128, found true"),
        ("[limits]\nin_flight = 1.0", "at most 128, found 1.0"),
        ("[limits]\nin_flight = 0", "at most 128, found 0"),
        ("[limits]\nin_flight = 129", "at most 128, found 129"),
        ("[limits]\nmessage_bytes = -1", "a whole number of at least 1, found -1"),
        ("[limits]\ndrain = 0", "a number of seconds above 0 and at most 604800, found 0"),
        ("[limits]\ndrain = nan", "found nan"),
        ("[limits]\ndrain = inf", "found inf"),
        ('[upstream]\nclient_name = "a b"', "1 to 64 letters, digits, dots, dashes or underscores"),
        ('[upstream]\nrequest_attestation = "no"', "expected true or false"),
        ('[auth]\nissuer = ""', "auth.issuer: expected a text that isn't empty"),
        ("listen = [", "is not TOML"),
        (
            "[limits]\nin_flight_per_client = 65",
            "limits.in_flight_per_client (65) must not be greater than limits.in_flight (64)",
        ),
    ],
)
def test_a_wrong_file_is_told_what_was_expected(tmp_path: Path, text: str, told: str) -> None:
    file = write(tmp_path, text)
    said = complaint({}, {}, file)
    assert told in said
    if "must not be" not in told:
        assert said.startswith(f"file {file}: ")


RULES = """
[approvals]
policy = "owner"
[[approvals.rules]]
policy = "quorum"
command = "git push"
[[approvals.rules]]
policy = "local"
method = "item/fileChange/requestApproval"
"""


def test_rules_are_tables_in_the_file_and_a_list_elsewhere(tmp_path: Path) -> None:
    rules = (
        Rule("quorum", command="git push"),
        Rule("local", method="item/fileChange/requestApproval"),
    )
    settled = load({}, {}, write(tmp_path, RULES))
    assert settled.config.approvals == Policies("owner", rules=rules)
    shown = toml_value(settled.config.approvals.rules)
    again = load({}, {"APPMUX_APPROVALS_RULES": shown})
    assert again.config.approvals.rules == rules
    again = load({}, {}, write(tmp_path, f"approvals.rules = {shown}"))
    assert again.config.approvals.rules == rules


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ('"first"', 'approvals.rules: expected a list of tables, as [{policy = "quorum"'),
        ("[1]", "approvals.rules[1]: expected a table with at least `policy`"),
        ("[{}]", 'approvals.rules[1].policy: expected one of "first", "owner", "local", "quorum"'),
        ('[{policy = "first"}, {policy = "two"}]', "approvals.rules[2].policy: expected one of"),
        ('[{policy = "first", comand = "x"}]', ".comand: unknown key; did you mean command?"),
        ('[{policy = "quorum", quorum = 1}]', "[1].quorum: expected a whole number of at least 2"),
        ('[{policy = "local", quorum = 2}]', ".quorum: means something with policy ="),
        ('[{policy = "local", command = " "}]', ".command: expected a text that isn't empty"),
        ('[{policy = "local", command = "a && b"}]', ".command: expected the first words of one"),
        ('[{policy = "local", command = "bash -lc x"}]', "assignments or `sh -c`"),
        ('[{policy = "local", method = 3}]', ".method: expected a text"),
        (
            '[{policy = "local", method = "item/fileChanges/requestApproval"}]',
            "no approval is called so; did you mean item/fileChange/requestApproval?",
        ),
        (
            '[{policy = "quorum", method = "item/tool/requestUserInput"}]',
            "[1].policy: a question is no permission",
        ),
    ],
)
def test_a_wrong_rule_is_told_where_and_what(tmp_path: Path, rules: str, told: str) -> None:
    said = complaint({}, {}, write(tmp_path, f"approvals.rules = {rules}"))
    assert told in said
    assert said.startswith("file ")
    assert told in complaint({}, {"APPMUX_APPROVALS_RULES": rules})


def test_all_wrong_keys_are_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "nope = 1\n[limits]\ndrain = false\n")
    said = complaint({"log.level": "x"}, {"APPMUX_LIMITS_HELD_EARLY": "many"}, file)
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        f"file {file}",
        "environment APPMUX_LIMITS_HELD_EARLY",
        "flag --log-level",
        f"file {file}",
    ]


def test_wrong_tables_and_variables_are_told_with_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path, 'listten = []\nlimits = 3\n[aprovals]\npolicy = "first"\n')
    said = complaint({}, {"APPMUX_LIMITS_DRAN": "3", "APPMUX_LOG_LEVEL": "loud"}, file)
    assert said.splitlines() == [
        f"file {file}: limits: expected a table, found 3",
        "environment APPMUX_LIMITS_DRAN: no such setting; did you mean APPMUX_LIMITS_DRAIN?",
        f"file {file}: aprovals: unknown key; did you mean approvals?",
        f"file {file}: listten: unknown key; did you mean listen?",
        'environment APPMUX_LOG_LEVEL: log.level: expected one of "debug", "info", "warning",'
        ' "error", found "loud"',
    ]
    gone = tmp_path / "gone.toml"
    said = complaint({}, {"APPMUX_LOG_LEVEL": "loud"}, gone)
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        f"file {gone}", "environment APPMUX_LOG_LEVEL",
    ]  # fmt: skip


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in complaint({}, {}, tmp_path / "none.toml")
    assert "Is a directory" in complaint({}, {}, tmp_path)
    (tmp_path / "latin").write_bytes(b'state_dir = "\xe9"')
    assert "is not UTF-8, at byte 13" in complaint({}, {}, tmp_path / "latin")


def test_a_secret_in_the_wrong_place_is_not_printed(tmp_path: Path) -> None:
    file = write(tmp_path, '[auth]\ntoken_sha256 = ["hunter2"]\ntoken = "hunter2"\n')
    said = complaint({}, {}, file)
    assert "hunter2" not in said
    assert "auth.token:" in said
    assert "auth.token_sha256:" in said


def test_a_slip_in_a_variable_is_told_but_other_peoples_variables_are_theirs() -> None:
    said = complaint({}, {"APPMUX_LIMITS_INFLIGHT": "3"})
    assert said == (
        "environment APPMUX_LIMITS_INFLIGHT: no such setting; did you mean APPMUX_LIMITS_IN_FLIGHT?"
    )
    assert load({}, {"APPMUX_TOKEN": "mine", "APPMUXX": "1"}).config == Config()


def test_every_bound_and_flag_belongs_to_a_setting() -> None:
    assert set(BOUNDS) <= set(leaves())
    assert set(FLAGS) <= set(leaves())
    variables = [leaf.variable for leaf in leaves().values()]
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize("prefix", tables())
def test_every_setting_has_its_reason(prefix: str) -> None:
    for field in attrs.fields(tables()[prefix]):
        key = prefix + field.name
        assert field.metadata.get("reason") or key in sections(), key


def test_a_table_in_a_table(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[push]\ntimeout = 3\n[push.apns]\nkey_file = "a.p8"\ntopic = "org.app"\n'
    )
    settled = load({}, {"APPMUX_PUSH_APNS_KEY_ID": "ABC"}, file)
    apns = Apns(key_file=tmp_path / "a.p8", topic="org.app", key_id="ABC")
    assert settled.config.push == Push(timeout=3.0, apns=apns)
    assert settled.origins["push.apns.key_id"] == "environment APPMUX_PUSH_APNS_KEY_ID"


def test_every_default_passes_the_checks_that_a_given_value_must_pass(tmp_path: Path) -> None:
    settled = load({}, {})
    lines = [
        f"{key} = {toml_value(value)}" for key, value, _ in settled.items() if value is not None
    ]
    again = load({}, {}, write(tmp_path, "\n".join(lines)))
    assert again.config == settled.config


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_texts_survive_toml(text: str) -> None:
    assert tomllib.loads(f"a = {toml_value(text)}") == {"a": text}


@given(
    st.dictionaries(
        st.sampled_from([*leaves(), "limits", "auth", "x", "limits.x", "auth.token"]),
        st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.lists(st.text())),
    )
)
def test_whatever_stands_in_the_file_it_is_settled_or_told(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    """Nothing but ConfigError comes out, and it names a key."""
    plain = {key: value for key, value in values.items() if key not in ("limits", "auth")}
    quoted = [f"{key} = {toml_value(value)}" for key, value in plain.items()]
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text("\n".join(quoted), encoding="utf-8", errors="replace")
    told = None
    try:
        load({}, {}, file)
    except ConfigError as error:
        told = str(error)
    if told is None:
        assert set(plain) <= set(leaves())
    else:
        assert any(key in told for key in plain)


# -- settings that a broker was started with -------------------------------------------------------


def test_settings_are_recalled_as_they_were_given(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'listen = ["unix://x.sock"]\n[auth]\nmode = "device-token"\n[tls]\ncert = "c.pem"\n'
        '[[approvals.rules]]\npolicy = "quorum"\ncommand = "git push"\n',
    )
    flags = {"listen": ("ws://127.0.0.1:1", "unix://")}
    settled = load(flags, {"APPMUX_LOG_LEVEL": "debug"}, file)
    recalled = recall(json.loads(json.dumps(settled.to_json(), default=str)))
    assert recalled is not None
    assert recalled.config == settled.config
    assert recalled.origins == settled.origins
    assert recalled.file == file
    assert settled.differing(recalled) == []
    assert load({}, {}, file).differing(recalled) == ["listen", "log.level"]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"file": None, "given": None},
        {"file": None, "given": {"listen": 1}},
        {"file": None, "given": {"listen": [1, 2, 3]}},
        {"file": None, "given": {"listen": ["x", "flag"]}},
        {"file": None, "given": {"something_newer": [1, "file"]}},
    ],
)
def test_what_another_version_wrote_is_not_recalled(document: object) -> None:
    assert recall(document) is None
