"""Settings of sync-ingest, from the environment."""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from psycopg.conninfo import make_conninfo
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from sync_ingest.domain.balances import TOLERANCE_MINOR
from sync_ingest.ingesting import IngestSettings

CrashPoint = Literal["after-intake", "mid-batch", "after-append", "before-progress", "before-certificate"]


class SyncIngestSettings(BaseSettings):
    """Where the servers are, and the bank's own choices."""

    model_config = SettingsConfigDict(env_prefix="CRM_", extra="ignore", populate_by_name=True)

    postgres_url: str = Field(validation_alias="POSTGRES_URL")
    keys_postgres_url: str | None = Field(default=None, validation_alias="KEYS_POSTGRES_URL")
    kafka_url: str | None = Field(default=None, validation_alias="KAFKA_URL")
    data: Path = Path(".data")
    environment: Literal["development", "production"] = "production"
    bank_time_zone: str = "Asia/Shanghai"
    printed_tolerance_minor: int = Field(default=TOLERANCE_MINOR, ge=0)
    window_minutes: int = Field(default=15, ge=1, le=24 * 60)
    topic_source: str = "corebank"
    batch_bytes_max: int = Field(default=16 << 20, ge=1)
    crash_at: CrashPoint | None = None

    @property
    def keys_url(self) -> str:
        """The database of the data keys: its own, beside the one of the events unless it is said where."""
        return self.keys_postgres_url or make_conninfo(self.postgres_url, dbname="crm_keys")

    @property
    def key_encryption_file(self) -> Path:
        """The key that wraps the data keys."""
        return self.data / "keys" / "kek"

    @property
    def ingest(self) -> IngestSettings:
        """What a run needs to know of them."""
        return IngestSettings(
            bank_time=ZoneInfo(self.bank_time_zone), printed_tolerance_minor=self.printed_tolerance_minor
        )
