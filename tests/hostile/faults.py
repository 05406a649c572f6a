"""Faults that were in the ledger once, each as a change of its source: deliveries must find every one of them again.

The changed source is a copy in a folder that comes before the packages on the path of a process of its own.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "services" / "sync-ingest" / "src" / "sync_ingest"
CHASSIS: Final = ROOT / "libs" / "chassis" / "src" / "chassis"


@dataclass(frozen=True)
class Fault:
    """In `file` of the package `old` stands exactly once; `new` in its place is the fault.

    `seed`: where playing begins. This seed finds it; where other code draws other deliveries, one soon after it does.
    """

    name: str
    file: str
    old: str
    new: str
    sources: Path = SOURCES
    seed: int = 0

    def plant(self, folder: Path) -> None:
        """Copies the package below `folder` with the fault in it."""
        package = folder / self.sources.name
        shutil.copytree(self.sources, package, ignore=shutil.ignore_patterns("__pycache__"))
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.file} holds {text.count(self.old)} times: {self.old}"
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


FAULTS: Final = (
    Fault(
        "a posting without an id is identified by its words too",
        "domain/identities.py",
        "{posting.amount_minor}:{posting.currency}",
        "{posting.amount_minor}:{posting.currency}:{posting.text}",
        seed=68,
    ),
    Fault(
        "an equal posting of another part is taken for the same one",
        "unnumbered.py",
        "if intake in readings:",
        "if True:",
    ),
    Fault(
        "the same id with other money is a duplicate",
        "pipeline/planning.py",
        "if stored[1:4] != (posting.amount_minor, posting.currency, posting.booked_on):",
        "if False:",
        seed=47,
    ),
    Fault(
        "an entry of quarantine does not know its file",
        "domain/identities.py",
        'f"{intake}:{line}"',
        'f"{line}"',
        seed=140,
    ),
    Fault(
        "a row that was resolved waits again when it comes again",
        "pipeline/quarantining.py",
        "resolved = self._run.book.resolved_among(rows)",
        "resolved = set[QuarantineId]()",
        seed=383,
    ),
    Fault(
        "a repair may hold more records than were quarantined",
        "runs/repairing.py",
        "records_max = self._records_of(entry) if entry.whole_file else 1",
        "records_max = 1_000",
        seed=10,
    ),
    Fault(
        "a repair may be of another kind",
        "runs/repairing.py",
        "wanted = entry.kind or kinds[0]",
        "wanted = kinds[0]",
        seed=60,
    ),
    Fault(
        "a source is GREEN while something of an earlier feed waits",
        "runs/certifying.py",
        "waiting=self.archive.quarantine.waiting(source),",
        "waiting=0,",
    ),
    Fault(
        "a source with nothing to check against is GREEN",
        "domain/certificate.py",
        "if judgement.unchecked or not totals.accounts:",
        "if False:",
        seed=5,
    ),
    Fault(
        "a contradiction does not make a source RED",
        "domain/certificate.py",
        "if judgement.open_total:",
        "if False:",
    ),
    Fault(
        "control totals are not compared",
        "checking/control_totals.py",
        "for difference in self._differences(part, each.control):",
        "for difference in ():",
        seed=39,
    ),
    Fault(
        "control totals beside a batch are forgotten by a crash",
        "runs/running.py",
        "self._book_and_certify(source, intakes, intakes[0].command, stated)",
        "self._book_and_certify(source, intakes, intakes[0].command)",
        seed=167,
    ),
    Fault(
        "a balance has no limit",
        "pipeline/planning.py",
        "abs(balance_minor) > balance_minor_max",
        "False",
        seed=7,
    ),
    Fault(
        "a booking date may be any day",
        "pipeline/planning.py",
        "if not first_day <= posting.booked_on <= last_day:",
        "if False:",
        seed=5,
    ),
    Fault(
        "a posting is reversed as often as somebody says so",
        "pipeline/planning.py",
        "elif original in plan.undone or undone_id(original) in undone_before:",
        "elif False:",
        seed=31,
    ),
    Fault(
        "an entry of quarantine is released as often as somebody asks",
        "runs/repairing.py",
        'if entry.status == "released":',
        "if False:",
        seed=32,
    ),
    Fault(
        "a contradiction is forgotten by the next feed",
        "archive/contradictions.py",
        "select code, count(*) from {s}.contradictions where source = %s and status = 'open'",
        "select code, count(*) from {s}.contradictions where source = %s and status = 'open' and certificate is null",
        seed=100,
    ),
    Fault(
        "a gap in running numbers is not seen",
        "domain/controls/running_numbers.py",
        "return [(before[1] + 1, after[0] - 1) for before, after in pairwise(held)]",
        "return []",
        seed=143,
    ),
    Fault(
        "running balances are compared in the order in which they come",
        "domain/balances.py",
        "self.steps.insert(at, step)",
        "self.tangled |= bool(self.steps) and self.steps[-1][1] != before_minor; self.steps.append(step)",
        seed=59,
    ),
    Fault(
        "a mark between groups may stand anywhere",
        "money.py",
        'group = f"{escaped}[0-9]{{{size}}}"',
        'group = f"{escaped}[0-9]+"',
        CHASSIS,
        seed=16,
    ),
    Fault(
        "a currency is anything that looks like a code",
        "money.py",
        "CurrencyCode = Literal[tuple(sorted(EXPONENTS))]",
        "CurrencyCode = __import__('typing').Annotated[str, __import__('msgspec').Meta(pattern='^[A-Z]{3}$')]",
        CHASSIS,
        seed=8,
    ),
    Fault(
        "parentheses around an amount say nothing",
        "adapters/amounts.py",
        "negative = enclosed or sign in self._minus",
        "negative = sign in self._minus",
        seed=11,
    ),
    Fault(
        "a minus behind an amount says nothing",
        "adapters/amounts.py",
        "sign, rest = last, rest[:-1].strip()",
        'sign, rest = "+", rest[:-1].strip()',
        seed=27,
    ),
    Fault(
        "a file that changes while it is read is kept under the hash of what it was",
        "archive/intakes.py",
        "if found != (digest, size):",
        "if False:",
        seed=14,
    ),
    Fault(
        "an invalid source header is replaced by the default",
        "listening.py",
        'return Attributed(UNATTRIBUTED, "source-invalid")',
        "of_header = of_record = None",
        seed=9,
    ),
    Fault(
        "a reversal counts in its own month",
        "domain/booking.py",
        "reverses.kind, reverses.booked_on,",
        "reverses.kind, p.booked_on,",
    ),
    Fault(
        "a reversal counts under its own type",
        "domain/booking.py",
        "reverses.kind, reverses.booked_on,",
        "p.kind, reverses.booked_on,",
    ),
)
