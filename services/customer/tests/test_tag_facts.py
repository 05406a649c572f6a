"""The tags in the facts of customers, as the deriver keeps them, against a short model of what happened."""

import asyncio
from collections import defaultdict
from itertools import pairwise
from uuid import UUID

import pytest
from customer.derived.customer_facts import depending, derive
from customer.domain.tag import code_of, stream_of
from customer.views import customers, tags
from hypothesis import example, given
from hypothesis import strategies as st

from .told import Teller

CUSTOMERS = [UUID(int=number) for number in range(1, 4)]
CODES = [code_of(name) for name in "abcde"]
CODE = st.sampled_from(CODES)
CUSTOMER = st.sampled_from(CUSTOMERS)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("added"), CUSTOMER, CODE),
        st.tuples(st.just("removed"), CUSTOMER, CODE),
        st.tuples(st.just("merged"), CODE, CODE),
        st.tuples(st.just("renamed"), CODE, st.text(min_size=1, max_size=5)),
        st.tuples(st.sampled_from(["retired", "reinstated", "accepted"]), CODE, st.none()),
    ),
    max_size=40,
)


class Documents:
    """The inputs of the facts in memory: what the views fold of events."""

    def __init__(self):
        self.kept = defaultdict(dict)

    def take(self, event):
        """Folds an event; returns what it touched."""
        view = tags if event.type.startswith("tag.") else customers
        [key] = view.keys(event)
        place = view.VIEW.name, key.collection
        document = view.project(key, self.kept[place].get(key.id), event)
        self.kept[place][key.id] = {**document, "_id": key.id, "_seq": event.sequence}
        return {place: {key.id}}

    def day(self):
        return "2026-01-31"

    async def by_id(self, view, collection, ids, fields=()):
        there = self.kept[view, collection]
        return {id: there[id] for id in ids if id in there}

    async def having(self, view, collection, field, values, fields=()):
        first, _, rest = field.partition(".")
        wanted = set(values)

        def has(value):
            return any(one[rest] in wanted for one in value) if rest else value in wanted

        return [one for one in self.kept[view, collection].values() if has(one[first])]

    async def digests(self, values):
        return [None] * len(values)


class Model:
    """What each customer has, as a person would work it out: every tag followed to the one that it stands for, at the end."""

    def __init__(self):
        self.has = {customer: set() for customer in CUSTOMERS}
        self.into = {}

    def end(self, code):
        return self.end(self.into[code]) if code in self.into else code

    def allows(self, what, one, other):
        if what == "merged":
            return one not in self.into and other not in self.into and one != other
        if what == "added":
            return other not in self.has[one]
        return other in self.has[one] if what == "removed" else one not in self.into

    def act(self, what, one, other):
        if what == "added":
            self.has[one].add(other)
        elif what == "removed":
            self.has[one].remove(other)
        elif what == "merged":
            self.into[one] = other

    def tags(self, customer):
        return sorted({self.end(code) for code in self.has[customer]})


def said(teller, what, one, other):
    if what in {"added", "removed"}:
        more = {"origin": "manual", "rule": None} if what == "added" else {}
        return teller.tell(one, f"customer.tag_{what}", code=other, **more)
    more = {
        "merged": {"into": other},
        "renamed": {"name": other},
    }.get(what, {})
    return teller.tell(stream_of(one), f"tag.{what}", code=one, **more)


@pytest.mark.requirement("R025")
@given(ACTS, st.integers(1, 5))
@example([("added", CUSTOMERS[0], CODES[0]), *(("merged", *pair) for pair in pairwise(CODES))], 1)
def test_the_facts_hold_the_tags_that_those_of_the_customer_stand_for(acts, batch):
    """Each batch of events is derived as the deriver does: only what depends on the documents that it touched."""
    teller, inputs, model, facts = Teller(), Documents(), Model(), {}

    async def derived(touched):
        facts.update(await derive(inputs, sorted(await depending(inputs, touched))))

    async def play():
        begun = [teller.tell(one, "customer.registered", kind="person", origin="staff") for one in CUSTOMERS]
        begun += [
            teller.tell(stream_of(code), "tag.defined", code=code, name=code, kind="free") for code in CODES
        ]
        touched = defaultdict(set)
        events = list(begun)
        for act in acts:
            if model.allows(*act):
                model.act(*act)
                events.append(said(teller, *act))
        for number, event in enumerate(events, 1):
            for place, ids in inputs.take(event).items():
                touched[place] |= ids
            if number % batch == 0 or number == len(events):
                await derived(touched)
                touched = defaultdict(set)

    asyncio.run(play())
    for customer in CUSTOMERS:
        assert facts[str(customer)]["tags"] == model.tags(customer)
