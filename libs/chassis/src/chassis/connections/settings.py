"""Settings that every process has, from the environment. A service adds its own settings in a subclass."""

import sys
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.business_dates import MIDNIGHT, BusinessDates
from chassis.clock import Clock
from chassis.connections.kafka import KafkaServers, Mechanism, Protocol, Security

PREFIX: Final = "CRM_"
"""Of the variables of settings that have no name of their own."""
KEYS_DATABASE: Final = "crm_keys"
COMMANDS_KEPT_DAYS: Final = 30

Environment = Literal["development", "staging", "production"]


S = TypeVar("S", bound="TokenSettings")


def _keys_url(known: dict[str, Any]) -> str:
    return make_conninfo(known["postgres_url"], dbname=KEYS_DATABASE) if known.get("postgres_url") else ""


def _keys_owner_url(known: dict[str, Any]) -> str:
    """The owner's login on the key database, where that lies beside the events; else the service's own login."""
    owner, keys = known.get("postgres_owner_url"), known.get("keys_url", "")
    beside = bool(known.get("postgres_url")) and keys == _keys_url(known)
    return make_conninfo(owner, dbname=KEYS_DATABASE) if owner and beside else keys


def _connection_string(value: str) -> str:
    """A value that libpq can read; the error does not repeat it, because it may hold a password."""
    try:
        conninfo_to_dict(value)
    except ProgrammingError as error:
        raise ValueError("no connection string of PostgreSQL") from error
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no time zone has this name") from error
    return name


def _of_the_bank(clock: time) -> time:
    if clock.tzinfo is not None:
        raise ValueError("a time of the bank's clocks has no offset")
    return clock


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
        raise ValueError("no address of an API")
    return value


PostgresUrl = Annotated[str, AfterValidator(_connection_string)]
PeerUrl = Annotated[str, AfterValidator(_http_url)]


def from_environment(kind: type[S]) -> S:
    """Returns settings of that class.

    Where the environment lacks a value, writes one line to stderr and exits with code 2.
    """
    try:
        return kind()
    except ValidationError as error:
        sys.stderr.write(f"{complaint(error)}\n")
        raise SystemExit(2) from None


def complaint(error: ValidationError) -> str:
    """Returns the errors of the settings by variable, in one line and without their values."""
    said = [
        ": ".join([*map(_variable, each["loc"][:1]), each["msg"].removeprefix("Value error, ")])
        for each in error.errors(include_input=False)
        if each["type"] != "default_factory_not_called"
    ]
    return " ".join("; ".join(said).split())


def _variable(field: int | str) -> str:
    """The variable of a setting, which is known by that name or by the field's."""
    name = str(field)
    return name if name.isupper() else f"{PREFIX}{name.upper()}"


