"""Compares the control totals and running numbers that a feed states with the records that were read.

Records are counted as they are read, before any decision about them, so that no later step can hide a record.
What is counted by account is compared some accounts at a time, the rest of a file once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sync_ingest.domain.controls.file_read import FileRead, Scope, read_under, scopes_of
from sync_ingest.domain.controls.running_numbers import NumberSeries, many, shared
from sync_ingest.domain.records import ControlRecord


class NumbersDiffer(NamedTuple):
    """Running numbers that are stated and are not those of the files that state them."""

    figure: str
    stated: int
    found: int


def numbers_differ(
    reads: Sequence[FileRead], control: ControlRecord, held: Mapping[Scope, NumberSeries]
) -> Iterator[NumbersDiffer]:
    """Numbers that a control record states and `reads` lack, or hold beyond them.

    Those that are in no file at all, by `held`, are gaps, which are told apart. Where no number was read,
    one that is stated alone says how far they are.
    """
    for scope in scopes_of(reads, control):
        read = NumberSeries([])
        for file in reads:
            if scope in file.series:
                read.include(file.series[scope])
        lowest, highest = (read.intervals[0][0], read.intervals[-1][1]) if read.intervals else (None, None)
        first = lowest if control.first_number is None else control.first_number
        last = highest if control.last_number is None else control.last_number
        if first is None or last is None:
            continue
        if lowest is not None and lowest < first:
            yield NumbersDiffer("first_number", first, lowest)
        if highest is not None and highest > last:
            yield NumbersDiffer("last_number", last, highest)
        gaps = held[scope].gaps() if scope in held else []
        wanted = [(first, last)] if first <= last else []
        there = many(shared(wanted, read.intervals)) + many(shared(wanted, gaps))
        if there < many(wanted):
            yield NumbersDiffer("numbers", many(wanted), many(shared(wanted, read.intervals)))


class ControlDifference(NamedTuple):
    """A control total that is not what was read: `line` is where the feed states it, 0 where no line does."""

    control: ControlRecord
    figure: str
    stated: int
    found: int
    file: int
    line: int


def differences(
    reads: Sequence[FileRead], controls: Iterable[tuple[int, int, ControlRecord]]
) -> Iterator[ControlDifference]:
    """Each figure that is stated (file, line, control) and differs from what was read in `reads`.

    `records` of a whole file counts every currency and what could not be read.
    """
    for file, line, control in controls:
        counted = read_under(reads, control)
        records = counted.postings
        if control.account is None and control.branch is None:
            records = sum(read.records for read in reads)
        for figure, stated, found in (
            ("records", control.records, records),
            ("credits_minor", control.credits_minor, counted.credits_minor),
            ("debits_minor", control.debits_minor, counted.debits_minor),
        ):
            if stated is not None and stated != found:
                yield ControlDifference(control, figure, stated, found, file, line)
        opening, closing = control.opening_minor, control.closing_minor
        if opening is not None and closing is not None:
            follows = opening + counted.credits_minor - counted.debits_minor
            if follows != closing:
                yield ControlDifference(control, "closing_minor", closing, follows, file, line)
