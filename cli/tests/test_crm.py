"""`crm` itself: the table of commands says what the modules say, help is fast, and each ending has its code."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crm_cli import exits
from crm_cli.main import COMMANDS, loaded

DOCS = Path(__file__).parents[2] / "docs"
HELP_CPU_SECONDS_MAX = 0.4
WITHOUT_RESULT = {"crm up"}
NOT_ONE_OBJECT = {"crm replay"}


def crm(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "crm_cli.main", *arguments],
        env=os.environ
        | {"POSTGRES_URL": "postgresql://127.0.0.1:1/x", "CRM_ENVIRONMENT": "development"}
        | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def every_command():
    for name in COMMANDS:
        command = loaded(name)
        inner = getattr(command, "commands", {})
        if not inner or command.invoke_without_command:
            yield f"crm {name}", command
        for sub, one in inner.items():
            yield f"crm {name} {sub}", one


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_module_says(name):
    said = " ".join((loaded(name).help or "").split())
    assert said.startswith(COMMANDS[name])


def test_every_command_is_in_the_table():
    folder = Path(sys.modules["crm_cli.main"].__file__ or "").parent
    registering = {
        path.stem.replace("_", "-")
        for path in folder.glob("*.py")
        if re.search(r"^def register\(", path.read_text(), re.MULTILINE)
    }
    assert registering == set(COMMANDS)


def test_every_result_can_be_had_as_json():
    without = {
        name for name, command in every_command() if not any("--json" in one.opts for one in command.params)
    }
    assert without == WITHOUT_RESULT | NOT_ONE_OBJECT


def test_help_loads_no_command_and_is_fast():
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "sys.argv = ['crm', '--help']\n"
            "from crm_cli.main import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "print(time.process_time(), *sys.modules, file=sys.stderr)",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seconds, *modules = shown.stderr.split()
    assert float(seconds) < HELP_CPU_SECONDS_MAX
    assert not {"psycopg", "pydantic", "chassis", "pymongo", "rich"} & set(modules)
    assert all(f"\n  {name} " in shown.stdout for name in COMMANDS)


def test_help_has_a_short_form_everywhere_and_no_command_is_a_usage_error():
    assert crm("-h").stdout == crm("--help").stdout
    for name in ("ingest", "quarantine", "replay"):
        short = crm(name, "-h")
        assert (short.returncode, short.stdout) == (0, crm(name, "--help").stdout)
    assert crm().returncode == exits.USAGE
    unknown = crm("nothing-of-ours")
    assert (unknown.returncode, unknown.stdout) == (exits.USAGE, "")


def test_version_prints_the_version():
    said = crm("--version")
    assert said.returncode == 0
    assert re.fullmatch(r"crm \d+\.\d+\.\d+\n", said.stdout)


def test_names_and_options_are_completed():
    def completed(words: str, at: int) -> list[str]:
        more = {"_CRM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        return crm_installed(**more).stdout.split()

    assert completed("crm re", 1) == ["rebuild", "replay", "republish"]
    assert {"--context", "--since"} <= set(completed("crm replay --", 2))
    assert completed("crm quarantine re", 2) == ["release"]


def test_zsh_and_fish_complete_as_well():
    zsh = crm_installed(_CRM_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="crm sta")
    assert '"status"' in zsh.stdout
    fish = {"_CRM_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert "status" in crm_installed(**fish, _TYPER_COMPLETE_ARGS="crm sta").stdout
    for shell, line in {
        "bash": "complete -o default",
        "zsh": "#compdef crm",
        "fish": "complete --command crm",
    }.items():
        assert line in crm_installed(_CRM_COMPLETE=f"source_{shell}").stdout


def crm_installed(**more: str) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).parent / "crm"
    return subprocess.run(
        [program], env=os.environ | more, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [("--help",), ("ingest", "--help"), ("ingest",), ("status",)])
def test_nothing_is_coloured(arguments):
    nowhere = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=1"
    chosen = ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"})
    with ThreadPoolExecutor(len(chosen)) as at_once:  # `crm status` waits for Kafka, each time
        runs = list(at_once.map(lambda more: crm(*arguments, MONGO_URL=nowhere, **more), chosen))
    for more, shown in zip(chosen, runs, strict=True):
        assert "\x1b" not in shown.stdout
        assert more.get("FORCE_COLOR") or "\x1b" not in shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("certificate", "--source", "s"),
        ("ingest", "--source", "s", "nowhere.jsonl"),
        ("migrate",),
        ("quarantine", "list"),
        ("replay", "--context", "ingest"),
        ("republish", "--context", "ingest"),
        ("unpublishable", "list", "--context", "ingest"),
        ("unlinked",),
        ("timers", "list"),
        ("proposals", "list"),
        ("bulk", "list"),
        ("keys", "status"),
        ("demo", "--customers", "50", "--days", "100"),
    ],
)
def test_a_server_that_does_not_answer_is_reported_in_one_line_and_is_no_finding(arguments, tmp_path):
    ended = crm(*arguments, CRM_DATA=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (exits.USAGE, ""), ended.stderr
    assert "Traceback" not in ended.stderr
    assert f"crm {arguments[0]}: " in ended.stderr


@pytest.mark.parametrize("url", ["garbage", "http://127.0.0.1/", "postgresql://127.0.0.1:x/crm"])
def test_a_wrong_setting_is_reported_in_one_line(url, tmp_path):
    ended = crm("certificate", "--source", "s", CRM_DATA=str(tmp_path), POSTGRES_URL=url)
    assert (ended.returncode, ended.stdout) == (exits.USAGE, ""), ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_the_exit_codes_of_the_page_are_those_of_the_program():
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert told == {exits.OK, exits.WRONG, exits.USAGE, exits.RED, exits.INTERRUPTED}
    for named in re.findall(r"`crm ([a-z][a-z-]*)", page):
        assert named in COMMANDS


def test_a_result_that_is_a_token_can_be_json(tmp_path):
    made = crm("token", "--json", CRM_DATA=str(tmp_path))
    assert json.loads(made.stdout)["token"].count(".") == 2
