"""Whether two names of actors name the same person."""

import unicodedata


def person(name: str) -> str:
    """The one form of a name: two spellings of it are the same person.

    Case, width and composition do not distinguish persons, nor do blanks and invisible characters. Two identities of
    one human cannot be told apart here: the issuer of tokens gives each person one.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(each for each in folded if unicodedata.category(each)[0] not in "ZC")


def persons(actor: str, on_behalf_of: str | None) -> frozenset[str]:
    """The persons behind an act: who acts, and for whom."""
    return frozenset(person(name) for name in (actor, on_behalf_of) if name is not None)
