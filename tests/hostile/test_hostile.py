"""Hostile deliveries leave the ledger that the model says, for thousands of seeds.

A seed is replayed by `python -m tests.hostile.run SEED SEED+1`.
"""

from collections.abc import Iterator

import pytest
from chassis.process.roles import migrate_databases
from sync_ingest.opening import TABLES
from sync_ingest.runs.ingest import Ingest
from sync_ingest.settings import SyncIngestSettings

from tests.hostile.playing import hands, play
from tests.hostile.run import databases, hostile_settings

SEEDS = 2_000
SEEDS_AT_ONCE = 100


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
