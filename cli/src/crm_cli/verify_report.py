"""The findings of a verification, by invariant."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from chassis.connections.transient import is_transient
from chassis.messaging.delivered import WriterNewer
from chassis.observability.reasons import reason_of
from chassis.write.catalogue import UnknownEvent

PROBLEMS_NAMED_MAX: Final = 20

INVARIANTS: Final = {
    "I1": "every stored event reaches every reader",
    "I2": "the effect of an event happens once",
    "I3": "the events of a subject keep their order",
    "I4": "a view is the fold of the log",
    "I5": "money is conserved: opening + movements = closing, per account and in sum",
    "I6": "what is stored cannot be changed, and what was verified before has not",
    "I7": "what is published is what is stored",
    "I8": "an acknowledged command is in the log",
    "I9": "no stale epoch is accepted: what a relay saved is acknowledged, what a watermark covers is before it",
    "I10": "the key of what is sealed is in the key database, or was destroyed by an erasure",
    "I11": "a file that is kept is in its storage and opens with its digest",
    "I12": "the results of a bulk run are what the streams of its items say",
    "I13": "what takes two persons was decided by two, once, over exactly what was proposed",
}


class Report:
    """Counts what was checked and names what is wrong."""

    def __init__(self) -> None:
        self.checked: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}
        self._problems: dict[str, list[str]] = defaultdict(list)
        self._totals: Counter[str] = Counter()

    def passed(self, invariant: str, count: int = 1) -> None:
        """Counts checks of an invariant that passed."""
        self.checked[invariant] += count

    def broken(self, invariant: str, detail: str, count: int = 1) -> None:
        """Notes that an invariant does not hold; the first `PROBLEMS_NAMED_MAX` problems are named."""
        self._totals[invariant] += count
        named = self._problems[invariant]
        if len(named) < PROBLEMS_NAMED_MAX:
            named.append(detail)

    @contextmanager
    def reading(self, invariant: str, what: str) -> Iterator[None]:
        """Notes that `what` cannot be read, where what is kept of it is not what it should be. The rest is checked.

        Raises what a server that cannot be asked raises.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - what a server raises is raised again
            self.unread(invariant, what, error)

    def unread(self, invariant: str, what: str, error: Exception) -> None:
        """As `reading`, where `error` was met already: a loop over a log enters no context for each event."""
        if not _of_what_is_kept(error):
            raise error
        self.broken(invariant, f"{what} cannot be read: {reason_of(error)}")

    def compare(self, invariant: str, what: str, expected: object, found: object) -> None:
        """Checks that two figures are equal."""
        self.passed(invariant)
        if expected != found:
            self.broken(invariant, f"{what}: expected {expected}, found {found}")

    def plus(self, other: "Report") -> None:
        """Adds the counts and problems of another report, without its figures."""
        self.checked.update(other.checked)
        for invariant, problems in other._problems.items():
            for problem in problems:
                self.broken(invariant, problem)
            more = other._totals[invariant] - len(problems)
            if more:
                self._totals[invariant] += more

    @property
    def green(self) -> bool:
        """Whether everything holds."""
        return not self._totals

    def as_json(self) -> dict[str, Any]:
        """The report as one object."""
        return {
            "green": self.green,
            "invariants": {
                name: {
                    "says": says,
                    "holds": not self._totals[name],
                    "checked": self.checked[name],
                    "problems": self._problems[name],
                    "problems_total": self._totals[name],
                }
                for name, says in INVARIANTS.items()
            },
            **self.figures,
        }

    def readable(self) -> str:
        """The report as a person reads it."""
        lines = ["GREEN" if self.green else "RED"]
        for name, says in INVARIANTS.items():
            mark = "holds " if not self._totals[name] else "BROKEN"
            lines.append(f"  {name:3}  {mark}  {self.checked[name]:>12,} checked  {says}")
            lines += [f"        {problem}" for problem in self._problems[name]]
            more = self._totals[name] - len(self._problems[name])
            if more > 0:
                lines.append(f"        and {more} more")
        if "keys" in self.figures:
            lines.append(f"  keys {self.figures['keys']}")
        for view, figures in self.figures.get("views", {}).items():
            lines.append(f"  {view}: generation {figures['generation']}, {figures['documents']} documents")
        return "\n".join(lines)


def _of_what_is_kept(error: Exception) -> bool:
    """Whether what was read is wrong, and not the server that was asked for it. What a newer program has written is wrong for
    this one: it is not checked."""
    if isinstance(error, (UnknownEvent, WriterNewer, psycopg.DataError)):
        return True
    return not isinstance(error, psycopg.Error) and not is_transient(error)
