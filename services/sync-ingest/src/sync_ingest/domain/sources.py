"""Names of sources. Names that look the same get one spelling, because ids are derived from the name."""

from typing import Final
from unicodedata import normalize

from chassis.write.deciding import Refusal
from contracts.identity import source_name

UNATTRIBUTED: Final = "unattributed"
"""The reserved source of messages without a valid source. No posting is booked under it."""

_LOOK: Final = str.maketrans(
    {
        "\u0430": "a",
        "\u0435": "e",
        "\u043e": "o",
        "\u0440": "p",
        "\u0441": "c",
        "\u0443": "y",
        "\u0445": "x",
        "\u0456": "i",
        "\u0458": "j",
        "\u0455": "s",
        "\u0501": "d",
        "\u04bb": "h",
        "\u051b": "q",
        "\u051d": "w",
        "\u044c": "b",
        "\u04cf": "l",
        "\u03b1": "a",
        "\u03b5": "e",
        "\u03b9": "i",
        "\u03ba": "k",
        "\u03bd": "v",
        "\u03bf": "o",
        "\u03c1": "p",
        "\u03c4": "t",
        "\u03c5": "u",
        "\u03c7": "x",
        "\u0131": "i",
        "0": "o",
        "1": "l",
        "|": "l",
    }
)
"""Letters that look like a Latin one (Unicode Technical Standard 39, the common ones), in lower case."""


class SourceNameInvalid(Refusal):
    """Ids are derived from the name of the source, so it is short, printable and without a colon."""

    code = "source-name-invalid"
    status = 422
    title = "Not a name of a source"
    title_zh = "来源名称无效"


class SourceReserved(SourceNameInvalid):
    """Nobody sends under `UNATTRIBUTED`: what waits there belongs to a source that could not be told."""

    code = "source-reserved"
    title = "The name is reserved"
    title_zh = "该来源名称为系统保留"


class SourceLooksAlike(Refusal):
    """The name cannot be told from that of a source that is known; postings would be booked beside its own."""

    code = "source-looks-alike"
    status = 422
    title = "The name looks like that of another source"
    title_zh = "来源名称与已有来源相似"


def checked_source(source: str) -> str:
    """The name in its one spelling; raises SourceNameInvalid, and SourceReserved where it looks like the
    reserved one.

    Upper and lower case stay as they are written: which of the two a bank means is not ours to say. A
    source whose name differs from a known one in case alone is refused where it first sends (`look`).
    """
    try:
        name = source_name(source)
    except ValueError as error:
        raise SourceNameInvalid(str(error)) from None
    if look(name) == UNATTRIBUTED:
        raise SourceReserved(f"{UNATTRIBUTED} is for messages whose source cannot be told")
    return name


def look(name: str) -> str:
    """A key that is equal for names that look the same: it ignores case, and letters of other scripts that
    look Latin."""
    return normalize("NFKC", name.casefold()).translate(_LOOK)
