"""Providers against real servers on loopback: SMTP with TLS and a login, and HTTP; what each answer means."""

import asyncio
import email
import email.policy
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from chassis.clock import SystemClock
from chassis.notices.providers import Accepted, Message, PrintingProvider, ProviderUnanswered, Rejected
from chassis.notices.signing import SignatureInvalid, secret_bytes, signed_headers, verified
from chassis.notices.smtp import SmtpProvider, SmtpServer
from chassis.notices.templates import unfit
from chassis.notices.webhook import WebhookProvider
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.specification import ManualClock

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = UUID("018f0000-0000-7000-8000-000000000001")
MAIL = Message(ID, "email", "li@example.com", "罐子满了", "您好：\n罐子满了。\n", AT)
SMS = Message(ID, "sms", "+8613800001234", "", "罐子满了。", AT)
SENDER = "bank@example.org"
SECRET = bytes(range(32))
HOST = "127.0.0.1"


@dataclass
class Mailbox:
    """What the SMTP server was given, and what it says to it."""

    takes_sender: bool = True
    reply: str = "250 2.0.0 queued"
    got: list[Any] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keeps a message."""
        self.got.append(envelope)
        return self.reply

    async def handle_MAIL(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Takes a sender, unless it is told otherwise."""
        if not self.takes_sender:
            return "550 5.7.1 sender not allowed"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Takes a recipient, unless it is nobody."""
        if address.startswith("nobody"):
            return f"550 5.1.1 {address}: no such user"
        if address.startswith("who"):
            return "530 5.7.0 authentication required"
        if address.startswith("later"):
            return "451 4.7.1 greylisted, try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key of a server on loopback."""
    folder = tmp_path_factory.mktemp("smtp")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = SystemClock().now()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "certificate.pem", folder / "key.pem"


