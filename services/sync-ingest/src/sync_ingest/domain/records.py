"""The canonical records that every feed format is turned into.

These structs are also the published schema of the JSON lines that branch systems send: `record` is the tag,
dates are ISO 8601, money is signed integer minor units (credit positive, debit negative).
"""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import chain
from operator import attrgetter
from typing import Annotated, Final, Literal, NamedTuple, get_args
from unicodedata import category

import msgspec
from chassis.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX, TURNOVER_MINOR_MAX, CurrencyCode
from chassis.privacy.keys import ERASED
from msgspec import Meta

Key = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=1024)]
AmountMinor = Annotated[int, Meta(ge=-AMOUNT_MINOR_MAX, le=AMOUNT_MINOR_MAX)]
PositiveMinor = Annotated[int, Meta(ge=0, le=AMOUNT_MINOR_MAX)]
BalanceMinor = Annotated[int, Meta(ge=-BALANCE_MINOR_MAX, le=BALANCE_MINOR_MAX)]
SumMinor = Annotated[int, Meta(ge=0, le=TURNOVER_MINOR_MAX)]
LedgerMinor = Annotated[int, Meta(ge=-TURNOVER_MINOR_MAX, le=TURNOVER_MINOR_MAX)]
SequenceNumber = Annotated[int, Meta(ge=0, le=2**53)]
NumberOfRecords = Annotated[int, Meta(ge=0, le=2**53)]
Leg = Annotated[int, Meta(ge=0, le=999)]
Product = Literal["deposit", "wealth", "loan", "card"]
Role = Literal["owner", "joint", "signatory"]
"""Owner and joint holder own the account; an authorised signatory (授权签字人) may act on it and owns nothing of it."""
NumberedBy = Literal["account", "branch", "account-day", "branch-day"]
"""Of what running numbers are: of all time, or of each booking date anew."""
Covers = Literal["whole-days", "parts"]
"""What a file of a source without transaction ids has: all postings of its days, or some that no other file has."""
Kind = Literal[
    "cash",
    "transfer",
    "card",
    "interest",
    "fee",
    "household",
    "pension",
    "insurance",
    "loan_repayment",
    "penalty_interest",
    "wealth",
    "other",
]


class Record(msgspec.Struct, frozen=True, tag_field="record", omit_defaults=True, forbid_unknown_fields=True):
    """Base of the canonical records; `source` may be left out where the feed names its source."""


class Posting(Record, frozen=True, tag="posting", gc=False):
    """One leg of a core-bank transaction on one account: the unit of money in this system.

    `core_transaction_id` is null where the bank gives none: the posting is then identified by its money alone. `reverses`
    is the core transaction id of the posting that this one undoes, on the same account and leg unless
    `reverses_account` and `reverses_leg` say otherwise. `sequence_number` is the
    running number that the source gives its postings, one by one without a gap: per account, or per branch where
    `numbered_by` says so. No two postings have the same one, unless `numbered_by` says that they begin anew each day.
    """

    account: Key
    core_transaction_id: Key | None
    amount_minor: AmountMinor
    currency: CurrencyCode
    booked_on: date
    leg: Leg = 1
    value_on: date | None = None
    balance_after_minor: BalanceMinor | None = None
    product: Product | None = None
    channel: Text | None = None
    kind: Kind | None = None
    branch: Text | None = None
    teller: Text | None = None
    counterparty_bank: Text | None = None
    counterparty_account: Text | None = None
    counterparty_name: Text | None = None
    text: Text | None = None
    reverses: Key | None = None
    reverses_account: Key | None = None
    reverses_leg: Leg | None = None
    sequence_number: SequenceNumber | None = None
    numbered_by: NumberedBy = "account"
    source: Key | None = None


class PartyRecord(Record, frozen=True, tag="party"):
    """A person or company as the source describes it."""

    party: Key
    kind: Literal["person", "company"] = "person"
    name: Text | None = None
    born_on: date | None = None
    gender: Literal["female", "male"] | None = None
    identity_number: Text | None = None
    phone: Text | None = None
    email: Text | None = None
    address: Text | None = None
    branch: Text | None = None
    source: Key | None = None


class AccountRecord(Record, frozen=True, tag="account"):
    """An account as the source's master data opens it."""

    account: Key
    opened_on: date
    product: Product = "deposit"
    currency: CurrencyCode | None = None
    branch: Text | None = None
    name: Text | None = None
    statement_frequency: Literal["monthly", "weekly", "after_turnover"] | None = None
    source: Key | None = None


class HolderRecord(Record, frozen=True, tag="holder"):
    """A party's right over an account, from `held_from` on and before `held_until`; either may lie in the future.

    `held_until` is the first business date on which the right no longer stands. A later record without it names the party
    again.
    """

    account: Key
    party: Key
    role: Role
    held_from: date | None = None
    held_until: date | None = None
    source: Key | None = None

    @property
    def ends_before_it_begins(self) -> bool:
        """Whether no day is left on which the right stands."""
        return self.held_from is not None and self.held_until is not None and self.held_until < self.held_from


