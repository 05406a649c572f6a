"""Kafka's addresses and security. Every client of the repository takes TLS and SASL from here."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from typing_extensions import override

if TYPE_CHECKING:
    from faststream.security import BaseSecurity

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
REPLICAS_SAFE_LEAST: Final = 3
"""With this many replicas, two can have a record before it is acknowledged while a third is down."""

_SASL: Final = {"PLAIN": "SASLPlaintext", "SCRAM-SHA-256": "SASLScram256", "SCRAM-SHA-512": "SASLScram512"}
"""FastStream's classes; it is imported where it is used, because all settings come through here."""


@dataclass(frozen=True, slots=True)
class Security:
    """The security of a connection to brokers.

    Files are read whenever a client is made, so renewed files are used then.
    """

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @property
    def sasl(self) -> bool:
        """Whether the client authenticates by name and password."""
        return self.protocol.startswith("SASL")

    def context(self) -> ssl.SSLContext | None:
        """The TLS context; None for a connection in clear. Raises OSError where a file cannot be read."""
        if not self.protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


class KafkaServers(str):
    """Addresses of brokers with their security. A plain text of addresses means a connection in clear."""

    __slots__ = ("min_insync_replicas", "security")
    security: Security
    min_insync_replicas: int | None

    def __new__(cls, addresses: str, security: Security, min_insync_replicas: int | None = None) -> Self:
        """Addresses as `host:port`, comma separated."""
        servers = super().__new__(cls, addresses)
        servers.security, servers.min_insync_replicas = security, min_insync_replicas
        return servers

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its security, for another process."""
        return KafkaServers, (str(self), self.security, self.min_insync_replicas)


def security_of(servers: str) -> Security:
    """The security of the connection to these brokers."""
    return servers.security if isinstance(servers, KafkaServers) else Security()


def connecting(servers: str) -> dict[str, Any]:
    """The arguments with which an aiokafka client reaches the brokers."""
    security = security_of(servers)
    options: dict[str, Any] = {"bootstrap_servers": str(servers), "security_protocol": security.protocol}
    context = security.context()
    if context is not None:
        options["ssl_context"] = context
    if security.sasl:
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password,
        }
    return options


def faststream_security(servers: str) -> "BaseSecurity | None":
    """The same security as an object of FastStream."""
    from faststream import security as words

    security = security_of(servers)
    context = security.context()
    if security.sasl:
        make: Any = getattr(words, _SASL[security.mechanism])
        made: BaseSecurity = make(
            username=security.username or "",
            password=security.password or "",
            use_ssl=context is not None,
            ssl_context=context,
        )
        return made
    return None if context is None else words.BaseSecurity(use_ssl=True, ssl_context=context)


def insync_least(servers: str, replicas: int) -> int:
    """How many replicas must have a record before it is acknowledged, for a topic with this number of
    replicas."""
    said = servers.min_insync_replicas if isinstance(servers, KafkaServers) else None
    return min(replicas, said or (2 if replicas >= REPLICAS_SAFE_LEAST else 1))
