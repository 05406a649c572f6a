"""Settings that every process has, from the environment. Services subclass it for what is theirs alone."""

from pathlib import Path
from typing import Any, Final, Literal

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

KEYS_DATABASE: Final = "crm_keys"

Environment = Literal["development", "staging", "production"]


def _keys_url(known: dict[str, Any]) -> str:
    if "postgres_url" not in known:
        return ""
    try:
        return make_conninfo(known["postgres_url"], dbname=KEYS_DATABASE)
    except ProgrammingError as error:
        raise ValueError("POSTGRES_URL is no connection string of PostgreSQL") from error


class TokenSettings(BaseSettings):
    """Who may call: whose tokens are believed, and whether development tokens are."""

    model_config = SettingsConfigDict(
        env_prefix="CRM_", extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    data: Path = Path(".data")
    environment: Environment = "production"
    token_keys_file: Path | None = None
    """JWK set of whoever issues tokens: the access context or an OIDC provider."""
    token_issuer: str = "crm-access"  # noqa: S105 (a name)
    token_audience: str = "crm"  # noqa: S105 (a name)

    @property
    def development(self) -> bool:
        """Whether what must never happen near real data is allowed: development tokens, named crash points."""
        return self.environment == "development"

    @property
    def development_token_file(self) -> Path:
        """The private key that signs development tokens."""
        return self.data / "keys" / "dev-token"


class Settings(TokenSettings):
    """Where the servers are, and what the process listens on.

    `keys_url` is the database of the data keys: its own, beside the one of the events unless it is said where. What is
    not said is the safe choice: production, loopback, no proxy trusted.
    """

    postgres_url: str = Field(validation_alias="POSTGRES_URL")
    mongo_url: str = Field(default="mongodb://127.0.0.1:27017/?replicaSet=rs0", validation_alias="MONGO_URL")
    kafka_url: str = Field(default="127.0.0.1:9092", validation_alias="KAFKA_URL")
    keys_url: str = Field(default_factory=_keys_url)
    mongo_driver: Literal["pymongo", "motor"] = "pymongo"
    key_encryption_file: Path = Field(
        default_factory=lambda known: known["data"] / "keys" / "kek", validation_alias="CRM_KEK_FILE"
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    trusted_proxies: str = ""
    """Addresses, comma separated, whose X-Forwarded-For is believed; none by default."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
