"""Templates of notices: a text with named values, in versions. Pure; no I/O.

A value is text of one line and of a stated length. It can therefore not end a header, reverse the text around it, or
make an SMS longer than its template says.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from string import Template as Text
from typing import ClassVar, Final

import msgspec

from chassis.notices.deciding import Channel
from chassis.notices.segments import segments
from chassis.write.deciding import Refusal

VALUE_CHARACTERS_MAX: Final = 500
TITLE_CHARACTERS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 10_000
LIVES_MAX: Final = timedelta(days=7)
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,99}")
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
"""Control and format characters (line ends, NUL, bidirectional overrides), surrogates, unassigned ones, separators of
lines and paragraphs. Rare characters of names may be private ones."""


class ValuesUnfit(Refusal):
    """A value of a template is missing, not known, too long, or holds what no value may hold."""

    code: ClassVar[str] = "notice-values-unfit"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The values do not fit the template"
    title_zh: ClassVar[str] = "取值与模板不符"


class Content(msgspec.Struct, frozen=True):
    """What is sent: the title of an e-mail, push or inbox notice, and the text."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Template:
    """A text for one channel, with `${name}` for each value; `fields` are their lengths in characters at most.

    `name` is kebab-case, and for ever. Raise `version` with every change: what was requested keeps its content. A notice
    that was not handed over after `lives` is given up.
    """

    name: str
    version: int
    channel: Channel
    text: str
    fields: Mapping[str, int]
    title: str = ""
    lives: timedelta = timedelta(days=1)
    segments_max: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError where the template cannot be rendered, or an SMS of it may be too long."""
        if self.lives > LIVES_MAX:
            raise ValueError(f"the template {self.name} lives longer than {LIVES_MAX.days} days")
        texts = Text(self.title), Text(self.text)
        if not _NAME.fullmatch(self.name) or not all(text.is_valid() for text in texts):
            raise ValueError(f"the template {self.name} has no fit name, or a $ that names no value")
        named = {name for text in texts for name in text.get_identifiers()}
        if named != set(self.fields):
            raise ValueError(f"the template {self.name} does not name exactly its values")
        if any(not 0 < longest <= VALUE_CHARACTERS_MAX for longest in self.fields.values()):
            raise ValueError(f"a value of {self.name} has no fit length")
        if bool(self.title) == (self.channel == "sms"):
            raise ValueError(f"an SMS has no title, and what is no SMS has one: {self.name}")
        if unfit(self.title) or unfit(self.text.replace("\n", "")):
            raise ValueError(f"the template {self.name} has a character that no text may have")
        longest = self._rendered({name: "𠮷" * size for name, size in self.fields.items()})
        if len(longest.title) > TITLE_CHARACTERS_MAX or len(longest.text) > TEXT_CHARACTERS_MAX:
            raise ValueError(f"the template {self.name} may become too long")
        if self.channel == "sms" and segments(longest.text) > self.segments_max:
            raise ValueError(f"an SMS of {self.name} may have more than {self.segments_max} segments")

    def rendered(self, values: Mapping[str, str]) -> Content:
        """The content with these values; raises ValuesUnfit, which names no value."""
        if values.keys() != self.fields.keys():
            wrong = sorted(values.keys() ^ self.fields.keys())
            raise ValuesUnfit(f"missing or not known: {', '.join(wrong)}")
        for name, value in values.items():
            if not value.strip() or len(value) > self.fields[name]:
                raise ValuesUnfit(f"{name} has 1 to {self.fields[name]} characters")
            if unfit(value):
                raise ValuesUnfit(f"{name} holds a character that no value may hold")
        return self._rendered(values)

    def digest(self) -> str:
        """Differs where the text, the title or a length is another one."""
        said = self.channel, self.title, self.text, sorted(self.fields.items())
        return blake2b(msgspec.json.encode(said), digest_size=8).hexdigest()

    def _rendered(self, values: Mapping[str, str]) -> Content:
        return Content(Text(self.title).substitute(values), Text(self.text).substitute(values))


def unfit(text: str) -> bool:
    """Whether a text holds what ends a line, steers how it is shown, or is no character at all."""
    return any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in text)


def by_name(templates: Iterable[Template]) -> dict[str, Template]:
    """The templates by their names; raises ValueError where two have one."""
    known: dict[str, Template] = {}
    for template in templates:
        if known.setdefault(template.name, template) is not template:
            raise ValueError(f"two templates are called {template.name}")
    return known