class TokenSettings(BaseSettings):
    """The issuers whose tokens are accepted, and whether development tokens are."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    data: Path = Path(".data")
    environment: Environment = "production"
    token_keys_file: Path | None = None
    """JWK set of the token issuer: the access context or an OIDC provider."""
    token_issuer: str = "crm-access"  # noqa: S105 (a name)
    token_audience: str = "crm"  # noqa: S105 (a name)

    @property
    def development(self) -> bool:
        """Whether development tokens and named crash points are allowed, which must never be used with real
        data."""
        return self.environment == "development"

    @property
    def development_token_file(self) -> Path:
        """The private key that signs development tokens."""
        return self.data / "keys" / "dev-token"


class Settings(TokenSettings):
    """Where the servers are, and what the process listens on.

    `keys_url` is the database of the data keys. By default it is a database of its own on the server of
    the events. `bank_time_zone` is the time zone of the bank's days. The defaults are the safe values:
    production, loopback, no trusted proxy.
    """

    bank_time_zone: Annotated[str, AfterValidator(_zone)] = "Asia/Shanghai"
    cut_off: Annotated[time, AfterValidator(_of_the_bank)] = MIDNIGHT
    """From this time on the next business date runs; at midnight a business date is the calendar date."""

    postgres_url: PostgresUrl = Field(default="", validation_alias="POSTGRES_URL")
    """Empty for a role that uses no PostgreSQL and gets no login. `chassis.process.roles.main` refuses any
    other role then."""
    mongo_url: str = Field(default="mongodb://127.0.0.1:27017/?replicaSet=rs0", validation_alias="MONGO_URL")
    kafka_url: str = Field(default="127.0.0.1:9092", validation_alias="KAFKA_URL")
    kafka_security_protocol: Protocol = Field(default="PLAINTEXT", validation_alias="KAFKA_SECURITY_PROTOCOL")
    kafka_sasl_mechanism: Mechanism = Field(default="SCRAM-SHA-512", validation_alias="KAFKA_SASL_MECHANISM")
    kafka_sasl_username: str | None = Field(default=None, validation_alias="KAFKA_SASL_USERNAME")
    kafka_sasl_password: SecretStr | None = Field(default=None, validation_alias="KAFKA_SASL_PASSWORD")
    kafka_ca_file: Path | None = Field(default=None, validation_alias="KAFKA_CA_FILE")
    kafka_certificate_file: Path | None = Field(default=None, validation_alias="KAFKA_CERTIFICATE_FILE")
    kafka_key_file: Path | None = Field(default=None, validation_alias="KAFKA_KEY_FILE")
    kafka_min_insync_replicas: int | None = Field(
        default=None, ge=1, validation_alias="KAFKA_MIN_INSYNC_REPLICAS"
    )
    """By default 2 where a topic has three replicas or more, else 1."""
    keys_url: PostgresUrl = Field(default_factory=_keys_url)
    postgres_owner_url: PostgresUrl = Field(
        default_factory=lambda known: known.get("postgres_url", ""), validation_alias="POSTGRES_OWNER_URL"
    )
    """The login that owns the schema. Only `migrate` uses it, and services do not get it."""
    keys_owner_url: PostgresUrl = Field(default_factory=_keys_owner_url)
    postgres_auditor_url: PostgresUrl | None = Field(default=None, validation_alias="POSTGRES_AUDITOR_URL")
    """The login that may only read the stores. `migrate` makes it, and services do not get it."""
    mongo_driver: Literal["pymongo", "motor"] = "pymongo"
    key_encryption_file: Path = Field(
        default_factory=lambda known: known["data"] / "keys" / "kek", validation_alias="CRM_KEK_FILE"
    )
    kms_key: str | None = Field(default=None, min_length=1)
    """The root key in a KMS; the file is not read then."""
    kms_endpoint: str | None = None
    """The address of the KMS; by default that of the region."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    trusted_proxies: str = ""
    """Addresses, comma separated, whose X-Forwarded-For is trusted; none by default."""

    cors_origins: str = ""
    """Origins, comma separated, whose pages may call from a browser; none by default."""

    peer_urls: dict[str, PeerUrl] = Field(default_factory=dict)
    """The APIs of other contexts that this one gives commands to, by context: JSON, `{"ingest": "http://..."}`."""
    service_token_file: Path | None = None
    """The token by which this service shows other contexts who it is. In development it is issued without a file."""

    commands_kept_days: int = Field(default=COMMANDS_KEPT_DAYS, ge=1)
    """How long the outcome of a command is remembered under its idempotency key."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_protocol: str = Field(default="http/protobuf", validation_alias="OTEL_EXPORTER_OTLP_PROTOCOL")
    otel_service_name: str | None = Field(default=None, validation_alias="OTEL_SERVICE_NAME")
    """The name of this process in traces; by default the name of its service."""

    @property
    def dates(self) -> BusinessDates:
        """Which day it is for the bank at an instant."""
        return BusinessDates(ZoneInfo(self.bank_time_zone), self.cut_off)

    def business_date(self, clock: Clock) -> date:
        """The bank's business date now: every `today` of the services but that of births."""
        return self.dates.business_date(clock.now())

    def calendar_date(self, clock: Clock) -> date:
        """The date that the bank's clocks show now."""
        return self.dates.calendar_date(clock.now())

    @model_validator(mode="after")
    def _kafka_with_its_security(self) -> Self:
        """`kafka_url` carries its security, so that no client can be made without it."""
        password = self.kafka_sasl_password
        security = Security(
            self.kafka_security_protocol,
            self.kafka_sasl_mechanism,
            self.kafka_sasl_username,
            None if password is None else password.get_secret_value(),
            self.kafka_ca_file,
            self.kafka_certificate_file,
            self.kafka_key_file,
        )
        if security.sasl and not (security.username and security.password):
            raise ValueError("KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD are needed to speak SASL")
        self.kafka_url = KafkaServers(self.kafka_url, security, self.kafka_min_insync_replicas)
        return self
