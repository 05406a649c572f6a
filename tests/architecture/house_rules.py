"""House rules as small checks over syntax trees: what CONTRIBUTING asks for and no linter knows.

A rule is a function from one parsed source file to its violations. `check(root)` runs all of them over every
source package of the repository. `test_house_rules.py` breaks each rule once and sees it fail.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("libs/*/src", "services/*/src", "cli/src")
SOURCE_GLOBS = tuple(f"{folder}/**/*.py" for folder in SOURCE_ROOTS)
TEST_GLOBS = (
    "libs/*/tests/**/*.py",
    "services/*/tests/**/*.py",
    "cli/tests/**/*.py",
    "tests/**/*.py",
    "benchmarks/**/*.py",
)
OF_TESTS_TOO = frozenset({"no-double-of-our-own-code", "an-assertion-can-fail"})
"""The rules that tests keep as well."""
KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
CLOCK_MODULE = "chassis.clock"
"""The one module that may ask the operating system for time, identity and chance."""
SAYS_WHICH_DAY_IT_IS = frozenset({"chassis.business_dates", "chassis.calendar.calendar"})
PRINTING_PACKAGES = frozenset({"crm_cli"})
BANNED_MODULE_NAMES = frozenset(
    {"common", "utils", "util", "helpers", "helper", "manager", "managers", "misc"}
)
STANDARD_TERMS = {
    "desk": "application service",
    "door": "dependency or guard",
    "gather": "request coalescing",
    "gathered": "waiting",
    "gathering": "request coalescing",
    "journal": "event store",
    "laid": "dead letter",
    "buried": "dead letter",
    "purse": "running balance",
    "tally": "control total",
}
"""By the word that no name has: the term of the field, or of the bank, that stands for it."""
BANK_NOUNS = frozenset(
    [
        "customer",
        "account",
        "posting",
        "loan",
        "card",
        "deposit",
        "wealth",
        "branch",
        "teller",
        "panorama",
        "holder",
        "campaign",
        "ticket",
        "berka",
        "iban",
        "counterparty",
        "mortgage",
        "aum",
    ]
)
ASKS_THE_CLOCK = frozenset(
    [
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "time.time",
        "time.time_ns",
        "time.monotonic",
    ]
)
ASKS_FOR_IDENTITY = frozenset(["uuid4", "uuid1", "uuid.uuid4", "uuid.uuid1", "uuid7", "uuid.uuid7"])
CHANCE_MODULES = frozenset({"random", "secrets"})
DOMAIN_MAY_IMPORT = frozenset(
    [
        "contracts.identity",
        "contracts.purposes",
        "chassis.write.events",
        "chassis.write.deciding",
        "chassis.privacy.keys",
        "chassis.money",
    ]
)
DOMAIN_LIBRARIES = frozenset({"msgspec", "typing_extensions"})
STANDARD_INFRASTRUCTURE = frozenset(
    [
        "asyncio",
        "socket",
        "http",
        "urllib",
        "subprocess",
        "threading",
        "multiprocessing",
        "sqlite3",
        "os",
        "logging",
        "time",
        "random",
        "secrets",
    ]
)
OUR_PACKAGES = frozenset(
    {"tests", *(path.parent.name for folder in SOURCE_ROOTS for path in ROOT.glob(f"{folder}/*/__init__.py"))}
)
_PATCHES = frozenset({"setattr", "delattr"})
QUOTES_DATA = frozenset(
    [
        "BaseException",
        "Exception",
        "KeyError",
        "LookupError",
        "TypeError",
        "AttributeError",
        "AssertionError",
        "psycopg.Error",
        "DatabaseError",
        "DataError",
        "IntegrityError",
        "UniqueViolation",
        "BSONError",
    ]
)
"""Errors whose text may be what they failed on."""
QUEUES = frozenset({"Queue", "LifoQueue", "PriorityQueue"})


@dataclass(frozen=True, slots=True)
class Source:
    """One parsed source file: where it is, its dotted module name, its tree."""

    path: Path
    module: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def in_domain(self) -> bool:
        parts = self.module.split(".")
        return len(parts) > 1 and parts[1] == "domain"


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule and where: `rule` is the rule's function name in kebab-case."""

    rule: str
    path: Path
    line: int
    detail: str

    @override
    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.detail}"


