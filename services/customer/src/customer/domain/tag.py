"""Tags (标签): what customers are marked with. Stream = tag.

The `code` of a tag never changes: events, facts and conditions hold it. Its name may change, and a name that a tag once
had stays its own. A tag that was merged stands for the one that it was merged into; nothing is deleted.
"""

from base64 import b32encode
from collections.abc import Sequence
from hashlib import blake2b
from re import compile as pattern
from typing import ClassVar, Final, Literal, assert_never
from uuid import UUID, uuid5

import msgspec
from chassis.write.deciding import Decider, Refusal
from chassis.write.events import Event
from contracts.identity import CRM_NAMESPACE
from msgspec import structs

from customer.domain.spelling import key_of

NAME_CHARACTERS_MAX: Final = 60
NAMES_MAX: Final = 50
"""Names that one tag may have, one after the other."""
MERGED_MAX: Final = 200
"""Tags that may be merged into one, those that were merged into them included."""
CODE: Final = pattern(r"tag-[a-z2-7]{16}")
_CODE_BYTES: Final = 10
TagKind = Literal["dictionary", "free"]


def claim_of(name: str) -> UUID:
    """The identity under which the store holds a name once."""
    return uuid5(CRM_NAMESPACE, f"customer:tag-name:{key_of(name)}")


def code_of(name: str) -> str:
    """The code of the tag that is defined under a name. The name stays its own, so no other tag gets this code."""
    digest = blake2b(key_of(name).encode(), digest_size=_CODE_BYTES).digest()
    return f"tag-{b32encode(digest).decode().lower()}"


def looks_like_code(name: str) -> bool:
    """Whether who reads a name takes it for a code: no tag is given such a name."""
    return CODE.fullmatch(key_of(name)) is not None


def stream_of(code: str) -> UUID:
    """The stream of a tag."""
    return uuid5(CRM_NAMESPACE, f"customer:{code}")


class TagDefined(Event, frozen=True):
    """There is a tag from now on: of the dictionary, or a free one that somebody made by using its name."""

    code: str
    name: str
    kind: TagKind
    claim: UUID


class TagRenamed(Event, frozen=True):
    """The tag has another name. `claim` is None where it had that name before."""

    code: str
    name: str
    claim: UUID | None


class TagMerged(Event, frozen=True):
    """Whoever has the tag counts as having `into`, and the tag stands for that one."""

    code: str
    into: str


class TagTookOver(Event, frozen=True):
    """Other tags stand for this one from now on: the one that was merged into it, and those merged into that one before.

    It is stored in the transaction of `TagMerged`.
    """

    code: str
    codes: tuple[str, ...]


class TagRetired(Event, frozen=True):
    """The tag is not added to anybody any more. Who has it keeps it."""

    code: str


class TagReinstated(Event, frozen=True):
    """The tag, which was retired, is added to customers again."""

    code: str


class TagAccepted(Event, frozen=True):
    """The dictionary has the tag, which was a free one."""

    code: str


TagEvent = TagDefined | TagRenamed | TagMerged | TagTookOver | TagRetired | TagReinstated | TagAccepted
TAGS: Final[dict[str, type[Event]]] = {
    "tag-defined": TagDefined,
    "tag-renamed": TagRenamed,
    "tag-merged": TagMerged,
    "tag-took-over": TagTookOver,
    "tag-retired": TagRetired,
    "tag-reinstated": TagReinstated,
    "tag-accepted": TagAccepted,
}
"""Stored names."""


class TagUnknown(Refusal):
    """There is no such tag."""

    code: ClassVar[str] = "tag-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such tag"
    title_zh: ClassVar[str] = "没有此标签"


class TagNameTaken(Refusal):
    """Another tag has the name, or once had it. The text names that tag."""

    code: ClassVar[str] = "tag-name-taken"
    title: ClassVar[str] = "Another tag has or had this name"
    title_zh: ClassVar[str] = "该名称已属于另一个标签"

    def __init__(self, tag: str, name: str) -> None:
        super().__init__(f"{tag}, now called {name!r}")
        self.tag = tag


class TagIsMerged(Refusal):
    """The tag was merged; the text names the tag that it stands for."""

    code: ClassVar[str] = "tag-merged"
    title: ClassVar[str] = "The tag was merged into another one"
    title_zh: ClassVar[str] = "该标签已合并"


class TagIsRetired(Refusal):
    """The tag is retired."""

    code: ClassVar[str] = "tag-retired"
    title: ClassVar[str] = "The tag is retired"
    title_zh: ClassVar[str] = "该标签已停用"


class TagMergeCircular(Refusal):
    """The other tag is this one, or stands for it."""

    code: ClassVar[str] = "tag-merge-circular"
    title: ClassVar[str] = "A tag is not merged into itself"
    title_zh: ClassVar[str] = "标签不能合并到自身"


