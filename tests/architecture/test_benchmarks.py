"""Benchmarks are measured apart from the tests, but each of them can start."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_knows_the_names_that_it_uses(benchmark: Path) -> None:
    done = subprocess.run(
        [sys.executable, benchmark, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_a_first_load_of_too_few_customers_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS[0].parent)
    first_load = import_module("first_load")
    for looks in (1, first_load.LOOKS_MIN - 1):
        with pytest.raises(first_load.TooFewCustomers):
            first_load.registered_a_second([(5.0, 120)] * looks)
    enough = [(look / 10, 100 * look) for look in range(first_load.LOOKS_MIN)]
    assert first_load.registered_a_second(enough) == pytest.approx(1_000 / first_load.EVENTS_EACH)
