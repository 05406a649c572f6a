"""The tags of customers: changed by staff, by rules of the system and in bulk runs, with their history."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from chassis.bulk import Approval, Bulk, Bulkable, BulkShown
from chassis.clock import Clock
from chassis.read.documents import ID, SEQUENCE, Document
from chassis.read.versions import versioned
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from customer.catalogue import CONTEXT
from customer.domain.commands import ChangeTags, CustomerCommand, Tagging
from customer.domain.deciding import decide
from customer.domain.events import CustomerEvent, TagAdded, TagRemoved
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.state import Customer
from customer.domain.tag import TagUnknown
from customer.queries import Queries
from customer.queries.tags import tag_shown
from customer.tags import ChangeTagsOfMany, Tags

CHANGE_TAGS: Final = "change-tags"
"""The kind of bulk run."""
_TAG_EVENTS: Final = frozenset({"tag-added", "tag-removed"})


@dataclass(frozen=True, slots=True)
class CustomerTags:
    """Commands that change the tags of customers, and questions about tags."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    tags: Tags
    store: EventStore
    catalogue: Catalogue
    queries: Queries
    clock: Clock
    reached: Callable[[str, int, float], Awaitable[bool]]

    def of_many(self, approval: Approval) -> Bulkable:
        """Changes of the tags of many customers."""
        return Bulkable(
            ChangeTagsOfMany, self._change_one, self._changes, self.handler.read, self._change_back, approval
        )

    async def change(
        self,
        customer: UUID,
        add: Sequence[str],
        remove: Sequence[str],
        context: CommandContext,
        *,
        rule: str | None = None,
        overriding: bool = False,
    ) -> Outcome[CustomerEvent]:
        """Adds and removes tags of a customer, all or none, each by its code or by a name that it has or had.

        At any version: whoever else changes its tags names others, or the same. A person who adds a name that no tag has makes a
        free tag of it. Raises CustomerNotRegistered, TagsRefused, TagOfAnother, TooManyTags.
        """
        self.handler.forget(customer)
        loaded = await self.handler.load(customer)
        if not loaded.version:
            raise CustomerNotRegistered
        command = ChangeTags()
        if context.key not in await self.store.commands([context.key]):
            command = await self.tags.change(
                add,
                remove,
                context,
                rule=rule,
                overriding=overriding,
                may_define=rule is None,
                check=lambda wanted: decide(wanted, loaded.state),
            )
        asked = ("change-tags", *add, None, *remove, None, rule, overriding)
        return await self.handler.handle(customer, command, context, asked=asked)

    async def prepare(
        self,
        bulk: Bulk,
        add: Sequence[str],
        remove: Sequence[str],
        customers: AsyncIterator[UUID],
        context: CommandContext,
        *,
        asked: Any,
        selection: str,
    ) -> BulkShown:
        """Lists customers whose tags are to be changed. A name that no tag has becomes a free tag. What the names mean is asked
        once: the same key again gives the same run, whatever became of the tags."""
        command: ChangeTagsOfMany | None = await bulk.prepared(CHANGE_TAGS, context)
        if command is None:
            named = await self.tags.change(add, remove, context, may_define=True)
            command = ChangeTagsOfMany(
                tuple(one.code for one in named.add), tuple(one.code for one in named.remove)
            )
        return await bulk.prepare(CHANGE_TAGS, command, customers, context, asked=asked, selection=selection)

    async def _tags_now(self, command: ChangeTagsOfMany, context: CommandContext) -> ChangeTags:
        return await self.tags.change(command.add, command.remove, context)

    async def _change_one(
        self, customer: UUID, command: ChangeTagsOfMany, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        now = await self._tags_now(command, context)
        return await self.handler.handle(customer, now, context, asked=command)

    async def _changes(self, customer: UUID, command: ChangeTagsOfMany) -> bool:
        context = CommandContext(actor="", now=self.clock.now(), command_id=uuid5(customer, "preview"))
        now = await self._tags_now(command, context)
        return bool(decide(now, (await self.handler.load(customer)).state))

    async def _change_back(
        self, customer: UUID, _: ChangeTagsOfMany, before: int, version: int, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """Gives the customer the tags that it had at version `before`, as staff's."""
        self.handler.forget(customer)
        then = (await self.handler.state_at(customer, before)).tags
        now = (await self.handler.load(customer)).state.tags
        command = ChangeTags(
            tuple(Tagging(code) for code in then if code not in now),
            tuple(Tagging(code) for code in now if code not in then),
        )
        return await self.handler.handle(customer, command, context, version, asked=("tags-back", before))

    # questions

    async def history(self, customer: UUID, after: int, limit: int) -> list[Document]:
        """Which tags a customer was given and lost, by whom, when and why, oldest first; from the event store. Raises
        CustomerNotRegistered, SubjectUnknown."""
        found = list[RecordedEvent]()
        async for one in self.store.read_named(customer, _TAG_EVENTS, after):
            found.append(self.catalogue.open(one, None))
            if len(found) == limit:
                break
        if not found and not (await self.handler.load(customer)).version:
            raise CustomerNotRegistered
        names = await self.queries.tags.names({_of_tags(one).code for one in found})
        return [_tag_event(one, names) for one in found]

    async def tag(self, code: str) -> Document:
        """A tag, with the version of its stream that the document shows; raises TagUnknown."""
        found = await self._versioned(list((await self.queries.tags.some([code])).values()))
        if not found:
            raise TagUnknown
        return found[0]

    async def page(
        self, kind: str | None, status: str | None, caller: str, limit: int, after: str | None
    ) -> tuple[list[Document], str | None]:
        """A page of tags by name, and the cursor of the page after it."""
        found, following = await self.queries.tags.page(kind, status, caller, limit, after)
        return await self._versioned(found), following

    async def _versioned(self, found: Sequence[Document]) -> list[Document]:
        async def again(subjects: Sequence[UUID]) -> Sequence[Document]:
            codes = {one[ID] for one in found if UUID(one["subject"]) in subjects}
            return list((await self.queries.tags.some(codes)).values())

        shown = await versioned(
            found,
            self.store.stream_ends,
            lambda position: self.reached(CONTEXT, position, 0.0),
            again,
            lambda one: (UUID(one["subject"]), one[SEQUENCE]),
        )
        return [tag_shown(one, version) for one, version in shown]


def _tag_event(recorded: RecordedEvent, names: Mapping[str, str]) -> Document:
    event, metadata = _of_tags(recorded), recorded.metadata
    added = isinstance(event, TagAdded)
    return {
        "event_id": str(recorded.event_id),
        "sequence": recorded.version,
        "change": "added" if added else "removed",
        "tag": event.code,
        "name": names.get(event.code, event.code),
        "rule": event.rule,
        "recorded_at": metadata.recorded_at.isoformat(),
        "effective_at": metadata.effective_at.isoformat(),
        "actor": metadata.actor,
        "post": metadata.post,
        "reason": metadata.reason,
    }


def _of_tags(recorded: RecordedEvent) -> TagAdded | TagRemoved:
    if isinstance(recorded.event, TagAdded | TagRemoved):
        return recorded.event
    raise TypeError(recorded.name)
