"""`crm panorama` as somebody at a terminal uses it."""

import pytest
import typer
from crm_cli import panorama
from typer.testing import CliRunner

APP = typer.Typer()
APP.callback()(lambda: None)
panorama.register(APP)


@pytest.mark.parametrize("month", ["foo", "2026", "2026-13", "2026-1", "2026-01\n", "２０２６-01", ""])
def test_an_invalid_month_is_refused_before_any_query(month):
    done = CliRunner().invoke(APP, ["panorama", "--reference", "branch:P1", "--month", month])
    assert done.exit_code == 2
    assert "a month is YYYY-MM" in done.stderr
