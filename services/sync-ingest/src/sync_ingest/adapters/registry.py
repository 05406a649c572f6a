"""The formats by name. A new format is added only here."""

from collections.abc import Callable
from typing import Final, Protocol

from chassis.write.deciding import Refusal

from sync_ingest.adapters.berka import BerkaAdapter
from sync_ingest.adapters.canonical import CanonicalAdapter
from sync_ingest.adapters.delimited import DelimitedAdapter
from sync_ingest.adapters.mapping import MappingFile, MappingRefused
from sync_ingest.adapters.port import Adapter
from sync_ingest.adapters.topic import TopicAdapter


class FormatUnknown(Refusal):
    """No adapter of that name."""

    code = "format-unknown"
    status = 422
    title = "There is no such feed format"
    title_zh = "没有该数据格式"

    def __init__(self, name: str) -> None:
        super().__init__(f"no feed format {name!r}; there are {', '.join(FORMATS)}")


class Adapters(Protocol):
    """Gives the adapter of a format."""

    def __call__(self, name: str, mapping: str | None = None, *, kept: bool = False) -> Adapter: ...


def _delimited(mapping: str | None, kept: bool) -> Adapter:
    if mapping is None:
        raise MappingRefused("a csv feed needs a mapping file")
    return DelimitedAdapter(MappingFile.from_toml(mapping, kept=kept))


_FORMATS: Final[dict[str, Callable[[str | None, bool], Adapter]]] = {
    "berka": lambda *_: BerkaAdapter(),
    "canonical": lambda *_: CanonicalAdapter(),
    "csv": _delimited,
    "topic": lambda *_: TopicAdapter(),
}
FORMATS: Final = tuple(name for name in _FORMATS if name != "topic")
"""The formats of files; "topic" is how messages of the branch topic are kept."""


def adapter_for(name: str, mapping: str | None = None, *, kept: bool = False) -> Adapter:
    """The adapter of a format; raises FormatUnknown or MappingRefused.

    `kept`: the mapping came with an intake.
    """
    try:
        make = _FORMATS[name]
    except KeyError:
        raise FormatUnknown(name) from None
    return make(mapping, kept)
