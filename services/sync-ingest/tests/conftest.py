"""What several tests of this package share."""

from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path

import psycopg
import pytest
from chassis.process.roles import migrate_databases
from sync_ingest.adapters.port import Adapter, FeedFile, Item
from sync_ingest.opening import TABLES, opened
from sync_ingest.runs.ingest import Ingest
from sync_ingest.settings import SyncIngestSettings

from .printed_bank import PrintedBank, generated_bank, real_bank

_SOURCES = count(1)

REAL_FEEDS = Path(__file__).parents[4] / "shared" / "feeds"


@pytest.fixture(scope="session", params=["generated", "real"])
def printed_bank(request: pytest.FixtureRequest) -> PrintedBank:
    """A bank's dump: always one that is made here, and beside it the real one, which is not part of the repository."""
    if request.param == "generated":
        return generated_bank()
    if not REAL_FEEDS.is_dir():
        pytest.skip(f"no real feed files at {REAL_FEEDS}: the same was tested with generated ones")
    return real_bank(REAL_FEEDS / "berka")


Reading = Callable[..., list[Item]]


@pytest.fixture
def read_all() -> Reading:
    """Reads files given as bytes with an adapter and returns every item."""

    def read(adapter: Adapter, *contents: bytes, names: tuple[str, ...] = ()) -> list[Item]:
        files = [
            FeedFile(
                names[at] if names else f"file-{at}", len(content), lambda content=content: BytesIO(content)
            )
            for at, content in enumerate(contents)
        ]
        return [item for batch in adapter.read(files) for item in batch.items]

    return read


@pytest.fixture(scope="session")
def postgres_url(postgres_url: str) -> str:
    """A PostgreSQL with the key database in it, migrated."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = 'crm_keys'").fetchone() is None:
            connection.execute("create database crm_keys")
    migrate_databases(SyncIngestSettings(postgres_url=postgres_url), TABLES)
    return postgres_url


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of all processes of a test run."""
    folder = tmp_path_factory.mktemp("data")
    keys = folder / "keys"
    keys.mkdir()
    (keys / "kek").write_bytes(bytes(range(32)))
    (keys / "kek").chmod(0o600)
    return folder


@pytest.fixture
def source() -> str:
    """A source that no other test has used."""
    return f"core{next(_SOURCES)}"


@pytest.fixture
def ingest(postgres_url: str, data: Path) -> Iterator[Ingest]:
    """An ingest with connections of its own."""
    with opened(SyncIngestSettings(postgres_url=postgres_url, data=data)) as running:
        yield running
