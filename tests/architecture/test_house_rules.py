"""The repository keeps the house rules, and every rule has been seen to fail."""

import shutil
from pathlib import Path

import pytest

from tests.architecture import house_rules

ROOT = Path(__file__).resolve().parents[2]

# rule -> (file in which it is broken, source that breaks it, nearly the same source that does not)
BROKEN: dict[str, list[tuple[str, str, str]]] = {
    "no-float-for-money": [
        ("services/customer/src/customer/domain/x.py", "amount: float", "amount_minor: int"),
        ("services/customer/src/customer/domain/x.py", "rate = 0.5", "rate = '0.5'"),
        ("services/customer/src/customer/domain/x.py", "share = part / whole", "share = part // whole"),
        ("libs/contracts/src/contracts/x.py", "def f(a: float) -> None: ...", "def f(a: int) -> None: ..."),
    ],
    "time-identity-and-chance-are-arguments": [
        ("services/customer/src/customer/app.py", "now = datetime.now(UTC)", "now = clock.now()"),
        (
            "libs/chassis/src/chassis/x.py",
            "import uuid\nkey = uuid.uuid4()",
            "import uuid\nkey = uuid.uuid5(n, 'a')",
        ),
        ("services/customer/src/customer/domain/x.py", "import random", "import decimal"),
        ("services/customer/src/customer/domain/x.py", "t = time.monotonic()", "t = clock.monotonic()"),
    ],
    "which-day-it-is-for-the-bank-is-said-in-one-place": [
        (
            "services/customer/src/customer/app.py",
            "day = clock.now().astimezone(zone).date()",
            "day = settings.business_date(clock)",
        ),
        (
            "libs/chassis/src/chassis/x.py",
            "day = at.astimezone(ZoneInfo(a)).date()",
            "day = at.astimezone(UTC).date()",
        ),
        (
            "libs/chassis/src/chassis/x.py",
            "month = now.date().isoformat()[:7]",
            "month = today.isoformat()[:7]",
        ),
        ("libs/chassis/src/chassis/x.py", "day = self._clock.now().date()", "day = self._today()"),
    ],
    "every-match-in-the-domain-is-closed": [
        (
            "services/customer/src/customer/domain/x.py",
            "match event:\n    case A():\n        pass\n    case _:\n        pass",
            "match event:\n    case A():\n        pass\n    case _:\n        assert_never(event)",
        ),
        (
            "services/customer/src/customer/domain/x.py",
            "match event:\n    case A():\n        pass\n    case B():\n        pass",
            "match event:\n    case A():\n        pass\n    case other:\n        assert_never(other)",
        ),
    ],
    "no-print-outside-the-command-line": [
        ("libs/chassis/src/chassis/x.py", "print('here')", "log('here')"),
        ("services/customer/src/customer/app.py", "print('here')", "printer('here')"),
    ],
    "an-error-that-may-quote-data-is-told-by-its-reason": [
        (
            "libs/chassis/src/chassis/x.py",
            "try:\n    f()\nexcept KeyError as error:\n    log(f'{error}')",
            "try:\n    f()\nexcept KeyError as error:\n    log(f'{reason_of(error)}')",
        ),
        (
            "services/customer/src/customer/x.py",
            "try:\n    f()\nexcept (OSError, psycopg.Error) as error:\n    keep(str(error))",
            "try:\n    f()\nexcept (OSError, psycopg.Error) as error:\n    keep(why(error))",
        ),
    ],
    "stored-names-are-kebab-case": [
        (
            "services/customer/src/customer/x.py",
            "c = Catalogue(store='a', entries={'CustomerBlocked': B})",
            "c = Catalogue(store='a', entries={'customer-blocked': B})",
        ),
        (
            "services/customer/src/customer/domain/x.py",
            "class NotKnown(Refusal):\n    code = 'not_known'",
            "class NotKnown(Refusal):\n    code = 'not-known'",
        ),
    ],
    "everything-that-waits-has-a-limit": [
        ("libs/chassis/src/chassis/x.py", "q = asyncio.Queue()", "q = asyncio.Queue(maxsize=100)"),
        ("libs/chassis/src/chassis/x.py", "q = queue.Queue(0)", "q = queue.Queue(QUEUE_ITEMS_MAX)"),
        ("libs/chassis/src/chassis/x.py", "q = queue.SimpleQueue()", "q = queue.Queue(5)"),
        (
            "libs/chassis/src/chassis/x.py",
            "@lru_cache(maxsize=None)\ndef f(a): ...",
            "@lru_cache(maxsize=64)\ndef f(a): ...",
        ),
        ("libs/chassis/src/chassis/x.py", "@cache\ndef f(a): ...", "@cache\ndef f(): ..."),
    ],
    "no-swallowed-failure": [
        (
            "libs/chassis/src/chassis/x.py",
            "try:\n    f()\nexcept:\n    pass",
            "try:\n    f()\nexcept OSError:\n    pass",
        ),
        (
            "libs/chassis/src/chassis/x.py",
            "try:\n    f()\nexcept BaseException:\n    pass",
            "try:\n    f()\nexcept BaseException:\n    undo()\n    raise",
        ),
    ],
    "instants-are-aware": [
        ("libs/chassis/src/chassis/x.py", "t = datetime(2024, 1, 1)", "t = datetime(2024, 1, 1, tzinfo=UTC)"),
        (
            "libs/chassis/src/chassis/x.py",
            "t = datetime.fromtimestamp(0)",
            "t = datetime.fromtimestamp(0, UTC)",
        ),
    ],
    "a-day-or-instant-that-a-caller-states-has-one-form": [
        (
            "services/customer/src/customer/x.py",
            "class BornBody(CommandBody):\n    on: date | None = None",
            "class BornBody(CommandBody):\n    on: StatedDay | None = None",
        ),
        (
            "libs/chassis/src/chassis/x.py",
            "AsOf = Annotated[Annotated[date, Field(ge=DAY_MIN)] | None, Query()]",
            "AsOf = Annotated[CalendarDay | None, Query()]",
        ),
        (
            "libs/chassis/src/chassis/x.py",
            "def f(since: Annotated[datetime, Query()]): pass",
            "def f(since: Annotated[StatedInstant, Query()]): pass",
        ),
    ],
    "the-chassis-knows-no-bank": [
        ("libs/chassis/src/chassis/x.py", "def customer_id(): ...", "def stream_id(): ..."),
        ("libs/chassis/src/chassis/x.py", "class AccountStore: ...", "class EventStore: ..."),
        ("libs/chassis/src/chassis/x.py", "def f(loans): ...", "def f(discarded): ..."),
    ],
    "every-consumer-names-its-group-and-its-acknowledgement": [
        (
            "libs/chassis/src/chassis/x.py",
            "@broker.subscriber('t', auto_offset_reset='earliest', group_id='g')\ndef f(): ...",
            "@broker.subscriber('t', auto_offset_reset='earliest', group_id='g', ack_policy=P)\ndef f(): ...",
        ),
        (
            "libs/chassis/src/chassis/x.py",
            "c = AIOKafkaConsumer('t', auto_offset_reset='earliest')",
            "c = AIOKafkaConsumer('t', auto_offset_reset='earliest', enable_auto_commit=False)",
        ),
        (
            "libs/chassis/src/chassis/x.py",
            "p = AIOKafkaProducer(acks='all')",
            "p = AIOKafkaProducer(acks='all', enable_idempotence=True)",
        ),
    ],
    "the-domain-imports-only-the-domain": [
        ("services/customer/src/customer/domain/x.py", "import pydantic", "import msgspec"),
        (
            "services/customer/src/customer/domain/x.py",
            "from chassis.write.store import EventStore",
            "from chassis.write.events import Event",
        ),
        (
            "services/customer/src/customer/domain/x.py",
            "from customer.app import run",
            "from customer.domain import y",
        ),
        ("services/customer/src/customer/domain/x.py", "import asyncio", "import decimal"),
    ],
    "a-pattern-ends-at-the-very-end": [
        (
            "services/customer/src/customer/domain/x.py",
            "Code = Annotated[str, Meta(pattern='^[A-Z]{3}$')]",
            "Code = Annotated[str, Meta(pattern=r'^[A-Z]{3}(?![\\s\\S])')]",
        ),
        ("libs/chassis/src/chassis/x.py", "p = re.compile(r'[a-z]+$')", "p = re.compile(r'[a-z]+')"),
    ],
    "no-double-of-our-own-code": [
        ("libs/chassis/src/chassis/x.py", "from unittest.mock import patch", "from unittest import TestCase"),
        ("libs/chassis/tests/x.py", "from unittest import mock", "from unittest import TestCase"),
        (
            "services/customer/tests/x.py",
            "def test(monkeypatch):\n    monkeypatch.setattr('customer.app.ROWS_MAX', 1)",
            "def test(monkeypatch):\n    monkeypatch.setattr('tempfile.tempdir', '/nowhere')",
        ),
        (
            "cli/tests/x.py",
            "from crm_cli import up\ndef test(monkeypatch):\n    monkeypatch.setattr(up, 'TICK_SECONDS', 1)",
            "import sys\ndef test(monkeypatch):\n    monkeypatch.setattr(sys, 'argv', [])",
        ),
        (
            "tests/e2e/x.py",
            "class Page:\n    text = ''\ndef test(monkeypatch):\n    monkeypatch.setattr(Page, 'text', 'x')",
            "def test(monkeypatch):\n    monkeypatch.setenv('CRM_PORT', '1')",
        ),
    ],
    "an-assertion-can-fail": [
        ("cli/tests/x.py", "assert found == {1} or True", "assert found == {1} or not found"),
        ("tests/e2e/x.py", "assert (found, 'nothing is there')", "assert found, 'nothing is there'"),
    ],
    "names-are-standard-terms": [
        ("services/customer/src/customer/x.py", "class CustomerDesk: ...", "class CustomerApplication: ..."),
        ("libs/chassis/src/chassis/x.py", "def gathered(asked): ...", "def coalesced(asked): ..."),
        ("libs/chassis/src/chassis/x.py", "self._journals = 1", "asyncio.gather(a, b)"),
    ],
    "modules-are-named-for-what-they-do": [
        ("libs/chassis/src/chassis/utils.py", "X = 1", ""),
        (
            "services/customer/src/customer/domain/x.py",
            "class CustomerUpdated(Event): ...",
            "class CustomerMoved(Event): ...",
        ),
    ],
}
CASES = [
    pytest.param(name, path, bad, good, id=f"{name}-{number}")
    for name, broken in BROKEN.items()
    for number, (path, bad, good) in enumerate(broken)
]


