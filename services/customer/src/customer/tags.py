"""Tags in the write side: defined, accepted, renamed, merged, retired, reinstated; and what somebody means who names one.

A name is one tag's for ever, because the store holds its identity once. Two tags are merged in one transaction over both
streams, and only into a tag that is not merged itself. So no circle comes of any number of merges at once: each adds an end
to a tag that stands for no other, and the second of two that touch one tag is decided anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final
from uuid import UUID, uuid5

import msgspec
from chassis.write.deciding import (
    AlreadyRecorded,
    CommandContext,
    Outcome,
    Refusal,
    TooManyConflicts,
    VersionMismatch,
)
from chassis.write.handling import CONFLICT_RETRIES_MAX, CommandHandler
from chassis.write.store import Appended, EventStore
from msgspec import structs

from customer.domain.commands import ChangeTags, Tagging
from customer.domain.tag import (
    CODE,
    MERGED_MAX,
    AcceptTag,
    DefineTag,
    MergeTag,
    ReinstateTag,
    RenameTag,
    RetireTag,
    Tag,
    TagCommand,
    TagEvent,
    TagIsRetired,
    TagKind,
    TagMergeCircular,
    TagMerged,
    TagNameTaken,
    TagUnknown,
    TakeOver,
    claim_of,
    code_of,
    looks_like_code,
    stream_of,
)

TAGS_AT_ONCE_MAX: Final = 50
"""Tags that one request adds, and as many that it removes."""


class TagsRefused(Refusal):
    """Some of the tags cannot be added or removed, so none is. The text names each with the code of its refusal."""

    code: ClassVar[str] = "tags-refused"
    title: ClassVar[str] = "Some of the tags were refused, so nothing was changed"
    title_zh: ClassVar[str] = "部分标签被拒绝，未作任何更改"


class ChangeTagsOfMany(msgspec.Struct, frozen=True):
    """Tags are added to and removed from each of many customers. By their codes: what a code stands for is looked up when a
    customer's turn comes."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tags:
    """Commands to tags, and the tags that are named in commands to customers."""

    handler: CommandHandler[TagCommand, Tag, TagEvent]
    store: EventStore

    async def define(self, name: str, kind: TagKind, context: CommandContext) -> Outcome[TagEvent]:
        """Defines a tag; raises TagNameTaken."""
        return await self._claiming(code_of(name), DefineTag(name, kind), name, context)

    async def rename(self, code: str, name: str, context: CommandContext, version: int) -> Outcome[TagEvent]:
        """Gives a tag another name; raises TagUnknown, TagNameTaken, TagIsMerged, TooManyTagNames."""
        await self.known(code)
        return await self._claiming(code, RenameTag(name), name, context, version)

    async def retire(self, code: str, context: CommandContext, version: int) -> Outcome[TagEvent]:
        """Retires a tag; raises TagUnknown, TagIsMerged."""
        return await self._changed(code, RetireTag(), context, version)

    async def reinstate(self, code: str, context: CommandContext, version: int) -> Outcome[TagEvent]:
        """Takes back that a tag was retired; raises TagUnknown, TagIsMerged."""
        return await self._changed(code, ReinstateTag(), context, version)

    async def accept(self, code: str, context: CommandContext, version: int) -> Outcome[TagEvent]:
        """Puts a free tag into the dictionary; raises TagUnknown, TagIsMerged."""
        return await self._changed(code, AcceptTag(), context, version)

    async def merge(self, code: str, into: str, context: CommandContext, version: int) -> Outcome[TagEvent]:
        """Merges a tag into another one, or into the one that this stands for.

        Raises TagUnknown, TagIsMerged, TagIsRetired, TagMergeCircular, TooManyTagsMerged, VersionMismatch, TooManyConflicts.
        """
        source, asked = stream_of(code), ("merge-tag", into)
        for _ in range(1 + CONFLICT_RETRIES_MAX):
            if context.key in await self.store.commands([context.key]):
                return await self.handler.handle(source, MergeTag(into), context, asked=asked)
            tag, loaded = await self.known(code), await self.handler.load(source)
            if version != loaded.version:
                raise VersionMismatch(version, loaded.version)
            end = await self.called(into)
            if end is None or end.code is None:
                raise TagUnknown
            if end.code == code:
                raise TagMergeCircular
            command = MergeTag(end.code)
            merging = await self.handler.drafted(source, command, context, asked=asked)
            if not merging.events:
                return await self.handler.handle(source, command, context, version, asked=asked)
            taking = structs.replace(
                context, command_id=uuid5(context.command_id, "taking over"), idempotency_key=None
            )
            target = stream_of(end.code)
            taken = await self.handler.drafted(target, TakeOver((code, *tag.merged)), taking)
            if merging.expected != loaded.version:
                continue
            results = await self.store.append_together([merging, taken])
            self.handler.forget(source)
            self.handler.forget(target)
            merged, _ = results
            if isinstance(merged, Appended) and all(isinstance(one, Appended) for one in results):
                event = TagMerged(code, end.code)
                return Outcome(source, loaded.version + 1, merged.positions[-1], (event,))
        raise TooManyConflicts

    async def known(self, code: str) -> Tag:
        """A tag as it is now; raises TagUnknown."""
        found = await self._now(stream_of(code)) if CODE.fullmatch(code) else None
        if found is None or found.code is None:
            raise TagUnknown
        return found

    async def change(
        self,
        add: Sequence[str],
        remove: Sequence[str],
        context: CommandContext,
        *,
        rule: str | None = None,
        overriding: bool = False,
        may_define: bool = False,
        check: Callable[[ChangeTags], object] = lambda _: None,
    ) -> ChangeTags:
        """The command to a customer who is to have and to lose these tags, which are named by code or by a name that they have or
        had. `check` refuses what the customer would refuse.

        Where the caller `may_define`, a name that no tag has becomes a free tag; none where something is refused. Raises
        TagsRefused.
        """
        refused, adding, removing, new = dict[str, str](), list[Tagging](), list[Tagging](), list[str]()
        for said in dict.fromkeys(add):
            tag = await self.called(said)
            if tag is None and may_define and not looks_like_code(said):
                new.append(said)
                adding.append(Tagging(code_of(said)))
            elif tag is None:
                refused[said] = TagUnknown.code
            elif tag.retired:
                refused[said] = TagIsRetired.code
            else:
                adding.append(_tagging(tag))
        for said in dict.fromkeys(remove):
            tag = await self.called(said)
            if tag is None:
                refused[said] = TagUnknown.code
            elif tag.code in {one.code for one in adding}:
                refused[said] = "added-and-removed"
            else:
                removing.append(_tagging(tag))
        if refused:
            raise TagsRefused(", ".join(f"{said!r}: {code}" for said, code in refused.items()))
        command = ChangeTags(tuple(adding), tuple(removing), rule, overriding)
        check(command)
        others = [said for said in new if not await self._defined_free(said, context)]
        if others:  # another tag was given the name meanwhile
            return await self.change(
                add, remove, context, rule=rule, overriding=overriding, may_define=True, check=check
            )
        return command

    async def called(self, said: str) -> Tag | None:
        """The tag that is meant by a code, or by a name that it has or had: where it was merged, the one that it stands for."""
        if CODE.fullmatch(said):
            stream = stream_of(said)
        else:
            found = await self.store.read_identities([claim_of(said)])
            if not found:
                return None
            stream = found[0].stream_id
        tag = await self._now(stream)
        return None if tag.code is None else await self._end(tag)

    async def _defined_free(self, name: str, context: CommandContext) -> bool:
        """Defines a free tag; whether there is one under the code of this name, also where somebody else defined it at the same
        time."""
        own = structs.replace(
            context, command_id=uuid5(context.command_id, f"tag {name}"), idempotency_key=None
        )
        try:
            await self.define(name, "free", own)
        except TagNameTaken as taken:
            return taken.tag == code_of(name)
        return True

    async def _changed(
        self, code: str, command: TagCommand, context: CommandContext, version: int
    ) -> Outcome[TagEvent]:
        await self.known(code)
        return await self.handler.handle(stream_of(code), command, context, version)

    async def _claiming(
        self,
        code: str,
        command: DefineTag | RenameTag,
        name: str,
        context: CommandContext,
        version: int | None = None,
    ) -> Outcome[TagEvent]:
        try:
            return await self.handler.handle(stream_of(code), command, context, version)
        except AlreadyRecorded:
            [holder] = await self.store.read_identities([claim_of(name)])
            tag = await self._now(holder.stream_id)
            raise TagNameTaken(str(tag.code), tag.name) from None

    async def _end(self, tag: Tag) -> Tag:
        for _ in range(1 + MERGED_MAX):
            if tag.into is None:
                return tag
            tag = await self._now(stream_of(tag.into))
        raise TypeError("merges of tags are a circle, or more than may be")

    async def _now(self, stream: UUID) -> Tag:
        """A tag as it is now: another process may have changed it since it was read last."""
        self.handler.forget(stream)
        return (await self.handler.load(stream)).state


def _tagging(tag: Tag) -> Tagging:
    return Tagging(str(tag.code), tag.merged)
