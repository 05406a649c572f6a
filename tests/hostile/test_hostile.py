"""Hostile deliveries leave the ledger that the model says, for thousands of seeds; a fault that was there once is found.

A seed is replayed by `python -m tests.hostile.run SEED SEED+1`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chassis.process.roles import migrate_databases
from sync_ingest.opening import TABLES
from sync_ingest.runs.ingest import Ingest
from sync_ingest.settings import SyncIngestSettings

from tests.hostile.faults import FAULTS, ROOT, Fault
from tests.hostile.playing import hands, play
from tests.hostile.run import databases, hostile_settings

SEEDS = 2_000
SEEDS_AT_ONCE = 100
SEEDS_UNTIL_FOUND_MAX = 400
SECONDS_MAX = 240


@pytest.fixture(scope="module")
def settings(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncIngestSettings]:
    with databases(postgres_url, "hostile") as (events, keys):
        found = hostile_settings(events, keys, tmp_path_factory.mktemp("hostile"))
        migrate_databases(found, TABLES)
        yield found


@pytest.fixture(scope="module")
def ingests(settings: SyncIngestSettings) -> Iterator[list[Ingest]]:
    with hands(settings) as both:
        yield both


@pytest.mark.requirement("M01")
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_AT_ONCE))
def test_whatever_comes_the_ledger_is_what_the_model_says(
    settings: SyncIngestSettings, ingests: list[Ingest], first: int
) -> None:
    wrong = [play(seed, settings, ingests) for seed in range(first, first + SEEDS_AT_ONCE)]
    assert [each for each in wrong if each is not None] == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(postgres_url: str, tmp_path: Path, fault: Fault) -> None:
    fault.plant(tmp_path)
    seeds = str(fault.seed), str(fault.seed + SEEDS_UNTIL_FOUND_MAX)
    played = subprocess.run(
        [sys.executable, "-m", "tests.hostile.run", *seeds, postgres_url, "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert "seed " in played.stdout, f"{fault.name} was not found\n{played.stdout}\n{played.stderr}"
    assert played.returncode == 1