@pytest.fixture(scope="module")
def copy_of_the_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources alone, in a folder that may be broken."""
    copy = tmp_path_factory.mktemp("repository")
    for pattern in house_rules.SOURCE_GLOBS:
        for path in ROOT.glob(pattern):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return copy


def test_the_repository_keeps_the_house_rules() -> None:
    violations = house_rules.check(ROOT)
    assert not violations, "\n".join(map(str, violations))


def test_the_rules_see_every_package() -> None:
    packages = {source.package for source in house_rules.sources(ROOT)}
    assert packages >= {"contracts", "chassis", "devservers", "customer", "sync_ingest", "crm_cli"}


def test_a_broken_file_is_found_wherever_it_lies(copy_of_the_sources: Path) -> None:
    deep = copy_of_the_sources / "services/customer/src/customer/views/deep/x.py"
    deep.parent.mkdir(parents=True)
    deep.write_text("key = uuid4()")
    assert [v for v in house_rules.check(copy_of_the_sources) if v.path.parts[-2:] == ("deep", "x.py")]
    shutil.rmtree(deep.parent)


def test_every_rule_is_broken_once_here() -> None:
    assert set(BROKEN) == set(house_rules.RULES)


@pytest.mark.parametrize(("name", "path", "bad", "good"), CASES)
def test_a_broken_rule_is_seen(name: str, path: str, bad: str, good: str, copy_of_the_sources: Path) -> None:
    file = copy_of_the_sources / path
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_text(bad)
        broken = house_rules.parse(copy_of_the_sources, file)
        assert (name, path) in {(v.rule, str(v.path)) for v in house_rules.check_source(broken)}

        if good:
            file.write_text(good)
            assert name not in {
                v.rule for v in house_rules.check_source(house_rules.parse(copy_of_the_sources, file))
            }
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