@asynccontextmanager
async def smtp(certificate: tuple[Path, Path], mailbox: Mailbox) -> AsyncIterator[SmtpServer]:
    """A server that wants STARTTLS and a login; where it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def authenticated(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"bank", b"secret")
        return AuthResult(success=known, handled=known)

    def protocol() -> SMTP:
        return SMTP(
            mailbox,
            hostname="mail.example.org",
            tls_context=context,
            require_starttls=True,
            authenticator=authenticated,
            auth_required=True,
        )

    listening = await asyncio.get_running_loop().create_server(protocol, HOST, 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield SmtpServer(HOST, port, SENDER, "starttls", "bank", "secret", certificate[0])


async def test_an_e_mail_arrives_over_tls_with_the_id_of_the_notice_and_the_same_bytes_again(
    certificate: tuple[Path, Path],
) -> None:
    mailbox = Mailbox()
    async with smtp(certificate, mailbox) as server:
        provider = SmtpProvider(server)
        first = await provider.hand_over(MAIL)
        await provider.hand_over(MAIL)
    assert isinstance(first, Accepted)
    one, again = mailbox.got
    assert one.content == again.content
    assert (one.mail_from, one.rcpt_tos) == (SENDER, ["li@example.com"])
    read = email.message_from_bytes(one.content, policy=email.policy.default)
    assert read["Message-ID"] == f"<{ID}@example.org>"
    assert (read["Subject"], read["To"], read["From"]) == (MAIL.title, MAIL.to, SENDER)
    assert read.get_content().replace("\r\n", "\n") == MAIL.text
    assert read["Auto-Submitted"] == "auto-generated"


async def test_a_recipient_that_does_not_exist_is_refused_for_good_and_one_of_later_is_not(
    certificate: tuple[Path, Path],
) -> None:
    mailbox = Mailbox()
    async with smtp(certificate, mailbox) as server:
        provider = SmtpProvider(server)
        refused = await provider.hand_over(_to("nobody@example.com"))
        assert isinstance(refused, Rejected)
        assert refused.code == "smtp-550"
        with pytest.raises(ProviderUnanswered, match="451"):
            await provider.hand_over(_to("later@example.com"))
        mailbox.reply = "552 5.2.2 mailbox full"
        assert await provider.hand_over(MAIL) == Rejected("smtp-552", "5.2.2 mailbox full")
        mailbox.reply = "452 4.3.1 no space"
        with pytest.raises(ProviderUnanswered, match="452"):
            await provider.hand_over(MAIL)


async def test_what_is_wrong_with_us_refuses_no_notice(certificate: tuple[Path, Path]) -> None:
    mailbox = Mailbox(takes_sender=False)
    async with smtp(certificate, mailbox) as server:
        provider = SmtpProvider(server)
        with pytest.raises(ProviderUnanswered, match="SMTPSenderRefused"):
            await provider.hand_over(MAIL)
        mailbox.takes_sender = True
        with pytest.raises(ProviderUnanswered, match="530"):
            await provider.hand_over(_to("who@example.com"))


async def test_a_wrong_password_or_an_untrusted_server_says_nothing_about_the_notice(
    certificate: tuple[Path, Path],
) -> None:
    mailbox = Mailbox()
    async with smtp(certificate, mailbox) as server:
        for other in (server._replace(password="other"), server._replace(ca_file=None)):
            with pytest.raises(ProviderUnanswered):
                await SmtpProvider(other).hand_over(MAIL)
    with pytest.raises(ProviderUnanswered):
        await SmtpProvider(server).hand_over(MAIL)  # nobody listens there any more
    assert mailbox.got == []


async def test_a_mail_server_that_freezes_is_given_up_in_time() -> None:
    async with silent() as port:
        server = SmtpServer(HOST, port, SENDER, "none")
        with pytest.raises(ProviderUnanswered, match="SMTP"):
            await SmtpProvider(server, answer_seconds_max=0.05).hand_over(MAIL)


def test_an_address_that_is_not_ascii_is_refused_or_written_as_mail_servers_know_it() -> None:
    provider = SmtpProvider(SmtpServer(HOST, 25, SENDER))
    assert provider.mail(_to("李@example.com")) is None
    mail = provider.mail(_to("li@例子.com"))
    assert mail is not None
    assert mail["To"] == "li@xn--fsqu00a.com"


ENCODED = "=?utf-8?q?a=0d=0aBcc:_x=40evil.example?="
"""An encoded word (RFC 2047) that holds the end of a line and another header."""
HEADERS = sorted(
    [
        "Message-ID",
        "Date",
        "From",
        "To",
        "Subject",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ]
)


@given(st.text(min_size=1, max_size=120).filter(lambda text: not unfit(text) and text == text.strip()))
@example(ENCODED)
@example(f"Full: {ENCODED}")
@example("a" * 200)
@example("标题" * 100)
@example("Bcc: x@evil.example")
def test_no_value_in_a_title_adds_a_header_to_an_e_mail(title: str) -> None:
    mail = SmtpProvider(SmtpServer(HOST, 25, SENDER)).mail(
        Message(ID, "email", MAIL.to, title, MAIL.text, AT)
    )
    assert mail is not None
    read = email.message_from_bytes(mail.as_bytes())
    assert sorted(read.keys()) == HEADERS
    assert str(make_header(decode_header(read["Subject"]))) == title
    assert max(map(len, mail.as_bytes().split(b"\n"))) <= 998
    again = email.message_from_bytes(mail.as_bytes(), policy=email.policy.default)
    assert again.get_content().replace("\r\n", "\n") == MAIL.text


@pytest.mark.parametrize("address", [f"{ENCODED}@example.com", "=?utf-8?b?DQpCY2M6?=@example.com"])
def test_an_encoded_word_is_no_address(address: str) -> None:
    assert SmtpProvider(SmtpServer(HOST, 25, SENDER)).mail(_to(address)) is None


def _to(address: str) -> Message:
    return Message(ID, "email", address, MAIL.title, MAIL.text, AT)


class silent:
    """A server that takes connections and says nothing; its port."""

    async def __aenter__(self) -> int:
        self.ended = asyncio.Event()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.ended.wait()
            writer.close()

        self.server = await asyncio.start_server(serve, HOST, 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self.ended.set()
        self.server.close()
        await self.server.wait_closed()


class Gateway:
    """An HTTP server that answers what it is told; what it got."""

    def __init__(self) -> None:
        self.answer = b'HTTP/1.1 202 Accepted\r\nContent-Length: 12\r\n\r\n{"id":"g-1"}'
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    def says(self, status: str, body: str = "", *headers: str) -> None:
        """What it answers from now on."""
        said = body.encode()
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(said)}", *headers])
        self.answer = f"{head}\r\n\r\n".encode() + said


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[Gateway, WebhookProvider]]:
    """A gateway, and the provider that reaches it."""
    gateway = Gateway()
    server = await asyncio.start_server(gateway.serve, HOST, 0)
    url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/send"
    async with server, WebhookProvider("sms", url, SECRET, ManualClock(AT)) as provider:
        yield gateway, provider


async def test_a_notice_reaches_a_gateway_signed_and_with_its_id(
    gateway: tuple[Gateway, WebhookProvider],
) -> None:
    server, provider = gateway
    assert await provider.hand_over(SMS) == Accepted("g-1", '{"id":"g-1"}')
    [(headers, body)] = server.got
    assert headers["idempotency-key"] == str(ID)
    assert verified(SECRET, headers, AT, body) == str(ID)
    assert json.loads(body) == {
        "id": str(ID),
        "channel": "sms",
        "to": "+8613800001234",
        "title": "",
        "text": "罐子满了。",
        "requested_at": "2026-03-01T12:00:00Z",
    }


async def test_a_push_reaches_its_gateway_with_title_and_device() -> None:
    server = Gateway()
    listening = await asyncio.start_server(server.serve, HOST, 0)
    url = f"http://{HOST}:{listening.sockets[0].getsockname()[1]}/push"
    push = Message(ID, "push", "fcm:token-1", "罐子", "罐子满了。", AT)
    async with listening, WebhookProvider("push", url, SECRET, ManualClock(AT)) as provider:
        assert await provider.hand_over(push) == Accepted("g-1", '{"id":"g-1"}')
    [(_, body)] = server.got
    sent = json.loads(body)
    assert (sent["channel"], sent["to"], sent["title"], sent["text"]) == (
        "push",
        "fcm:token-1",
        "罐子",
        "罐子满了。",
    )


async def test_a_gateway_of_the_house_is_trusted_by_its_own_authority_alone(
    certificate: tuple[Path, Path],
) -> None:
    gateway, context = Gateway(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with await asyncio.start_server(gateway.serve, HOST, 0, ssl=context) as server:
        url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}/send"
        async with WebhookProvider("sms", url, SECRET, ManualClock(AT)) as stranger:
            with pytest.raises(ProviderUnanswered, match="ConnectError"):
                await stranger.hand_over(SMS)
        assert gateway.got == []
        async with WebhookProvider("sms", url, SECRET, ManualClock(AT), ca_file=certificate[0]) as provider:
            assert isinstance(await provider.hand_over(SMS), Accepted)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        ("400 Bad Request", "", "http-400"),
        ("422 Unprocessable", '{"code":"number-unknown"}', "number-unknown"),
        ("422 Unprocessable", '{"code":"+86 138"}', "http-422"),
        ("410 Gone", "[[[[", "http-410"),
    ],
)
async def test_a_gateway_refuses_for_good(
    gateway: tuple[Gateway, WebhookProvider], status: str, body: str, code: str
) -> None:
    server, provider = gateway
    server.says(status, body)
    answer = await provider.hand_over(SMS)
    assert isinstance(answer, Rejected)
    assert answer.code == code


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        ("500 Oops", None, None),
        ("503 Busy", "7", 7.0),
        ("429 Too Many", "120", 120.0),
        ("429 Too Many", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("429 Too Many", "-5", None),
        ("401 Who", None, None),
        ("404 Nothing", None, None),
        ("409 At it", None, None),
        ("302 Elsewhere", None, None),
    ],
)
async def test_a_gateway_says_nothing_about_the_notice(
    gateway: tuple[Gateway, WebhookProvider], status: str, retry_after: str | None, seconds: float | None
) -> None:
    server, provider = gateway
    more = [] if retry_after is None else [f"Retry-After: {retry_after}"]
    server.says(status, "", "Location: http://127.0.0.1:1/elsewhere", *more)
    with pytest.raises(ProviderUnanswered) as unanswered:
        await provider.hand_over(SMS)
    assert unanswered.value.retry_after_seconds == seconds
    assert len(server.got) == 1


async def test_an_endless_or_strange_answer_of_a_gateway_is_bounded(
    gateway: tuple[Gateway, WebhookProvider],
) -> None:
    server, provider = gateway
    server.answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"\x00\xff x" * 100_000
    answer = await provider.hand_over(SMS)
    assert isinstance(answer, Accepted)
    assert answer.provider_id is None
    assert len(answer.answer) <= 500
    assert answer.answer.isprintable()
    server.answer = b"no HTTP at all\r\n\r\n"
    with pytest.raises(ProviderUnanswered):
        await provider.hand_over(SMS)


async def test_a_gateway_that_freezes_or_is_not_there_is_given_up_in_time() -> None:
    async with silent() as port:
        url, clock = f"http://{HOST}:{port}/send", ManualClock(AT)
        async with WebhookProvider("sms", url, SECRET, clock, answer_seconds_max=0.05) as provider:
            with pytest.raises(ProviderUnanswered, match="TimeoutError"):
                await provider.hand_over(SMS)
    async with WebhookProvider("sms", url, SECRET, clock) as provider:
        with pytest.raises(ProviderUnanswered, match="ConnectError"):
            await provider.hand_over(SMS)


async def test_in_development_a_notice_is_printed() -> None:
    said: list[str] = []
    assert await PrintingProvider(said.append).hand_over(SMS) == Accepted(None, "printed")
    assert said == [f"notice {ID} by sms to +8613800001234: 罐子满了。\n"]


def test_a_signature_is_of_id_time_and_body_and_holds_for_five_minutes() -> None:
    headers = signed_headers(SECRET, "r-1", AT, b"{}")
    assert verified(SECRET, headers, AT + timedelta(seconds=300), b"{}") == "r-1"
    several = {**headers, "webhook-signature": f"v1,AAAA v1a,xx {headers['webhook-signature']}"}
    assert verified(SECRET, several, AT, b"{}") == "r-1"
    for other in (
        {**headers, "webhook-id": "r-2"},
        {**headers, "webhook-timestamp": str(int(AT.timestamp()) + 1)},
        {**headers, "webhook-timestamp": "now"},
        {**headers, "webhook-signature": "v1,\ud800"},
        {**headers, "webhook-signature": ""},
        {},
    ):
        with pytest.raises(SignatureInvalid):
            verified(SECRET, other, AT, b"{}")
    for secret, body, seconds in (
        (bytes(32), b"{}", 0),
        (SECRET, b"{} ", 0),
        (SECRET, b"{}", 301),
        (SECRET, b"{}", -301),
    ):
        with pytest.raises(SignatureInvalid):
            verified(secret, headers, AT + timedelta(seconds=seconds), body)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's own libraries."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "not base64!"])
def test_a_secret_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        secret_bytes(text)
