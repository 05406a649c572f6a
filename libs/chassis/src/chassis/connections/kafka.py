"""Where Kafka is and how it is spoken to: the one place that TLS and SASL come from, for every client of the tree."""

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
"""With as many replicas a record can be on two before it is acknowledged, and one may still be missing."""

_SASL: Final = {"PLAIN": "SASLPlaintext", "SCRAM-SHA-256": "SASLScram256", "SCRAM-SHA-512": "SASLScram512"}
"""FastStream's classes; it is imported where it is used, because all settings come through here."""


@dataclass(frozen=True, slots=True)
class Security:
    """How brokers are spoken to. Files are read whenever a client is made, so what was renewed is used from then on."""

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @property
    def sasl(self) -> bool:
        """Whether the client says who it is by name and password."""
        return self.protocol.startswith("SASL")

    def context(self) -> ssl.SSLContext | None:
        """What TLS is spoken with; None in clear. Raises OSError where a file cannot be read."""
        if not self.protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


class KafkaServers(str):
    """Addresses of brokers with how they are spoken to. A plain text of addresses is spoken to in clear."""

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
        """As another process makes the same."""
        return KafkaServers, (str(self), self.security, self.min_insync_replicas)


def security_of(servers: str) -> Security:
    """How these brokers are spoken to."""
    return servers.security if isinstance(servers, KafkaServers) else Security()


def connecting(servers: str) -> dict[str, Any]:
    """What an aiokafka client needs to reach brokers."""
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
    """The same in FastStream's words."""
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
    """How many replicas must have a record before it is acknowledged, of a topic that has so many."""
    said = servers.min_insync_replicas if isinstance(servers, KafkaServers) else None
    return min(replicas, said or (2 if replicas >= REPLICAS_SAFE_LEAST else 1))