class ListedHolder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party in the complete list of an account's holders."""

    party: Key
    role: Role


class HoldersRecord(Record, frozen=True, tag="holders"):
    """All holders of an account on the business date `listed_on`, by default today. Who is absent holds it no longer.

    A list of an earlier day than one that was read before changes nothing. A right that begins later stays. A file
    of the same bytes is read once: where an equal list may come on another day, it names its day. A file that comes
    again and differs from what stands changes nothing, and its certificate says `repeats-older-master-data`.
    """

    account: Key
    holders: Annotated[tuple[ListedHolder, ...], Meta(max_length=1_000)]
    listed_on: date | None = None
    source: Key | None = None


class AccountClosedRecord(Record, frozen=True, tag="account-closed"):
    """The account is closed from `closed_on` on; null takes a closing back."""

    account: Key
    closed_on: date | None
    source: Key | None = None


class CardRecord(Record, frozen=True, tag="card"):
    """A card issued on an account to one of its holders."""

    card: Key
    account: Key
    issued_on: date
    kind: Text | None = None
    party: Key | None = None
    source: Key | None = None


class LoanRecord(Record, frozen=True, tag="loan"):
    """A loan granted to an account: amount = duration x payment, where the source says so."""

    loan: Key
    account: Key
    granted_on: date
    amount_minor: PositiveMinor
    currency: CurrencyCode
    duration_months: Annotated[int, Meta(ge=1, le=1200)]
    payment_minor: PositiveMinor
    status: Text | None = None
    source: Key | None = None


class StandingOrderRecord(Record, frozen=True, tag="standing-order"):
    """A standing order on an account."""

    order: Key
    account: Key
    amount_minor: PositiveMinor
    currency: CurrencyCode
    kind: Kind | None = None
    counterparty_bank: Text | None = None
    counterparty_account: Text | None = None
    source: Key | None = None


class ControlRecord(Record, frozen=True, tag="control"):
    """Control totals that a file states about its own postings; what it leaves out is not checked.

    Of the whole file, of one account, or of one branch. `records` counts postings, those that cannot be read too; the
    sums are positive minor units of `currency`; `opening_minor` and `closing_minor` are signed ledger balances before
    the first and after the last posting. `first_number` and `last_number` are the running numbers of an account or a
    branch in this file, on each of its days where they begin anew each day. Raises ValueError where a figure lacks what it is a figure of.
    """

    records: NumberOfRecords | None = None
    credits_minor: SumMinor | None = None
    debits_minor: SumMinor | None = None
    opening_minor: LedgerMinor | None = None
    closing_minor: LedgerMinor | None = None
    currency: CurrencyCode | None = None
    account: Key | None = None
    branch: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    first_number: SequenceNumber | None = None
    last_number: SequenceNumber | None = None
    source: Key | None = None

    def __post_init__(self) -> None:
        money = (self.credits_minor, self.debits_minor, self.opening_minor, self.closing_minor)
        numbers = (self.first_number, self.last_number)
        if self.records is None and not any(stated is not None for stated in (*money, *numbers)):
            raise ValueError("a control record that states nothing")
        if self.currency is None and any(stated is not None for stated in money):
            raise ValueError("sums and balances need a currency")
        if self.account is not None and self.branch is not None:
            raise ValueError("either an account or a branch")
        if self.branch is not None and (self.opening_minor, self.closing_minor) != (None, None):
            raise ValueError("a branch has no opening and no closing balance")
        if self.account is None and self.branch is None and numbers != (None, None):
            raise ValueError("running numbers are of an account or of a branch")


DescribingRecord = (
    PartyRecord | AccountRecord | AccountClosedRecord | CardRecord | LoanRecord | StandingOrderRecord
)
HoldingRecord = HolderRecord | HoldersRecord
MasterRecord = DescribingRecord | HoldingRecord
AnyRecord = Posting | MasterRecord | ControlRecord

RECORD_KINDS: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyRecord))
"""The tags of the canonical records."""

RAW_KEPT_BYTES_MAX: Final = 65_536
"""How much of an unreadable record its quarantine entry shows; the whole is in the intake."""


FIRST_DAY: Final = date(1900, 1, 1)
LAST_DAY: Final = date(2199, 12, 31)
"""Business dates beyond these are slips of a key, and would not fit every calendar and zone on the way."""

BOOKED_DAYS_AHEAD_MAX: Final = 31
"""How far beyond the bank's business date a posting may be booked, unless the bank says otherwise."""


