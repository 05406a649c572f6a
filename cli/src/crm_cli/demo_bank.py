"""A made-up bank: some hundred customers and a year of their postings, from a seed.

Pure: the same plan gives the same bytes on every machine. It also says what an honest reader must find in them
(`Expected`), computed while the bank is made and not by reading the lines back. Nobody in it exists: identity
numbers carry an area code that was never given out, phones a block that is not in use, mail goes to example.com.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董潘袁蔡蒋余于杜叶程苏魏吕丁任沈"
)
COMPOUND_SURNAMES = ("欧阳", "司马", "上官", "诸葛", "夏侯", "慕容")
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀英霞平刚桂晨曦宇轩子涵梓睿浩然欣怡诗雅博文思远嘉琪俊凯雨桐一诺"
ENGLISH_FIRST = (
    "Grace",
    "Oliver",
    "Amelia",
    "Henry",
    "Sofia",
    "Marcus",
    "Priya",
    "Lucas",
    "Hannah",
    "Victor",
    "Ines",
)
ENGLISH_LAST = (
    "Bennett",
    "Okafor",
    "Lindqvist",
    "Moreau",
    "Tanaka",
    "Novak",
    "Fraser",
    "Silva",
    "Weber",
    "D'Souza",
)
COMPANY_WORDS = ("晨光", "启明", "海润", "远景", "金桥", "天禾", "云帆", "盛达")
COMPANY_TRADES = ("贸易有限公司", "科技有限公司", "餐饮管理有限公司", "物流有限公司")
DISTRICTS = (
    "北京市朝阳区",
    "上海市浦东新区",
    "广州市天河区",
    "深圳市南山区",
    "成都市锦江区",
    "杭州市西湖区",
    "武汉市洪山区",
)
BRANCHES = ("BJ-0101", "SH-0203", "GZ-0307", "SZ-0402", "CD-0501", "HZ-0605")
MERCHANTS = (
    "盒马鲜生",
    "京东商城",
    "滴滴出行",
    "星巴克",
    "中石化加油站",
    "美团外卖",
    "宜家家居",
    "新华书店",
    "Apple Store",
    "春秋航空",
)
UTILITIES = ("国家电网", "自来水公司", "燃气集团", "中国移动")
PAYROLL_BANKS = (("102100000021", "6222000000000001"), ("105100000017", "6217000000000002"))
TAGS = ("房贷客户", "高净值潜力客户", "理财客户")
"""The dictionary of tags: who has a loan, who earns well and holds no wealth product, who holds one."""
TAGGED_AMONG = 60
PROMISING_INCOME_MINOR = 1_500_000
"""A month."""
DAYS_IN_A_YEAR = 365

BIRTHDAYS = 21_500
"""Days on which customers of the demo bank are born."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """How large the bank is and how many accidents happen. Counts are of lines, days are the bank's own days."""

    seed: int = 20260
    customers: int = 360
    source: str = "demo"
    first_on: date = date(2025, 11, 1)
    days: int = DAYS_IN_A_YEAR
    duplicates: int = 120
    late: int = 90
    reversals: int = 60
    unknown_account_postings: int = 6
    malformed: int = 0