class TooManyTagsMerged(Refusal):
    """A bounded number of tags is merged into one."""

    code: ClassVar[str] = "too-many-tags-merged"
    title: ClassVar[str] = f"At most {MERGED_MAX} tags are merged into one"
    title_zh: ClassVar[str] = f"最多 {MERGED_MAX} 个标签合并为一个"


class TooManyTagNames(Refusal):
    """A tag has a bounded number of names."""

    code: ClassVar[str] = "too-many-tag-names"
    title: ClassVar[str] = f"A tag has at most {NAMES_MAX} names"
    title_zh: ClassVar[str] = f"每个标签最多 {NAMES_MAX} 个名称"


class DefineTag(msgspec.Struct, frozen=True):
    """There is a tag of this name from now on."""

    name: str
    kind: TagKind


class RenameTag(msgspec.Struct, frozen=True):
    """The tag has another name from now on."""

    name: str


class MergeTag(msgspec.Struct, frozen=True):
    """The tag stands for `into`, which is not merged itself."""

    into: str


class TakeOver(msgspec.Struct, frozen=True):
    """Other tags stand for this one from now on."""

    codes: tuple[str, ...]


class RetireTag(msgspec.Struct, frozen=True):
    """The tag is not added any more."""


class ReinstateTag(msgspec.Struct, frozen=True):
    """The tag is added again."""


class AcceptTag(msgspec.Struct, frozen=True):
    """The dictionary has the tag from now on."""


TagCommand = DefineTag | RenameTag | MergeTag | TakeOver | RetireTag | ReinstateTag | AcceptTag


class Tag(msgspec.Struct, frozen=True):
    """The state of a tag that decisions need. The initial value is a tag that nobody has defined.

    `names` are all that it has had, the present one last. `merged` are the tags that stand for it.
    """

    code: str | None = None
    kind: TagKind = "free"
    names: tuple[str, ...] = ()
    into: str | None = None
    merged: tuple[str, ...] = ()
    retired: bool = False

    @property
    def name(self) -> str:
        """Its present name."""
        return self.names[-1]


def decide(  # noqa: PLR0911, PLR0912 (one arm per command)
    command: TagCommand, tag: Tag
) -> Sequence[TagEvent]:
    """Returns the events of a command; raises the refusals of this module."""
    if isinstance(command, DefineTag):
        if tag.code is not None:
            raise TagNameTaken(tag.code, tag.name)
        return [TagDefined(code_of(command.name), command.name, command.kind, claim_of(command.name))]
    if tag.code is None:
        raise TagUnknown
    if tag.into is not None:
        if isinstance(command, MergeTag) and command.into == tag.into:
            return []
        raise TagIsMerged(f"into {tag.into}")
    match command:
        case RenameTag(name):
            return _renamed(tag, tag.code, name)
        case MergeTag(into):
            if into == tag.code:
                raise TagMergeCircular
            return [TagMerged(tag.code, into)]
        case TakeOver(codes):
            return _taking_over(tag, tag.code, codes)
        case RetireTag():
            return [] if tag.retired else [TagRetired(tag.code)]
        case ReinstateTag():
            return [TagReinstated(tag.code)] if tag.retired else []
        case AcceptTag():
            return [] if tag.kind == "dictionary" else [TagAccepted(tag.code)]
        case _:
            assert_never(command)


def _taking_over(tag: Tag, code: str, codes: tuple[str, ...]) -> list[TagEvent]:
    if tag.retired:
        raise TagIsRetired
    if len(tag.merged) + len(codes) > MERGED_MAX:
        raise TooManyTagsMerged
    return [TagTookOver(code, codes)]


def _renamed(tag: Tag, code: str, name: str) -> list[TagEvent]:
    if name == tag.name:
        return []
    own = key_of(name) in map(key_of, tag.names)
    if len(tag.names) >= NAMES_MAX and name not in tag.names:
        raise TooManyTagNames
    return [TagRenamed(code, name, None if own else claim_of(name))]


def evolve(tag: Tag, event: TagEvent) -> Tag:  # noqa: PLR0911 (one arm per event)
    """Returns the tag after an event."""
    match event:
        case TagDefined(code, name, kind):
            return Tag(code, kind, (name,))
        case TagRenamed(_, name):
            return structs.replace(tag, names=(*(one for one in tag.names if one != name), name))
        case TagMerged(_, into):
            return structs.replace(tag, into=into)
        case TagTookOver(_, codes):
            return structs.replace(tag, merged=(*tag.merged, *codes))
        case TagRetired():
            return structs.replace(tag, retired=True)
        case TagReinstated():
            return structs.replace(tag, retired=False)
        case TagAccepted():
            return structs.replace(tag, kind="dictionary")
        case _:
            assert_never(event)


def identify(event: TagEvent) -> UUID | None:
    """The identity under which the store holds an event once: a name is one tag's, for ever."""
    return event.claim if isinstance(event, TagDefined | TagRenamed) else None


tag_decider: Final = Decider[TagCommand, Tag, TagEvent](
    initial=Tag(), decide=decide, evolve=evolve, events=TagEvent, identify=identify
)