Findings = Iterable[tuple[int, str]]
Rule = Callable[[Source], Findings]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    """Registers a rule under its own name."""
    RULES[function.__name__.replace("_", "-")] = function
    return function


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a name or attribute chain, else the empty string."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            before = dotted(value)
            return f"{before}.{attribute}" if before else ""
        case _:
            return ""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every imported module with its line; `from a import b` gives `a.b`, which may be a module or a name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case _:
                continue


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((word.value for word in call.keywords if word.arg == name), None)


@rule
def no_float_for_money(source: Source) -> Findings:
    """Money is integer minor units: the domain and the published language know no float, nor `/`, which makes one."""
    if not (source.in_domain or source.package == "contracts"):
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Name(id="float"):
                yield node.lineno, "float"
            case ast.Constant(value=float()):
                yield node.lineno, f"the literal {node.value!r}"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield node.lineno, "true division; use // with a stated rounding, or Fraction(a, b)"
            case _:
                continue


@rule
def time_identity_and_chance_are_arguments(source: Source) -> Findings:
    """Only the clock module asks the machine what time it is or for a new identity; the domain asks for no chance."""
    if source.module == CLOCK_MODULE:
        return
    for call, name in calls(source.tree):
        last_two = ".".join(name.split(".")[-2:])
        if last_two in {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}:
            yield call.lineno, f"{name}()"
        if name.split(".")[-1] in {"uuid4", "uuid1"}:
            yield call.lineno, f"{name}()"
        if source.in_domain and (
            last_two in ASKS_THE_CLOCK or name in ASKS_FOR_IDENTITY or last_two == "os.urandom"
        ):
            yield call.lineno, f"{name}() in the domain"
    if source.in_domain:
        for line, module in imports(source.tree):
            if module.partition(".")[0] in CHANCE_MODULES:
                yield line, f"{module} in the domain"


@rule
def which_day_it_is_for_the_bank_is_said_in_one_place(source: Source) -> Findings:
    """A day that is read off an instant leaves the cut-off out: `BusinessDates` knows both, and says which is which."""
    if source.module in SAYS_WHICH_DAY_IT_IS:
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    attr="date", value=ast.Call(func=ast.Attribute(attr="astimezone"), args=zone)
                )
            ) if [ast.unparse(each) for each in zone] != ["UTC"]:
                yield node.lineno, "the date of an instant; ask BusinessDates for it"
            case ast.Call(
                func=ast.Attribute(
                    attr="date",
                    value=ast.Name(id="now")
                    | ast.Attribute(attr="now")
                    | ast.Call(func=ast.Attribute(attr="now")),
                ),
                args=[],
            ):
                yield node.lineno, "the date of now in UTC; ask BusinessDates for it"
            case _:
                continue


@rule
def every_match_in_the_domain_is_closed(source: Source) -> Findings:
    """A `match` in the domain ends in `case _: assert_never(...)`, so a new event is a type error, not a silence."""
    if not source.in_domain:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Match) and not _closed(node.cases[-1]):
            yield node.lineno, "the last case is not `case _: assert_never(...)`"


def _closed(case: ast.match_case) -> bool:
    open_pattern = (
        isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None
    )
    last = case.body[-1]
    value = last.value if isinstance(last, ast.Expr | ast.Return) else None
    return open_pattern and isinstance(value, ast.Call) and dotted(value.func).endswith("assert_never")


@rule
def no_print_outside_the_command_line(source: Source) -> Findings:
    """Services log; only the `crm` command prints."""
    if source.package in PRINTING_PACKAGES:
        return
    for call, name in calls(source.tree):
        if name == "print" and keyword(call, "file") is None:
            yield call.lineno, "print()"