@dataclass(slots=True)
class Expected:
    """What an honest reader finds: lines by outcome, and per account and currency what the movements sum to."""

    records: int = 0
    parties: int = 0
    accounts: int = 0
    postings: int = 0
    duplicates: int = 0
    malformed: int = 0
    controls: int = 0
    credits_minor: int = 0
    debits_minor: int = 0
    closing_minor: dict[tuple[str, str], int] = field(default_factory=dict)
    unknown_accounts: set[str] = field(default_factory=set)
    holders: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DemoBank:
    """The feed, one canonical JSON record per line, and what must come of it."""

    plan: DemoPlan
    lines: tuple[bytes, ...]
    expected: Expected
    tagged: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Some parties, with the tags that staff give their customers."""

    @property
    def feed(self) -> bytes:
        """The whole feed as one file."""
        return b"".join(line + b"\n" for line in self.lines)


@dataclass(slots=True)
class _Account:
    number: str
    product: str
    currency: str
    branch: str
    opened_on: date
    balance_minor: int = 0


@dataclass(slots=True)
class _Customer:
    key: str
    name: str
    company: bool
    income_minor: int
    branch: str
    current: _Account
    wealth: _Account | None = None
    foreign: _Account | None = None
    loan: _Account | None = None
    loan_payment_minor: int = 0
    card: _Account | None = None
    rent_minor: int = 0
    landlord: str = ""


@dataclass(frozen=True, slots=True)
class _Booked:
    """A line of the day with the day on which it reaches us."""

    arrives_on: date
    order: int
    record: dict[str, object]


class _Builder:
    def __init__(self, plan: DemoPlan) -> None:
        self.plan = plan
        self.chance = Random(plan.seed)  # noqa: S311 - a reproducible bank, no secret
        self.expected = Expected()
        self.master: list[dict[str, object]] = []
        self.booked: list[_Booked] = []
        self.customers: list[_Customer] = []
        self._numbers = 0
        self._transactions = 0

    def build(self) -> DemoBank:
        self._people()
        self._joint_holders()
        for day in range(self.plan.days):
            self._day(self.plan.first_on + timedelta(days=day))
        self._unknown_account()
        self._reversals()
        self._late()
        ordered = sorted(self.booked, key=lambda booked: (booked.arrives_on, booked.order))
        lines = [_line(record) for record in self.master] + [_line(booked.record) for booked in ordered]
        lines = self._duplicated(lines, first=len(self.master))
        lines = self._malformed(lines, first=len(self.master))
        lines += self._controls(lines)
        self.expected.records = len(lines)
        return DemoBank(self.plan, tuple(lines), self.expected, self._tagged())

    def _tagged(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        found = []
        for customer in self.customers[:TAGGED_AMONG]:
            promising = customer.wealth is None and customer.income_minor >= PROMISING_INCOME_MINOR
            holds = customer.loan is not None, promising, customer.wealth is not None
            tags = tuple(tag for tag, held in zip(TAGS, holds, strict=True) if held)
            if tags:
                found.append((customer.key, tags))
        return tuple(found)

    # people and what they hold

    def _people(self) -> None:
        for number in range(1, self.plan.customers + 1):
            company = self.chance.random() < 0.06
            key = f"P{number:06d}"
            branch = self.chance.choice(BRANCHES)
            name = self._company_name() if company else self._name()
            income_minor = int(self.chance.lognormvariate(13.9, 0.55)) * (8 if company else 1)
            self._party(key, name, company=company)
            customer = _Customer(
                key, name, company, income_minor, branch, self._account(key, "deposit", "CNY", branch)
            )
            self._products(customer)
            self.customers.append(customer)

    def _party(self, key: str, name: str, *, company: bool) -> None:
        # By the number of the party: no two of them have one identity number. 7,919 and the days have no divisor in common.
        born_on = date(1945, 1, 1) + timedelta(days=self.expected.parties * 7_919 % BIRTHDAYS)
        self.master.append(
            {
                "record": "party",
                "party": key,
                "kind": "company" if company else "person",
                "name": name,
                "born_on": None if company else born_on.isoformat(),
                "identity_number": None
                if company
                else self._identity_number(born_on, self.expected.parties // BIRTHDAYS),
                "phone": f"1990000{self.chance.randrange(10_000):04d}",
                "email": f"{key.lower()}@example.com",
                "address": f"{self.chance.choice(DISTRICTS)}示例路{self.chance.randrange(1, 999)}号",
            }
        )
        self.expected.parties += 1

    def _products(self, customer: _Customer) -> None:
        key, branch, chance = customer.key, customer.branch, self.chance
        if chance.random() < 0.42:
            customer.wealth = self._account(key, "wealth", "CNY", branch)
        if chance.random() < 0.12:
            customer.foreign = self._account(key, "deposit", "USD", branch)
        if chance.random() < 0.22 and not customer.company:
            customer.loan = self._account(key, "loan", "CNY", branch)
            months = chance.choice((12, 24, 36, 60))
            customer.loan_payment_minor = max(50_000, customer.income_minor // 5 // 100 * 100)
            self.master.append(
                {
                    "record": "loan",
                    "loan": f"L{customer.loan.number}",
                    "account": customer.loan.number,
                    "granted_on": self.plan.first_on.isoformat(),
                    "amount_minor": customer.loan_payment_minor * months,
                    "currency": "CNY",
                    "duration_months": months,
                    "payment_minor": customer.loan_payment_minor,
                    "status": "running",
                }
            )
        if chance.random() < 0.55 and not customer.company:
            customer.card = self._account(key, "card", "CNY", branch)
            self.master.append(
                {
                    "record": "card",
                    "card": f"622999{chance.randrange(10**10):010d}",
                    "account": customer.card.number,
                    "party": key,
                    "kind": chance.choice(("classic", "gold", "platinum")),
                    "issued_on": self.plan.first_on.isoformat(),
                }
            )
        if chance.random() < 0.35 and not customer.company:
            customer.rent_minor = max(100_000, customer.income_minor // 4 // 1_000 * 1_000)
            customer.landlord = self._name()
            self.master.append(
                {
                    "record": "standing-order",
                    "order": f"S{customer.current.number}",
                    "account": customer.current.number,
                    "amount_minor": customer.rent_minor,
                    "currency": "CNY",
                    "kind": "household",
                    "counterparty_bank": PAYROLL_BANKS[1][0],
                    "counterparty_account": f"621799{chance.randrange(10**10):010d}",
                }
            )

    def _joint_holders(self) -> None:
        people = [customer for customer in self.customers if not customer.company]
        for first, second in zip(people[::9], people[4::9], strict=False):
            self._holder(first.current.number, second.key, "joint")

    def _account(self, party: str, product: str, currency: str, branch: str) -> _Account:
        self._numbers += 1
        account = _Account(f"6210{self._numbers:010d}", product, currency, branch, self.plan.first_on)
        self.master.append(
            {
                "record": "account",
                "account": account.number,
                "product": product,
                "currency": currency,
                "branch": branch,
                "opened_on": account.opened_on.isoformat(),
            }
        )
        self.expected.accounts += 1
        self._holder(account.number, party, "owner")
        return account

    def _holder(self, account: str, party: str, role: str) -> None:
        self.master.append({"record": "holder", "account": account, "party": party, "role": role})
        self.expected.holders.setdefault(account, set()).add(party)

    def _name(self) -> str:
        chance = self.chance
        if chance.random() < 0.08:
            return f"{chance.choice(ENGLISH_FIRST)} {chance.choice(ENGLISH_LAST)}"
        surname = chance.choice(COMPOUND_SURNAMES) if chance.random() < 0.03 else chance.choice(SURNAMES)
        return surname + "".join(chance.choice(GIVEN) for _ in range(chance.choice((1, 2, 2))))

    def _company_name(self) -> str:
        return self.chance.choice(COMPANY_WORDS) + self.chance.choice(COMPANY_TRADES)

    def _identity_number(self, born_on: date, order: int) -> str:
        body = f"990000{born_on:%Y%m%d}{order:03d}"
        weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
        total = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True))
        return body + "10X98765432"[total % 11]

    # a day at the bank

    def _day(self, day: date) -> None:
        opening = day == self.plan.first_on
        for customer in self.customers:
            if opening:
                self._open(customer, day)
            if day.day == 10 or (customer.company and day.day == 20):
                self._income(customer, day)
            self._monthly(customer, day)
            self._everyday(customer, day)

    def _open(self, customer: _Customer, day: date) -> None:
        self._post(
            customer.current,
            customer.income_minor * self.chance.randrange(1, 6),
            day,
            kind="cash",
            channel="counter",
            text="开户存款",
            teller=f"T{self.chance.randrange(100):03d}",
        )
        if customer.foreign:
            self._post(
                customer.foreign,
                self.chance.randrange(20_000, 900_000),
                day,
                kind="transfer",
                text="汇入汇款",
            )
        if customer.loan:
            amount_minor = customer.loan_payment_minor * 24
            self._transfer(
                customer.loan, customer.current, amount_minor, day, kind="transfer", text="贷款发放"
            )

    def _income(self, customer: _Customer, day: date) -> None:
        bank, account = self.chance.choice(PAYROLL_BANKS)
        self._post(
            customer.current,
            customer.income_minor,
            day,
            kind="transfer",
            channel="clearing",
            text="货款" if customer.company else "工资",
            counterparty_bank=bank,
            counterparty_account=account,
            counterparty_name=self._company_name(),
        )

    def _monthly(self, customer: _Customer, day: date) -> None:
        current = customer.current
        if day.day == 5 and customer.rent_minor and current.balance_minor > customer.rent_minor:
            self._post(
                current,
                -customer.rent_minor,
                day,
                kind="household",
                channel="standing-order",
                text="房租",
                counterparty_name=customer.landlord,
            )
        if day.day == 15:
            amount_minor = self.chance.randrange(3_000, 40_000)
            if current.balance_minor > amount_minor:
                name = self.chance.choice(UTILITIES)
                self._post(
                    current,
                    -amount_minor,
                    day,
                    kind="household",
                    channel="app",
                    text="缴费",
                    counterparty_name=name,
                )
        payment = customer.loan_payment_minor
        owes = customer.loan is not None and -customer.loan.balance_minor >= payment
        if day.day == 18 and customer.loan and owes and current.balance_minor > payment:
            self._transfer(current, customer.loan, payment, day, kind="loan_repayment", text="贷款还款")
        if day.day == 25 and customer.card and customer.card.balance_minor < 0:
            owed = min(-customer.card.balance_minor, max(0, current.balance_minor))
            if owed:
                self._transfer(current, customer.card, owed, day, kind="transfer", text="信用卡还款")
        if day.day == 21 and day.month % 3 == 0 and current.balance_minor > 10_000:
            self._post(current, current.balance_minor // 2_000 + 1, day, kind="interest", text="结息")

    def _everyday(self, customer: _Customer, day: date) -> None:
        chance, current = self.chance, customer.current
        if customer.card and chance.random() < 0.11:
            merchant = chance.choice(MERCHANTS)
            spent = int(chance.lognormvariate(9.2, 0.9)) + 100
            self._post(
                customer.card,
                -spent,
                day,
                kind="card",
                channel="pos",
                text="消费",
                counterparty_name=merchant,
            )
        if chance.random() < 0.05:
            amount_minor = chance.randrange(1, 30) * 10_000
            if current.balance_minor > amount_minor:
                self._post(current, -amount_minor, day, kind="cash", channel="atm", text="取现")
        if chance.random() < 0.04:
            other = chance.choice(self.customers)
            amount_minor = chance.randrange(1_000, 500_000)
            if other is not customer and current.balance_minor > amount_minor:
                self._transfer(
                    current,
                    other.current,
                    amount_minor,
                    day,
                    kind="transfer",
                    text="转账",
                    names=(other.name, customer.name),
                )
        if customer.wealth and chance.random() < 0.015:
            amount_minor = current.balance_minor // 3 // 100_000 * 100_000
            if amount_minor > 0:
                self._transfer(current, customer.wealth, amount_minor, day, kind="wealth", text="购买理财")
        if customer.wealth and customer.wealth.balance_minor > 0 and chance.random() < 0.004:
            gain = customer.wealth.balance_minor // 100
            self._post(customer.wealth, gain, day, kind="interest", text="理财收益")
            self._transfer(
                customer.wealth, current, customer.wealth.balance_minor, day, kind="wealth", text="赎回理财"
            )

    def _transfer(
        self,
        payer: _Account,
        payee: _Account,
        amount_minor: int,
        day: date,
        *,
        kind: str,
        text: str,
        names: tuple[str, str] | None = None,
    ) -> None:
        transaction = self._transaction(day)
        to_name, from_name = names or (None, None)
        for leg, account, other, signed, name in (
            (1, payer, payee, -amount_minor, to_name),
            (2, payee, payer, amount_minor, from_name),
        ):
            self._post(
                account,
                signed,
                day,
                kind=kind,
                channel="app",
                text=text,
                transaction=transaction,
                leg=leg,
                counterparty_account=other.number,
                counterparty_name=name,
            )

    def _post(
        self,
        account: _Account,
        amount_minor: int,
        day: date,
        *,
        transaction: str | None = None,
        leg: int = 1,
        **details: str | None,
    ) -> None:
        account.balance_minor += amount_minor
        record: dict[str, object] = {
            "record": "posting",
            "account": account.number,
            "core_transaction_id": transaction or self._transaction(day),
            "leg": leg,
            "amount_minor": amount_minor,
            "currency": account.currency,
            "booked_on": day.isoformat(),
            "value_on": day.isoformat(),
            "product": account.product,
            "branch": account.branch,
            **{name: value for name, value in details.items() if value is not None},
        }
        self._book(record, arrives_on=day)

    def _book(self, record: dict[str, object], arrives_on: date) -> None:
        self.booked.append(_Booked(arrives_on, len(self.booked), record))
        amount_minor = _amount_minor(record)
        key = (str(record["account"]), str(record["currency"]))
        expected = self.expected
        expected.postings += 1
        expected.closing_minor[key] = expected.closing_minor.get(key, 0) + amount_minor
        expected.credits_minor += max(amount_minor, 0)
        expected.debits_minor += max(-amount_minor, 0)

    def _transaction(self, day: date) -> str:
        self._transactions += 1
        return f"{day:%Y%m%d}-{self._transactions:08d}"

    # the usual accidents

    def _unknown_account(self) -> None:
        number = "6210999999999999"
        self.expected.unknown_accounts.add(number)
        account = _Account(number, "deposit", "CNY", BRANCHES[0], self.plan.first_on)
        for step in range(self.plan.unknown_account_postings):
            day = self.plan.first_on + timedelta(days=self.plan.days // 2 + step)
            self._post(account, 1_000 * (step + 1), day, kind="transfer", text="待查入账")

    def _reversals(self) -> None:
        candidates = [b for b in self.booked if b.record.get("channel") == "pos"]
        for original in self.chance.sample(candidates, min(self.plan.reversals, len(candidates))):
            day = min(original.arrives_on + timedelta(days=self.chance.randrange(1, 4)), self._last_on)
            record = original.record | {
                "core_transaction_id": self._transaction(day),
                "amount_minor": -_amount_minor(original.record),
                "booked_on": day.isoformat(),
                "value_on": original.record["value_on"],
                "text": "冲正",
                "reverses": original.record["core_transaction_id"],
            }
            self._book(record, arrives_on=day)

    def _late(self) -> None:
        reversed_ids = {b.record.get("reverses") for b in self.booked}
        candidates = [
            index
            for index, booked in enumerate(self.booked)
            if "reverses" not in booked.record and booked.record["core_transaction_id"] not in reversed_ids
        ]
        for index in self.chance.sample(candidates, min(self.plan.late, len(candidates))):
            booked = self.booked[index]
            later = min(booked.arrives_on + timedelta(days=self.chance.randrange(2, 40)), self._last_on)
            self.booked[index] = _Booked(later, booked.order, booked.record)

    @property
    def _last_on(self) -> date:
        return self.plan.first_on + timedelta(days=self.plan.days - 1)

    def _duplicated(self, lines: list[bytes], first: int) -> list[bytes]:
        result = list(lines)
        for _ in range(self.plan.duplicates):
            at = self.chance.randrange(first, len(lines))
            line = lines[at]
            after = self.chance.randrange(result.index(line) + 1, len(result) + 1)
            result.insert(after, line)
            self.expected.duplicates += 1
        return result

    def _malformed(self, lines: list[bytes], first: int) -> list[bytes]:
        result = list(lines)
        for spoil in SPOILERS[: self.plan.malformed]:
            line = next(
                text
                for text in lines[self.chance.randrange(first, len(lines) - 100) :]
                if b'"posting"' in text
            )
            result.insert(self.chance.randrange(first, len(result)), spoil(line))
            self.expected.malformed += 1
        return result

    def _controls(self, lines: list[bytes]) -> list[bytes]:
        """Control totals of the feed: every line of a posting, and the sums of those that can be read."""
        postings = [record for line in lines if (record := _posting_of(line))]
        sums: dict[str, list[int]] = {}
        for record in postings:
            amount_minor = _amount_minor(record)
            of_currency = sums.setdefault(str(record["currency"]), [0, 0])
            of_currency[amount_minor < 0] += abs(amount_minor)
        stated: list[dict[str, object]] = [{"records": len(postings) + self.expected.malformed}]
        stated += [
            {"credits_minor": credits, "debits_minor": debits, "currency": currency}
            for currency, (credits, debits) in sorted(sums.items())
        ]
        self.expected.controls = len(stated)
        return [_line({"record": "control"} | figures) for figures in stated]


def _posting_of(line: bytes) -> dict[str, object] | None:
    """The posting of a line, unless it is another record or was spoilt."""
    try:
        record: dict[str, object] = json.loads(line)
    except ValueError:
        return None
    spoilt = str(record.get("core_transaction_id")).startswith("bad-")
    return None if spoilt or record.get("record") != "posting" else record


def _changed(field_name: str, value: object) -> Callable[[bytes], bytes]:
    def spoil(line: bytes) -> bytes:
        record = json.loads(line)
        record["core_transaction_id"] = f"bad-{field_name}-{record['core_transaction_id']}"
        return _line(record | {field_name: value})

    return spoil


SPOILERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda line: line[: len(line) // 2],
    lambda line: b"\x00\xff\xfe\x81 " + line[:20],
    lambda line: line.replace(b'"', b"'"),
    _changed("amount_minor", "12..34"),
    _changed("amount_minor", 12.34),
    _changed("amount_minor", None),
    _changed("booked_on", "2026-02-30"),
    _changed("currency", "CNYY"),
    _changed("account", ""),
    _changed("leg", -1),
)
"""Ways in which a line arrives broken: each must end in quarantine, and no other line is affected."""


def _amount_minor(record: dict[str, object]) -> int:
    amount_minor = record["amount_minor"]
    if not isinstance(amount_minor, int):
        raise TypeError("the generator books integers only")
    return amount_minor


def _line(record: dict[str, object]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def make(plan: DemoPlan | None = None) -> DemoBank:
    """Makes the bank of `plan`; the same plan gives the same bytes."""
    return _Builder(plan or DemoPlan()).build()


def records(bank: DemoBank) -> Iterator[dict[str, object]]:
    """The readable records of the feed, duplicates included."""
    for line in bank.lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        yield record
