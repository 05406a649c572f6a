"""Which accounts of a file no control total covers: a posting of theirs could be missing unseen."""

from collections.abc import Sequence
from typing import Final

from sync_ingest.domain.controls.file_read import FileRead
from sync_ingest.domain.controls.running_numbers import many
from sync_ingest.domain.records import ControlRecord


def unchecked(
    read: FileRead, controls: Sequence[ControlRecord], of_file: FileRead | None = None
) -> set[tuple[str, str]]:
    """Accounts and currencies with postings in `read` in which one that is lost would not be seen.

    `of_file` is all of the file that is of no account, where `read` is some accounts of it.
    What sees it: a count of records; both sums; opening and closing; the closing of an account alone,
    which is compared with the ledger; the first and the last running number, where every posting has one.
    A sum of one side says nothing of the other side, and an opening nothing of the postings after it.
    """
    whole = of_file or read
    stated: dict[tuple[str | None, str | None, str | None], set[str]] = {}
    for control in controls:
        figures = stated.setdefault((control.account, control.branch, control.currency), set())
        figures |= {name for name in _FIGURES if getattr(control, name) is not None}
        if control.opening_minor is not None and control.closing_minor is not None:
            figures.add("movement")
        if None not in (control.first_number, control.last_number) and _all_numbered(
            read if control.account is not None else whole, control
        ):
            stated.setdefault((control.account, control.branch, None), set()).add("numbers")
    covered = {scope for scope, figures in stated.items() if any(figures >= some for some in _SEEING)}
    covered |= {
        scope for scope, figures in stated.items() if scope[0] is not None and "closing_minor" in figures
    }
    if any(
        control.records is not None for control in controls if (control.account, control.branch) == _WHOLE
    ):
        return set()
    branches = {branch for _, branch, _ in covered if branch is not None}
    of_branches = [
        counted.postings
        for (branch, currency), counted in whole.branches.items()
        if branch in branches and {(None, branch, currency), (None, branch, None)} & covered
    ]
    if of_branches and sum(of_branches) == whole.records - whole.unreadable:
        return set()
    return {
        (account, currency)
        for account, currency in read.accounts
        if not {(None, None, currency), (account, None, currency), (account, None, None)} & covered
    }


_WHOLE: Final = (None, None)
_FIGURES: Final = ("records", "credits_minor", "debits_minor", "closing_minor")
_SEEING: Final = ({"records"}, {"credits_minor", "debits_minor"}, {"movement"}, {"numbers"})


def _all_numbered(read: FileRead, control: ControlRecord) -> bool:
    postings = sum(counted.postings for counted in read.of(control.account, control.branch))
    scopes = read.scopes.get((control.account, control.branch), ())
    return postings == sum(many(read.series[scope].intervals) for scope in scopes)