@rule
def stored_names_are_kebab_case(source: Source) -> Findings:
    """Names that outlive their class, in a catalogue's entries and as codes of refusals, are kebab-case."""
    for call, name in calls(source.tree):
        entries = keyword(call, "entries")
        if name.split(".")[-1] == "Catalogue" and isinstance(entries, ast.Dict):
            for key in entries.keys:
                text = key.value if isinstance(key, ast.Constant) else None
                if isinstance(text, str) and not KEBAB.fullmatch(text):
                    yield call.lineno, f"stored name {text!r}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            for line, text in _codes(node):
                if not KEBAB.fullmatch(text):
                    yield line, f"code {text!r}"


def _codes(class_def: ast.ClassDef) -> Iterator[tuple[int, str]]:
    for statement in class_def.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(text)))
                | ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str(text)))
            ):
                yield statement.lineno, text
            case _:
                continue


@rule
def everything_that_waits_has_a_limit(source: Source) -> Findings:
    """Queues and caches have a number: a queue without one is a leak that shows on the worst day."""
    for call, name in calls(source.tree):
        last = name.split(".")[-1]
        if last in QUEUES and not _has_limit(call.args[0] if call.args else keyword(call, "maxsize")):
            yield call.lineno, f"{name} without maxsize"
        if last == "SimpleQueue":
            yield call.lineno, f"{name} cannot be bounded"
        if last == "lru_cache" and not _has_limit(call.args[0] if call.args else keyword(call, "maxsize")):
            yield call.lineno, f"{name} without maxsize"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            node.args.args or node.args.kwonlyargs
        ):
            for decorator in node.decorator_list:
                if dotted(decorator) in {"cache", "functools.cache"}:
                    yield node.lineno, "functools.cache on a function with arguments"


def _has_limit(value: ast.expr | None) -> bool:
    match value:
        case None | ast.Constant(value=None | 0):
            return False
        case ast.UnaryOp(op=ast.USub()):
            return False
        case _:
            return True


@rule
def no_swallowed_failure(source: Source) -> Findings:
    """No bare `except`; whoever catches BaseException raises it again."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            yield node.lineno, "bare except"
        elif dotted(node.type) == "BaseException" and not any(
            isinstance(n, ast.Raise) for n in ast.walk(node)
        ):
            yield node.lineno, "BaseException caught and not raised again"


@rule
def an_error_that_may_quote_data_is_told_by_its_reason(source: Source) -> Findings:
    """No text of an error that may quote a key, a value or a row; `reason_of` and `why` know what may be told."""
    if source.package == "devservers":
        return
    for handler in ast.walk(source.tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None or handler.type is None:
            continue
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        if not any({dotted(each), dotted(each).rpartition(".")[2]} & QUOTES_DATA for each in caught):
            continue
        for node in ast.walk(handler):
            if isinstance(node, ast.FormattedValue):
                told = [node.value]
            elif isinstance(node, ast.Call) and dotted(node.func) in {"str", "repr"}:
                told = node.args
            else:
                continue
            if any(isinstance(each, ast.Name) and each.id == handler.name for each in told):
                yield node.lineno, f"the text of {handler.name!r}"


@rule
def instants_are_aware(source: Source) -> Findings:
    """An instant without a zone is a different instant on every machine."""
    for call, name in calls(source.tree):
        last_two = ".".join(name.split(".")[-2:])
        if (
            name in {"datetime", "datetime.datetime"}
            and len(call.args) < 8
            and keyword(call, "tzinfo") is None
            and not any(word.arg is None for word in call.keywords)
        ):
            yield call.lineno, "datetime(...) without tzinfo"
        if last_two in {"datetime.utcnow", "datetime.utcfromtimestamp"}:
            yield call.lineno, f"{name}()"
        if last_two == "datetime.fromtimestamp" and len(call.args) < 2 and keyword(call, "tz") is None:
            yield call.lineno, "fromtimestamp() without a zone"


@rule
def a_day_or_instant_that_a_caller_states_has_one_form(source: Source) -> Findings:
    """Pydantic reads a number as seconds since 1970: bodies and queries take `StatedDay` and `StatedInstant`."""
    for node in ast.walk(source.tree):
        match node:
            case ast.ClassDef(bases=bases) if any(dotted(base).endswith("Body") for base in bases):
                stated: list[ast.AST] = [
                    one.annotation for one in node.body if isinstance(one, ast.AnnAssign)
                ]
            case ast.Subscript(value=ast.Name(id="Annotated")) if "Query" in {n for _, n in calls(node)}:
                stated = [node.slice]
            case _:
                continue
        for one in [each for annotation in stated for each in ast.walk(annotation)]:
            if isinstance(one, ast.Name) and one.id in {"date", "datetime", "AwareDatetime"}:
                yield one.lineno, f"{one.id} instead of StatedDay or StatedInstant"


@rule
def the_chassis_knows_no_bank(source: Source) -> Findings:
    """The mechanism has no noun of the bank in any name: what it carries is the services' business."""
    if source.package != "chassis":
        return
    for node in ast.walk(source.tree):
        for name in _names_of(node):
            found = _words_of(name) & BANK_NOUNS
            if found:
                yield getattr(node, "lineno", 1), f"{name!r} names {sorted(found)[0]!r}"