class BookingDays(NamedTuple):
    """The days on which a posting may be booked, around the bank's business date `today`."""

    first: date
    today: date
    last: date

    @classmethod
    def around(
        cls, today: date, first: date = FIRST_DAY, ahead_days: int = BOOKED_DAYS_AHEAD_MAX
    ) -> "BookingDays":
        """From `first` to so many days after today, and never beyond LAST_DAY."""
        return cls(first, today, min(LAST_DAY, today + timedelta(days=ahead_days)))

    @property
    def text(self) -> str:
        """The window in words."""
        return f"not between {self.first} and {self.last}"


SHOWN_CHARACTERS_MAX: Final = 200


def shown(text: str) -> str:
    """Names that a feed brings, of files and fields, as far as they can be stored and shown."""
    return "".join([letter if letter.isprintable() else "\ufffd" for letter in text[:SHOWN_CHARACTERS_MAX]])


FILE_ENDINGS_SHOWN: Final = frozenset(
    {"asc", "csv", "dat", "gz", "json", "jsonl", "ndjson", "tsv", "txt", "xls", "xlsx", "xml", "zip"}
)


def masked_file(name: str) -> str:
    """`***.csv`: the name of a file may hold a customer's name or number, and nothing but a known ending is shown."""
    ending = name.rpartition(".")[2].lower()
    return f"{ERASED}.{ending}" if "." in name and ending in FILE_ENDINGS_SHOWN else ERASED


class Place(msgspec.Struct, frozen=True, order=True):
    """Where in a feed: file name, line from 1 (0 = the file as a whole), column or field name if known."""

    file: str
    line: int
    column: str | None = None


class Unreadable(msgspec.Struct, frozen=True):
    """What could not be read: `reason` is a stable kebab-case code, `detail` a sentence without personal data."""

    reason: str
    detail: str
    raw: bytes
    column: str | None = None
    kind: str | None = None
    """The kind of record that it would have been (`posting`, `party`, ...), where the reader knows it."""
    whole_file: bool = False
    """It stands for all records of its file, not for one."""


_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format, surrogate, line and paragraph separators."""
_LINES: Final = {"text": "\t\n\r"}
"""A narrative may have lines."""
_posting_codes: Final = attrgetter("account", "core_transaction_id", "reverses", "reverses_account", "source")
_posting_texts: Final = attrgetter(
    "branch", "teller", "channel", "counterparty_bank", "counterparty_account", "counterparty_name", "text"
)


def legible(postings: Sequence[Posting]) -> bool:
    """Whether `unseen` finds nothing in any of them; False where it has to be asked of each.

    No Python runs for a single posting: they are looked at as one text. A code is not empty, and of what is printable
    only the space is a blank.
    """
    codes = list(filter(None, chain.from_iterable(map(_posting_codes, postings))))
    texts = filter(None, chain.from_iterable(map(_posting_texts, postings)))
    if not ("".join(codes).isprintable() and "".join(texts).isprintable()):
        return False
    beside = "\n".join(["", *codes, ""])
    return "\n " not in beside and " \n" not in beside


def unseen(record: Posting | MasterRecord) -> str | None:
    """The first field with a character that nobody sees, or that is a code or number with a blank at an end."""
    if isinstance(record, HoldersRecord):
        for holder in record.holders:
            if (column := _unseen(holder)) is not None:
                return column
    return _unseen(record)


def _unseen(record: msgspec.Struct) -> str | None:
    for name, key in _TEXTS_OF[type(record)]:
        value = getattr(record, name)
        if value is None or (value.isprintable() and not key):
            continue
        if key and value != value.strip():
            return name
        allowed = _LINES.get(name, "")
        if any(category(letter) in _INVISIBLE and letter not in allowed for letter in value):
            return name
    return None


def _texts_of(record: type[msgspec.Struct]) -> tuple[tuple[str, bool], ...]:
    """The fields of a record that hold text, each with whether it is a code or number."""
    kind = msgspec.inspect.type_info(record)
    found = []
    for each in kind.fields if isinstance(kind, msgspec.inspect.StructType) else ():
        options = each.type.types if isinstance(each.type, msgspec.inspect.UnionType) else (each.type,)
        texts = [option for option in options if isinstance(option, msgspec.inspect.StrType)]
        if texts:
            found.append((each.name, texts[0].min_length is not None))
    return tuple(found)


_TEXTS_OF: Final = {record: _texts_of(record) for record in (*get_args(Posting | MasterRecord), ListedHolder)}


def canonical_schema() -> dict[str, object]:
    """JSON Schema of one line of a canonical feed."""
    (schema,), components = msgspec.json.schema_components([AnyRecord], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:crm:feed:canonical:v1",
        "title": "One line of a canonical feed, version 1",
        **schema,
        "$defs": components,
    }


def same_content(record: AnyRecord) -> AnyRecord:
    """The record without its source name, so that two spellings of the same feed compare equal."""
    return record if record.source is None else msgspec.structs.replace(record, source=None)
