"""What staff see of the notices of a context, and the receipts that providers send.

An inbox shows what the role has folded, a moment after it was requested.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from psycopg import sql

from chassis.clock import Clock
from chassis.connections.reconnecting import Reconnecting
from chassis.notices.deciding import Channel, NoticeEvent, ReceiptOutcome
from chassis.notices.requesting import Notices
from chassis.notices.signing import SignatureInvalid, verified
from chassis.notices.templates import Content
from chassis.write.deciding import CommandContext, Outcome
from chassis.write.store.schema import checked, writer_role

STATEMENT_SECONDS_MAX: Final = 5.0
UNREAD_COUNTED_MAX: Final = 1_000


class InInbox(NamedTuple):
    """A notice in an inbox."""

    id: UUID
    position: int
    subject: UUID
    inbox: str
    requested_at: datetime
    read: bool


class InboxItem(NamedTuple):
    """A notice in an inbox with what it says; `content` is None once its subject was erased."""

    notice: InInbox
    template: str
    content: Content | None


class InboxTable:
    """The inboxes of a store, over the tables that the role keeps. Calls raise StoreUnavailable."""

    def __init__(self, url: str, schema: str) -> None:
        names = {
            "n": sql.Identifier(checked(schema), "notices"),
            "r": sql.Identifier(schema, "notice_reads"),
        }

        def statement(text: str) -> sql.Composed:
            return sql.SQL(text).format(**names)  # type: ignore[arg-type, unused-ignore]

        was_read = "exists (select from {r} where notice = n.id and reader = %s)"
        self._page = statement(
            "select p.* from unnest(%s::text[]) as i(inbox) cross join lateral ("
            f"select n.id, n.position, n.subject, n.inbox, n.requested_at, {was_read} as read from {{n}} as n"
            " where n.inbox = i.inbox and n.position < %s"
            f" and (not %s or not {was_read}) order by n.position desc limit %s) as p"
            " order by p.position desc limit %s"
        )
        self._unread = statement(
            "select count(*) from (select from {n} as n where n.inbox = any(%s)"
            f" and not {was_read} limit {UNREAD_COUNTED_MAX + 1}) as u"
        )
        self._read = statement("insert into {r} (notice, reader) values (%s, %s) on conflict do nothing")
        self._connection = Reconnecting(url, writer_role(schema), STATEMENT_SECONDS_MAX)

    async def page(
        self, inboxes: frozenset[str], reader: str, before: int, limit: int, *, unread: bool
    ) -> list[InInbox]:
        """The newest notices before a position; `unread`: only those that the reader has not read."""
        values = (sorted(inboxes), reader, before, unread, reader, limit, limit)
        rows = await (await self._connection.execute(self._page, values)).fetchall()
        return [InInbox._make(row) for row in rows]

    async def unread(self, inboxes: frozenset[str], reader: str) -> int:
        """How many the reader has not read, at most one more than `UNREAD_COUNTED_MAX`."""
        row = await (await self._connection.execute(self._unread, (sorted(inboxes), reader))).fetchone()
        return 0 if row is None else int(row[0])

    async def keep_read(self, id: UUID, reader: str) -> None:
        """Shows a notice as read at once; the role folds the same from its event."""
        await self._connection.execute(self._read, (id, reader))

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()


class Inboxes:
    """The inboxes of one context, and the receipts of its notices; use it from one event loop."""

    def __init__(
        self, notices: Notices, table: InboxTable, secrets: Mapping[Channel, bytes], clock: Clock
    ) -> None:
        self._notices = notices
        self._table = table
        self._secrets = dict(secrets)
        self._clock = clock

    async def page(
        self, inboxes: frozenset[str], reader: str, before: int, limit: int, *, unread: bool
    ) -> list[InboxItem]:
        """The newest notices in these inboxes."""
        found = await self._table.page(inboxes, reader, before, limit, unread=unread)
        requested = await self._notices.requested([one.id for one in found])
        contents = await self._notices.contents(requested)
        return [
            InboxItem(one, requested[one.id].template, contents[one.id])
            for one in found
            if one.id in requested
        ]

    async def unread(self, inboxes: frozenset[str], reader: str) -> int:
        """How many notices the reader has not read, at most one more than `UNREAD_COUNTED_MAX`."""
        return await self._table.unread(inboxes, reader)

    async def mark_read(
        self, id: UUID, inboxes: frozenset[str], context: CommandContext
    ) -> Outcome[NoticeEvent]:
        """The caller has read a notice; raises NoticeUnknown where it is in none of these inboxes."""
        outcome = await self._notices.mark_read(id, inboxes, context)
        await self._table.keep_read(id, context.actor)
        return outcome

    async def receive(
        self,
        channel: Channel,
        headers: Mapping[str, str],
        body: bytes,
        id: UUID,
        outcome: ReceiptOutcome,
        code: str,
        occurred_at: datetime,
    ) -> Outcome[NoticeEvent]:
        """Keeps a receipt whose signature holds; raises SignatureInvalid, NoticeUnknown, CommandKeyReused."""
        secret, now = self._secrets.get(channel), self._clock.now()
        if secret is None:
            raise SignatureInvalid
        receipt = verified(secret, headers, now, body)
        return await self._notices.receive(id, receipt, channel, outcome, code, occurred_at, now)