@rule
def names_are_standard_terms(source: Source) -> Findings:
    """A word of our own for a thing that the field has a term for is a word that a newcomer has to ask about."""
    for node in ast.walk(source.tree):
        for name in _names_of(node):
            if not isinstance(node, ast.Attribute) or _is_own(node):
                for word in sorted(_words_of(name) & STANDARD_TERMS.keys()):
                    yield getattr(node, "lineno", 1), f"{name!r}: {STANDARD_TERMS[word]}, not {word}"


def _is_own(node: ast.Attribute) -> bool:
    """Whether an attribute is of the object itself. One of another may be a library's."""
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def _words_of(name: str) -> set[str]:
    """The words of a name in small letters, one of several things as of one."""
    return {word.rstrip("s").lower() for word in re.findall(r"[a-z]+|[A-Z][a-z]*", name)}


def _names_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case _:
            return


@rule
def every_consumer_names_its_group_and_its_acknowledgement(source: Source) -> Findings:
    """The defaults of both Kafka libraries lose records; what a subscriber relies on is written down."""
    for call, name in calls(source.tree):
        last = name.split(".")[-1]
        if any(word.arg is None for word in call.keywords):
            continue
        if last == "subscriber":
            needed: tuple[str, ...] = ("group_id", "ack_policy", "auto_offset_reset")
        elif last == "AIOKafkaConsumer":
            needed = ("enable_auto_commit", "auto_offset_reset")
        elif last == "AIOKafkaProducer":
            needed = ("acks", "enable_idempotence")
        else:
            continue
        for word in needed:
            if keyword(call, word) is None:
                yield call.lineno, f"{last} without {word}"


@rule
def the_domain_imports_only_the_domain(source: Source) -> Findings:
    """Beside the standard library a domain module knows its own package, identities, and the event vocabulary."""
    if not source.in_domain:
        return
    own = f"{source.package}.domain"
    for line, name in imports(source.tree):
        top = name.partition(".")[0]
        ours = top in OUR_PACKAGES
        if ours:
            allowed = any(
                name == prefix or name.startswith(f"{prefix}.") for prefix in (*DOMAIN_MAY_IMPORT, own)
            )
        else:
            allowed = top in DOMAIN_LIBRARIES or (_is_standard(top) and top not in STANDARD_INFRASTRUCTURE)
        if not allowed:
            yield line, f"import of {name}"


def _is_standard(top: str) -> bool:
    return top in sys.stdlib_module_names


_PYTHON_PATTERNS = frozenset({"re.compile", "re.match", "re.search", "re.fullmatch", "Meta", "msgspec.Meta"})


