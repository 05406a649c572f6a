"""The notices of a context as a role of its own: the loop with its connections, from the settings."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.transient import StoreUnavailable
from chassis.ending import closed
from chassis.notices.deciding import SENT, Channel
from chassis.notices.loop import NoticeLoop
from chassis.notices.providers import PrintingProvider, Provider
from chassis.notices.requesting import Notices
from chassis.notices.settings import NoticeSettings
from chassis.notices.signing import secret_bytes
from chassis.notices.smtp import SmtpProvider, SmtpServer
from chassis.notices.table import NOTICES_LEASE, Limit, PostgresNotices
from chassis.notices.webhook import WebhookProvider
from chassis.observability import metrics
from chassis.process.leading import LeasedRole
from chassis.process.leases import Lease, PostgresLease
from chassis.relay.postgres import Listening
from chassis.write.catalogue import Catalogue
from chassis.write.store import EventStore

DAY_SECONDS: Final = 86_400.0


class Opened(NamedTuple):
    """The notices of a context over its open store."""

    notices: Notices
    store: EventStore
    catalogue: Catalogue


@asynccontextmanager
async def providers_of(settings: NoticeSettings, clock: Clock) -> AsyncIterator[dict[Channel, Provider]]:
    """The providers that the settings name; in development the others print."""
    found: dict[Channel, Provider] = {}
    if settings.development:
        found |= {channel: PrintingProvider(sys.stdout.write) for channel in SENT}
    async with AsyncExitStack() as stack:
        secrets = receipt_secrets(settings)
        gateways: dict[Channel, tuple[str | None, Path | None]] = {
            "sms": (settings.sms_url, settings.sms_ca_file),
            "push": (settings.push_url, settings.push_ca_file),
        }
        for channel, (url, ca_file) in gateways.items():
            if url is not None and channel in secrets:
                gateway = WebhookProvider(channel, url, secrets[channel], clock, ca_file=ca_file)
                found[channel] = await stack.enter_async_context(gateway)
        if settings.smtp_host is not None:
            password = settings.smtp_password
            found["email"] = SmtpProvider(
                SmtpServer(
                    settings.smtp_host,
                    settings.smtp_port,
                    settings.smtp_sender,
                    settings.smtp_security,
                    settings.smtp_username,
                    None if password is None else password.get_secret_value(),
                    settings.smtp_ca_file,
                )
            )
        yield found


def receipt_secrets(settings: NoticeSettings) -> dict[Channel, bytes]:
    """The secrets by which the receipts of each channel are signed."""
    secrets = {"sms": settings.sms_secret, "email": settings.email_secret, "push": settings.push_secret}
    return {
        channel: secret_bytes(secret.get_secret_value())
        for channel in SENT
        if (secret := secrets[channel]) is not None
    }


def limits_of(settings: NoticeSettings) -> Mapping[Channel, Limit]:
    """How much goes to each provider."""
    return {
        "sms": Limit(settings.sms_per_second_max, 1.0),
        "email": Limit(settings.email_per_second_max, 1.0),
        "push": Limit(settings.push_per_second_max, 1.0),
    }


class NoticesRole(LeasedRole[NoticeLoop]):
    """The role `<service>-notices`, with connections of its own. `opened` opens the notices."""

    def __init__(
        self,
        service: str,
        context: str,
        schema: str,
        opened: Callable[[Clock], AbstractAsyncContextManager[Opened]],
        settings: NoticeSettings,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(f"{service}-notices", clock)
        self._context = context
        self._schema = schema
        self._opened = opened
        self._settings = settings
        self._table = PostgresNotices(settings.postgres_url, schema)

    @override
    async def _connected(self, stack: AsyncExitStack) -> NoticeLoop:
        settings, clock = self._settings, self._clock
        opened = await stack.enter_async_context(self._opened(clock))
        providers = await stack.enter_async_context(providers_of(settings, clock))
        row = PostgresLease(settings.postgres_url, self._schema, NOTICES_LEASE)
        hint = Listening(settings.postgres_url, self._schema, clock)
        for each in (row, self._table, hint):
            stack.push_async_callback(closed, each.close)
        return NoticeLoop(
            self.name,
            opened.notices,
            opened.store,
            opened.catalogue,
            self._table,
            providers,
            Lease(row, clock),
            clock,
            limits=limits_of(settings),
            to_each=Limit(settings.notices_to_each_per_day_max, DAY_SECONDS),
            hint=hint,
        )

    @override
    async def _measure(self, loop: NoticeLoop) -> None:
        with suppress(StoreUnavailable):
            oldest = await self._table.oldest() if loop.leading else None
            age_seconds = 0.0 if oldest is None else (self._clock.now() - oldest).total_seconds()
            metrics.NOTICES_AGE_SECONDS.labels(self._context).set(max(0.0, age_seconds))
