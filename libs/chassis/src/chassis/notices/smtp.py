"""E-mail by SMTP (RFC 5321), over TLS and with a login where the server wants them."""

import asyncio
from datetime import UTC
from email.header import Header
from email.headerregistry import Address
from email.mime.text import MIMEText
from email.utils import format_datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

import aiosmtplib
from typing_extensions import override

from chassis.notices.providers import Accepted, Answer, Message, Provider, ProviderUnanswered, Rejected, shown
from chassis.notices.trusting import trusting

ANSWER_SECONDS_MAX: Final = 20.0
"""From the first byte that is sent to the last one of the answer."""

_OF_THE_LOGIN: Final = frozenset({530, 534, 535, 538})
"""Replies that say that we are not logged in as the server wants (RFC 4954)."""

_ENCODED_WORD: Final = "=?"
"""What an encoded word begins with."""

SmtpSecurity = Literal["tls", "starttls", "none"]


class SmtpServer(NamedTuple):
    """Where e-mail is handed in. `sender` is the address that it comes from; `ca_file` names whom we trust beside the
    system's authorities."""

    host: str
    port: int
    sender: str
    security: SmtpSecurity = "starttls"
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None


class SmtpProvider(Provider):
    """Hands e-mail to a server, each over a connection of its own.

    The `Message-ID` follows from the notice. SMTP knows no idempotency key: a notice that is handed over again after a
    crash may arrive twice, with one `Message-ID`, by which servers and clients may recognise it.
    """

    def __init__(self, server: SmtpServer, *, answer_seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        self.name = "smtp"
        self._server = server
        self._sender = Address(addr_spec=server.sender)
        self._seconds_max = answer_seconds_max

    @override
    async def hand_over(self, message: Message) -> Answer:
        mail = self.mail(message)
        if mail is None:
            return Rejected("recipient-unfit", "")
        try:
            async with asyncio.timeout(self._seconds_max):
                return await self._handed_over(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            one = error.recipients[0]
            return _refused(one.code, one.message)
        except aiosmtplib.SMTPDataError as error:
            return _refused(error.code, error.message)
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            # Connection, TLS, login, our own address: nothing was said about the notice.
            raise ProviderUnanswered(f"SMTP: {type(error).__name__}") from error

    async def _handed_over(self, mail: MIMEText) -> Answer:
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=None if server.security == "none" else trusting(server.ca_file),
            timeout=self._seconds_max,
            local_hostname=self._sender.domain,
        )
        try:
            await client.connect()
            if server.username is not None:
                await client.login(server.username, server.password or "")
            _, answer = await client.send_message(
                mail, sender=str(self._sender), recipients=[str(mail["To"])]
            )
            return Accepted(None, shown(answer))
        finally:
            client.close()

    def mail(self, message: Message) -> MIMEText | None:
        """The e-mail of a notice: the same bytes each time; None where nobody can have that address.

        Not an `EmailMessage`: it decodes encoded words (RFC 2047) that a value holds, and writes what they hold as
        headers, ends of lines too. Here the title is encoded whatever it holds, and no address is an encoded word.
        """
        local, _, domain = message.to.rpartition("@")
        try:
            to = str(Address(username=local, domain=domain.encode("idna").decode("ascii")))
            to.encode("ascii")
        except (ValueError, UnicodeError):
            return None
        if _ENCODED_WORD in to:
            return None
        mail = MIMEText(message.text.replace("\n", "\r\n"), _charset="utf-8")
        mail["Message-ID"] = f"<{message.id}@{self._sender.domain}>"
        mail["Date"] = format_datetime(message.requested_at.astimezone(UTC))
        mail["From"] = str(self._sender)
        mail["To"] = to
        mail["Subject"] = Header(message.title, "utf-8", header_name="Subject").encode()
        mail["Auto-Submitted"] = "auto-generated"
        return mail


def _refused(code: int, said: str) -> Answer:
    """A reply of 5xx is for good (RFC 5321, 4.2.1); one of 4xx is not."""
    if code >= 500 and code not in _OF_THE_LOGIN:
        return Rejected(f"smtp-{code}", shown(said))
    raise ProviderUnanswered(f"SMTP: the server answered {code}")
