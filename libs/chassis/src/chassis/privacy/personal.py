"""Which values of an event are personal, however deep they stand, and how each of them is changed in place.

The mark is `Annotated[str, personal("C2")]`. It may stand on a text field, on the elements of a tuple or
list, and on the fields of a struct inside an event. A mark anywhere else raises when the event class is
read: an overlooked mark would leave the value in clear in a log from which nothing is deleted.

`personal("C2", purpose="contact")` names what the value is kept for. A subject has a key for each purpose, so
that the values of one can be erased before those of the others. A mark that names none is of `TRANSACTION`.
"""

import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple, NewType, TypeVar, Union

import msgspec
from msgspec import structs

PersonalClass = Literal["C1", "C2", "C3"]
StructT = TypeVar("StructT", bound=msgspec.Struct)

Change = Callable[[str, str, str], str]
"""Returns the new value of a personal value. Called with its place (`owner`, `home.street` or `guests[0].name`),
the value, and its purpose."""

TRANSACTION: Final = "transaction"
"""The purpose of what is kept longest. What was sealed before there were purposes is of it."""
PURPOSE_CHARACTERS_MAX: Final = 32
_PURPOSE: Final = re.compile(r"[a-z]+(-[a-z]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class PersonalMark:
    """Marks a text as personal: it is sealed on its own, under the key of the stream for the purpose."""

    sensitivity: PersonalClass
    purpose: str = TRANSACTION

    def __post_init__(self) -> None:
        """Raises ValueError where the purpose is no kebab-case word of at most `PURPOSE_CHARACTERS_MAX`."""
        if not _PURPOSE.fullmatch(self.purpose) or len(self.purpose) > PURPOSE_CHARACTERS_MAX:
            raise ValueError(f"{self.purpose!r} is no purpose")


def personal(sensitivity: PersonalClass = "C2", *, purpose: str = TRANSACTION) -> PersonalMark:
    """The mark for `Annotated[str, personal("C2")]`; the text may be optional."""
    return PersonalMark(sensitivity, purpose)


Personal = Annotated[str, PersonalMark("C2")]


class MarkMisplaced(TypeError):
    """A personal mark stands where its value could not be sealed."""


class _Inner(NamedTuple):
    """A field that holds personal values further in: one struct, or a sequence; `marked` None for a sequence
    of texts."""

    marked: "Marked | None"
    mark: PersonalMark
    many: bool


@dataclass(frozen=True, slots=True)
class Marked:
    """The personal values of a struct class: its own texts, and the fields that lead to more."""

    texts: dict[str, PersonalMark] = field(default_factory=dict)
    inner: dict[str, _Inner] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any personal value."""
        return bool(self.texts or self.inner)

    def places(self, before: str = "") -> dict[str, PersonalClass]:
        """Every place with its class: `owner`, `home.street`, `guests[].name`."""
        return {place: mark.sensitivity for place, mark in self.marks(before).items()}

    def marks(self, before: str = "") -> dict[str, PersonalMark]:
        """Every place with its mark."""
        found = {f"{before}{name}": mark for name, mark in self.texts.items()}
        for name, (marked, mark, many) in self.inner.items():
            place = f"{before}{name}{'[]' if many else ''}"
            found |= {place: mark} if marked is None else marked.marks(f"{place}.")
        return found

    @property
    def purposes(self) -> frozenset[str]:
        """The purposes that have a key of their own beside that of `TRANSACTION`."""
        return frozenset(mark.purpose for mark in self.marks().values()) - {TRANSACTION}

    def replaced(self, value: StructT, change: Change, before: str = "") -> StructT:
        """Returns the struct with `change` applied to each personal value that is not None."""
        changes: dict[str, Any] = {}
        for name, mark in self.texts.items():
            text = getattr(value, name)
            if text is not None:
                changes[name] = change(f"{before}{name}", text, mark.purpose)
        for name, (marked, mark, many) in self.inner.items():
            held = getattr(value, name)
            if held is None:
                continue
            place = f"{before}{name}"
            if many:
                changes[name] = type(held)(
                    [_changed(each, marked, mark, change, f"{place}[{at}]") for at, each in enumerate(held)]
                )
            else:
                changes[name] = _changed(held, marked, mark, change, place)
        return structs.replace(value, **changes) if changes else value


_NOTHING: Final = Marked()


@lru_cache(maxsize=1024)
def marked(struct_class: type[msgspec.Struct]) -> Marked:
    """The personal values of a struct class; raises MarkMisplaced."""
    return _read(struct_class, ())


def _changed(value: Any, marked: Marked | None, mark: PersonalMark, change: Change, place: str) -> Any:
    if value is None:
        return None
    return (
        change(place, value, mark.purpose) if marked is None else marked.replaced(value, change, f"{place}.")
    )


def _read(struct_class: type[msgspec.Struct], within: tuple[type, ...]) -> Marked:
    if struct_class in within:
        if _mentions_mark(struct_class, set()):
            raise MarkMisplaced(f"{struct_class.__name__} holds itself and personal values")
        return _NOTHING
    texts: dict[str, PersonalMark] = {}
    inner: dict[str, _Inner] = {}
    for name, hint in typing.get_type_hints(struct_class, include_extras=True).items():
        found = _found(hint, f"{struct_class.__name__}.{name}", (*within, struct_class))
        if isinstance(found, PersonalMark):
            texts[name] = found
        elif found is not None:
            inner[name] = found
    return Marked(texts, inner) if texts or inner else _NOTHING


def _found(hint: Any, where: str, within: tuple[type, ...]) -> PersonalMark | _Inner | None:
    """Returns the personal values of a type; raises MarkMisplaced where one could not be sealed."""
    if typing.get_origin(hint) is Annotated:
        mark = next((each for each in hint.__metadata__ if isinstance(each, PersonalMark)), None)
        if mark is not None and not _is_text(hint):
            raise MarkMisplaced(f"{where} is personal and not text")
        return mark or _found(typing.get_args(hint)[0], where, within)
    if isinstance(hint, NewType):
        return _found(hint.__supertype__, where, within)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        inside = _read(hint, within)
        return _Inner(inside, PersonalMark("C2"), many=False) if inside else None
    return _found_in_generic(hint, where, within) if _mentions_mark(hint, set()) else None


def _found_in_generic(hint: Any, where: str, within: tuple[type, ...]) -> PersonalMark | _Inner | None:
    """As `_found`, for a type with arguments: what may be absent, and sequences."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    members = [each for each in arguments if each is not type(None)]
    if origin in {Union, types.UnionType} and len(members) == 1:
        return _found(members[0], where, within)
    if origin is list or (origin is tuple and arguments[1:] == (Ellipsis,)):
        found = _found(arguments[0], where, within)
        if isinstance(found, PersonalMark):
            return _Inner(None, found, many=True)
        if found is not None and not found.many:
            return found._replace(many=True)
    raise MarkMisplaced(f"{where} holds a personal value where it cannot be sealed")


def _mentions_mark(hint: Any, seen: set[Any]) -> bool:
    """Whether a mark stands anywhere in a type or in the classes that it names."""
    if any(isinstance(each, PersonalMark) for each in getattr(hint, "__metadata__", ())):
        return True
    if isinstance(hint, NewType):
        return _mentions_mark(hint.__supertype__, seen)
    if isinstance(hint, type) and hint not in seen and typing.get_origin(hint) is None:
        seen.add(hint)
        hints = typing.get_type_hints(hint, include_extras=True) if _is_ours(hint) else {}
        return any(_mentions_mark(each, seen) for each in hints.values())
    return any(_mentions_mark(each, seen) for each in typing.get_args(hint))


def _is_ours(hint: type) -> bool:
    """Whether a class may carry marks: the standard library's annotations cannot all be resolved and have
    none."""
    return hint.__module__ not in {"builtins", "datetime", "uuid", "decimal", "enum"} and bool(
        getattr(hint, "__annotations__", None)
    )


def _is_text(hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        return _is_text(typing.get_args(hint)[0])
    if isinstance(hint, NewType):
        return _is_text(hint.__supertype__)
    if typing.get_origin(hint) in {Union, types.UnionType}:
        return all(_is_text(each) for each in typing.get_args(hint))
    return hint in {str, type(None)}