@rule
def a_pattern_ends_at_the_very_end(source: Source) -> Findings:
    """`$` of Python's `re`, which msgspec uses too, also matches before a line end: "CNY\\n" would be a currency.

    pydantic's own engine has no such `$`, so its patterns, which stay valid ECMA-262, may use it.
    """
    for call, name in calls(source.tree):
        if name in _PYTHON_PATTERNS:
            given = call.args[0] if name.startswith("re.") and call.args else keyword(call, "pattern")
            for node in ast.walk(given) if given else ():
                if isinstance(node, ast.Constant) and str(node.value).endswith("$"):
                    yield call.lineno, f"{name} with a pattern that ends in $"


@rule
def no_double_of_our_own_code(source: Source) -> Findings:
    """Tests and code run the real thing; a mock agrees with whoever wrote it.

    What a test wants otherwise is an argument: nothing is set in a module or class that is there. An attribute of a
    foreign library may be, and the environment.
    """
    foreign = set(_foreign_names(source.tree))
    for line, name in imports(source.tree):
        if name.startswith(("unittest.mock", "mock.")) or name == "mock":
            yield line, f"import of {name}"
    for call, name in calls(source.tree):
        if name.rpartition(".")[2] in _PATCHES and "patch" in name.rpartition(".")[0] and call.args:
            match call.args[0]:
                case ast.Constant(value=str(target)):
                    ours = target.partition(".")[0] in OUR_PACKAGES
                case target:
                    ours = dotted(target).partition(".")[0] not in foreign
            if ours:
                yield call.lineno, f"{name} of our own code"


@rule
def an_assertion_can_fail(source: Source) -> Findings:
    """No `assert ... or True`, and no `assert (x, "said")`, which is a tuple and so true."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert) and _always_true(node.test):
            yield node.lineno, "an assertion that is always true"


def _always_true(test: ast.expr) -> bool:
    match test:
        case ast.Constant(value=value):
            return bool(value)
        case ast.Tuple(elts=elements):
            return bool(elements)
        case ast.BoolOp(op=ast.Or(), values=values):
            return any(_always_true(each) for each in values)
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_always_true(each) for each in values)
        case _:
            return False


def _foreign_names(tree: ast.AST) -> Iterator[str]:
    """Names that are imported from packages that are not ours."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.partition(".")[0] not in OUR_PACKAGES:
                        yield alias.asname or alias.name.partition(".")[0]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                if module.partition(".")[0] not in OUR_PACKAGES:
                    yield from (alias.asname or alias.name for alias in names)
            case _:
                continue


@rule
def modules_are_named_for_what_they_do(source: Source) -> Findings:
    """No `common`, `utils`, `helpers`, `manager`; events are facts, so no class is called `...Event`."""
    last = source.module.rpartition(".")[2]
    if last in BANNED_MODULE_NAMES:
        yield 1, f"module {source.module}"
    if source.in_domain:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and re.search(
                r"(Updated|[a-z]Event|Command|Exception|DTO)\Z", node.name
            ):
                yield node.lineno, f"class {node.name}"


def sources(root: Path, globs: Iterable[str] = SOURCE_GLOBS) -> Iterator[Source]:
    """Every source file of every package under `root`."""
    for pattern in globs:
        for path in sorted(root.glob(pattern)):
            yield parse(root, path)


def parse(root: Path, path: Path) -> Source:
    """Reads one file; its module name is what follows `src/`."""
    relative = path.relative_to(root)
    inside = relative.parts[relative.parts.index("src") + 1 :] if "src" in relative.parts else relative.parts
    module = ".".join(inside).removesuffix(".py").removesuffix(".__init__")
    return Source(relative, module, ast.parse(path.read_text(encoding="utf-8"), filename=str(relative)))


def check_source(source: Source) -> Iterator[Violation]:
    """All violations in one file: of all rules, or of those that tests keep as well."""
    of_a_test = "src" not in source.path.parts
    for name, function in RULES.items():
        if of_a_test and name not in OF_TESTS_TOO:
            continue
        for line, detail in function(source):
            yield Violation(name, source.path, line, detail)


def check(root: Path) -> list[Violation]:
    """All violations of all rules in the repository at `root`."""
    every = sources(root, (*SOURCE_GLOBS, *TEST_GLOBS))
    return [violation for source in every for violation in check_source(source)]
