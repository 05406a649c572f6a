"""`crm token`: a token for one's own calls, in development alone."""

import os

import pytest
import typer
from chassis.clock import SystemClock
from chassis.connections.settings import TokenSettings
from chassis.privacy.tokens import verifier_of
from crm_cli import run_file, token
from typer.testing import CliRunner

APP = typer.Typer()
token.register(APP)
APP.command("other")(lambda: None)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """A data folder of its own, nothing said by the environment."""
    for name in [each for each in os.environ if each.startswith("CRM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRM_DATA", str(tmp_path))


def asked(*words):
    return CliRunner().invoke(APP, ["token", *words])


def test_a_token_is_accepted_where_it_was_issued(monkeypatch, tmp_path):
    monkeypatch.setenv("CRM_ENVIRONMENT", "development")
    issued = asked("--subject", "teller-7", "--post", "P1", "--role", "teller", "--role", "keeper")
    assert issued.exit_code == 0
    settings = TokenSettings(data=tmp_path, environment="development")
    caller = verifier_of(settings, SystemClock().now).verify(issued.stdout.strip())
    assert (caller.subject, caller.post, caller.roles) == ("teller-7", "P1", frozenset({"teller", "keeper"}))


def test_a_token_that_names_no_role_is_an_administrator_s(monkeypatch, tmp_path):
    monkeypatch.setenv("CRM_ENVIRONMENT", "development")
    settings = TokenSettings(data=tmp_path, environment="development")
    caller = verifier_of(settings, SystemClock().now).verify(asked().stdout.strip())
    assert caller.roles == {"administrator"}


@pytest.mark.parametrize(
    "words", [("--subject", "x" * 91), ("--subject", ""), ("--subject", "a\nb"), ("--post", "p" * 91)]
)
def test_a_token_that_would_be_refused_is_not_issued(monkeypatch, words):
    monkeypatch.setenv("CRM_ENVIRONMENT", "development")
    refused = asked(*words)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("environment", ["production", "staging", ""])
def test_no_token_is_issued_elsewhere(monkeypatch, tmp_path, environment):
    monkeypatch.setenv("CRM_ENVIRONMENT", environment)
    refused = asked()
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "no development token" in refused.stderr
    assert not (tmp_path / "keys").exists()


def test_without_a_setting_the_environment_of_the_running_processes_counts(monkeypatch, tmp_path):
    here = run_file.Process.of(os.getpid())
    run_file.write(tmp_path, run_file.Run(here, "http://127.0.0.1:1", "development", {}))
    assert asked().exit_code == 0
    monkeypatch.setenv("CRM_ENVIRONMENT", "production")
    assert asked().exit_code == 2
