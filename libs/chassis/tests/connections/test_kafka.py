"""Every client of the tree over TLS, with a name and a password or a certificate, on a broker that takes nothing else."""

import asyncio
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar

import pytest
from chassis.connections.kafka import KafkaServers, Security, insync_least
from chassis.connections.settings import Settings
from chassis.messaging.records import Record
from chassis.messaging.transport import (
    BrokerUnavailable,
    KafkaPublisher,
    PublishFailed,
    consume,
    end_offsets,
    ensure_topics,
    group_lag,
    read_to_end,
)
from contracts.topics import Topic
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from devservers.kafka import Kafka
from devservers.processes import ServerUnavailable
from pydantic import ValidationError

SECONDS_MAX = 30
TOPIC = Topic("test.secured", 2, "nothing", "of a test")
NAME, PASSWORD = "crm", "correct horse"

LISTENERS = """
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller},NAMED://127.0.0.1:{named},CERTIFIED://127.0.0.1:{certified}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller},NAMED://127.0.0.1:{named},CERTIFIED://127.0.0.1:{certified}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,NAMED:SASL_SSL,CERTIFIED:SSL
ssl.keystore.type=PEM
ssl.keystore.location={keys}
ssl.truststore.type=PEM
ssl.truststore.location={trusted}
listener.name.certified.ssl.client.auth=required
listener.name.named.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.named.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.named.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_crm="correct horse";
"""


class Authority:
    """Signs certificates for one test run."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        signed = self._signed(self.name, self.key.public_key(), ca=True)
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate and its key; both together are in `<name>.store.pem`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = self._signed(subject, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM)
        plain = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        paths = self.folder / f"{name}.crt.pem", self.folder / f"{name}.key.pem"
        paths[0].write_bytes(signed)
        paths[1].write_bytes(plain)
        (self.folder / f"{name}.store.pem").write_bytes(plain + signed)
        return paths

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
            )
        )
        return built.sign(self.key, hashes.SHA256())


class SecuredKafka(Kafka):
    """Listens in clear for itself, and for others over TLS: with a name and a password, or with a certificate."""

    port_count: ClassVar[int] = 4

    def configured(self) -> str:
        broker, controller, named, certified = self.ports
        return super().configured() + LISTENERS.format(
            broker=broker, controller=controller, named=named, certified=certified,
            keys=self.folder / "broker.store.pem", trusted=self.folder / "authority.pem",
        )  # fmt: skip

    def format_options(self) -> list[str]:
        return ["--add-scram", f"SCRAM-SHA-512=[name={NAME},password={PASSWORD}]"]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    folder = tmp_path_factory.mktemp("kafka")
    authority = Authority(folder, "authority")
    authority.certificate("broker")
    authority.certificate("client")
    server = SecuredKafka(folder, print, durable=False)
    try:
        server.prepare()
        server.spawn()
        server.wait_ready()
    except ServerUnavailable as error:
        pytest.skip(f"no Kafka here: {error}")
    yield server
    server.stop()


def servers(secured: SecuredKafka, way: str) -> KafkaServers:
    folder = secured.folder
    ca = folder / "authority.pem"
    named, certified = (f"127.0.0.1:{port}" for port in secured.ports[2:4])
    match way:
        case "certificate":
            files = folder / "client.crt.pem", folder / "client.key.pem"
            return KafkaServers(
                certified, Security("SSL", ca_file=ca, certificate_file=files[0], key_file=files[1])
            )
        case "scram":
            return KafkaServers(named, Security("SASL_SSL", "SCRAM-SHA-512", NAME, PASSWORD, ca))
        case _:
            return KafkaServers(named, Security("SASL_SSL", "PLAIN", NAME, PASSWORD, ca))


@pytest.mark.parametrize("way", ["scram", "plain", "certificate"])
async def test_every_client_speaks_tls_and_says_who_it_is(secured, way):
    kafka = servers(secured, way)
    await ensure_topics(kafka, [TOPIC])
    assert await ensure_topics(kafka, [TOPIC]) == []
    before = sum((await end_offsets(kafka, [TOPIC.name])).values())
    publisher = KafkaPublisher(kafka)
    await publisher.publish([Record(TOPIC.name, number % 2, b"", [], way.encode()) for number in range(10)])
    await publisher.close()
    assert sum((await end_offsets(kafka, [TOPIC.name])).values()) == before + 10
    stopping, seen = asyncio.Event(), []

    async def handle(records):
        seen.extend(records)
        if len(seen) >= before + 10:
            stopping.set()

    async with asyncio.timeout(SECONDS_MAX):
        await consume(kafka, [TOPIC.name], f"test.{way}", handle, stopping)
    assert sum((await group_lag(kafka, f"test.{way}", [TOPIC.name])).values()) == 0
    read = [each async for page in read_to_end(kafka, TOPIC.name) for each in page]
    assert sum(each.value == way.encode() for each in read) == 10


async def test_who_cannot_prove_who_it_is_or_does_not_trust_the_broker_gets_nowhere(secured, tmp_path):
    good, named = servers(secured, "scram"), f"127.0.0.1:{secured.ports[2]}"
    stranger = Authority(tmp_path, "stranger")
    wrong = [
        KafkaServers(named, Security("SASL_SSL", "SCRAM-SHA-512", NAME, "wrong", good.security.ca_file)),
        KafkaServers(named, Security("SASL_SSL", "SCRAM-SHA-512", NAME, PASSWORD, stranger.file)),
        KafkaServers(f"127.0.0.1:{secured.ports[3]}", Security("SSL", ca_file=good.security.ca_file)),
        named,
    ]
    for each in wrong:
        with pytest.raises(BrokerUnavailable):
            async with asyncio.timeout(SECONDS_MAX):
                await ensure_topics(each, [TOPIC])
    publisher = KafkaPublisher(wrong[0])
    with pytest.raises(PublishFailed):
        await publisher.publish([Record(TOPIC.name, 0, b"", [], b"")])
    await publisher.close()


def test_the_settings_say_how_brokers_are_spoken_to(tmp_path, monkeypatch):
    for name, value in {
        "POSTGRES_URL": "postgresql://localhost/x", "KAFKA_URL": "a:1,b:2", "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": NAME, "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_CA_FILE": str(tmp_path / "ca.pem"), "KAFKA_MIN_INSYNC_REPLICAS": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.kafka_url == "a:1,b:2"
    assert isinstance(settings.kafka_url, KafkaServers)
    assert settings.kafka_url.security == Security("SASL_SSL", "PLAIN", NAME, PASSWORD, tmp_path / "ca.pem")
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in repr(settings.kafka_url.security)
    with pytest.raises(OSError, match="No such file"):
        settings.kafka_url.security.context()
    monkeypatch.delenv("KAFKA_SASL_PASSWORD")
    with pytest.raises(ValidationError, match="KAFKA_SASL_PASSWORD"):
        Settings()
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SSL")
    monkeypatch.delenv("KAFKA_CA_FILE")
    context = Settings().kafka_url.security.context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("replicas", "said", "least"), [(1, None, 1), (2, None, 1), (3, None, 2), (5, 3, 3), (1, 2, 1)]
)
def test_how_many_replicas_have_a_record_before_it_is_acknowledged(replicas, said, least):
    assert insync_least(KafkaServers("a:1", Security(), said), replicas) == least
    assert insync_least("a:1", replicas) == (2 if replicas >= 3 else 1)
