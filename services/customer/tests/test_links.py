"""Links of one party over time: the write side, the view and a model of one list of links agree on every day."""

from datetime import date, timedelta
from uuid import UUID

import msgspec
from chassis.write.deciding import Refusal
from contracts.identity import ExternalIds
from customer.claims import CLAIMS_MAX
from customer.domain.commands import (
    AdoptDescription,
    ConfirmReference,
    Details,
    LinkReference,
    Reference,
    RejectReference,
    TakeOverReference,
    UnlinkReference,
)
from customer.domain.customer import customer_decider
from customer.domain.events import (
    STORED_NAMES,
    CustomerRegistered,
    ReferenceClaimed,
    ReferenceConfirmed,
    ReferenceLinked,
    ReferenceRejected,
    ReferenceUnlinked,
)
from customer.domain.refusals import REFERENCES_MAX
from customer.holdings import parties_on
from customer.views import customers
from hypothesis import example, given
from hypothesis import strategies as st

from .told import Teller

CUSTOMER = UUID(int=9)
TODAY = date(2026, 2, 1)
DAYS = [TODAY + timedelta(days) for days in (-400, -1, 0, 1, 400)]
EVER = date(1900, 1, 1)
CORE = Reference.of(ExternalIds(bytes(32)), "core", "4711")
SAME = Details(name="张伟", born_on="1980-02-29")
OTHER = Details(name="李娜", born_on="1980-02-29")
PUBLIC = {
    kind: f"customer.{name.removeprefix('customer-').replace('-', '_')}"
    for name, kind in STORED_NAMES.items()
}

steps = st.lists(
    st.one_of(
        st.tuples(st.just("link"), st.just(TODAY)),
        st.tuples(st.just("take over"), st.sampled_from(DAYS)),
        st.tuples(st.just("unlink"), st.sampled_from(DAYS)),
        st.tuples(st.sampled_from(["confirm", "reject", "same", "other"]), st.just(TODAY)),
    ),
    max_size=12,
)
LINKED = [("link", TODAY), ("confirm", TODAY)]
CLAIM_REJECTED = [("link", TODAY), ("reject", TODAY)]
HELD_BEFORE = [("take over", DAYS[0]), ("unlink", DAYS[1])]


class Model:
    """Links as `[from, until, confirmed]`, oldest first. What is not confirmed shows nothing."""

    def __init__(self):
        self.links = []

    def take(self, event):
        match event:
            case ReferenceLinked(linked_from=day):
                self.links.append([day or EVER, date.max, True])
            case ReferenceClaimed():
                self.links.append([EVER, date.max, False])
            case ReferenceConfirmed():
                self.links[-1][2] = True
            case ReferenceRejected():
                self.links.pop()
            case ReferenceUnlinked(until=day):
                if not self.links[-1][2]:
                    self.links.pop()
                    return
                for one in self.links:
                    one[1] = min(one[1], day)

    def shows_on(self, day):
        return any(since <= day < until for since, until, confirmed in self.links if confirmed)

    def stands_on(self, day):
        return any(since <= day < until for since, until, _ in self.links)

    def ends_after(self, day):
        """Whether the party is the customer's on a day or later, confirmed or not."""
        return any(day < until for _, until, _ in self.links)

    @property
    def related_until(self):
        """The day on which the last confirmed link ended, `date.max` where it stands; None where none was confirmed."""
        return max((until for _, until, confirmed in self.links if confirmed), default=None)

    @property
    def free(self):
        """Whether nobody stands in the way of another link from today on, as the service asks before it links."""
        return not self.ends_after(TODAY)


def command(kind, day, claim):
    reference = msgspec.structs.replace(CORE, claim=claim)
    return {
        "link": LinkReference(reference),
        "take over": TakeOverReference(reference, day),
        "unlink": UnlinkReference(CORE.party, day),
        "confirm": ConfirmReference(CORE.party),
        "reject": RejectReference(CORE.party),
        "same": AdoptDescription(CORE, SAME, TODAY),
        "other": AdoptDescription(CORE, OTHER, TODAY),
    }[kind]


@given(steps)
@example([*LINKED, ("unlink", TODAY), ("link", TODAY), ("unlink", DAYS[4]), ("unlink", DAYS[3])])
@example([*LINKED, ("unlink", TODAY), *LINKED, ("unlink", DAYS[0]), *CLAIM_REJECTED, ("unlink", DAYS[1])])
@example([*HELD_BEFORE, ("take over", DAYS[1]), ("unlink", TODAY), ("take over", TODAY)])
def test_write_side_view_and_model_show_a_party_on_the_same_days(taken):
    registered = CustomerRegistered(name="张伟", kind="person", origin="staff", born_on="1980-02-29")
    state = customer_decider.fold([registered])
    teller, document, model = Teller(), None, Model()
    fields = msgspec.to_builtins(registered)
    document = customers.project(None, None, teller.tell(CUSTOMER, "customer.registered", **fields))
    for number, (kind, day) in enumerate(taken):
        if kind in {"link", "take over"} and not model.free:
            assert state.has_later(CORE.party, TODAY)
            continue
        try:
            events = customer_decider.decide(command(kind, day, UUID(int=number + 100)), state)
        except Refusal:
            continue
        state = customer_decider.fold(events, state)
        for event in events:
            model.take(event)
            public = teller.tell(CUSTOMER, PUBLIC[type(event)], **msgspec.to_builtins(event))
            document = customers.project(None, document, public)
        assert state.has_later(CORE.party, TODAY) is not model.free
        for each in DAYS:
            shown = str(CORE.party) in parties_on(document, each.isoformat())
            assert shown is model.shows_on(each), (kind, day, each)
            stands = state.has(CORE.party, each)
            # Of past days the state knows the last link and one before it.
            assert stands is model.stands_on(each) or (each < TODAY and not stands), (kind, day, each)
            assert state.has_later(CORE.party, each) is model.ends_after(each), (kind, day, each)
        until = {party: end or date.max for party, end in state.confirmed_until().items()}
        assert until.get(CORE.party) == model.related_until


def test_a_number_that_is_claimed_and_given_up_again_and_again_fills_no_state():
    state = customer_decider.fold([CustomerRegistered(name="张伟", kind="person", origin="staff")])
    sizes = set()
    for _ in range(3):
        for kind in ("link", "confirm", "unlink", "link", "unlink") * 100:
            state = customer_decider.fold(customer_decider.decide(command(kind, TODAY, None), state), state)
        sizes.add(len(msgspec.json.encode(state)))
    assert len(sizes) == 1
    assert state.confirmed_until() == {CORE.party: TODAY}


class Linked:
    """A customer's parties on the write side and in the view."""

    def __init__(self):
        registered = CustomerRegistered(name="张伟", kind="person", origin="staff")
        self.state = customer_decider.fold([registered])
        self.teller = Teller()
        public = self.teller.tell(CUSTOMER, "customer.registered", **msgspec.to_builtins(registered))
        self.document = customers.project(None, None, public)

    def take(self, *commands):
        for one in commands:
            events = customer_decider.decide(one, self.state)
            self.state = customer_decider.fold(events, self.state)
            for event in events:
                public = self.teller.tell(CUSTOMER, PUBLIC[type(event)], **msgspec.to_builtins(event))
                self.document = customers.project(None, self.document, public)

    def shown_on(self, day):
        return parties_on(self.document, day.isoformat())


def test_numbers_that_are_linked_and_unlinked_as_often_as_they_can_be_claimed_are_shown_on_each_day():
    references = [Reference.of(ExternalIds(bytes(32)), "core", str(number)) for number in range(3)]
    linked, sizes = Linked(), set()
    for times in range(CLAIMS_MAX):
        day = TODAY + timedelta(times)
        for reference in references:
            party = reference.party
            linked.take(LinkReference(reference), ConfirmReference(party), UnlinkReference(party, day))
        everybody = {str(reference.party) for reference in references}
        assert linked.shown_on(day - timedelta(1)) == everybody
        assert linked.shown_on(day) == set()
        sizes.add(len(linked.document["parties"]))
    assert sizes == {len(references)}


def test_of_links_with_gaps_the_document_keeps_the_newest_and_says_from_which_day():
    linked, held = Linked(), list[date]()
    for times in range(3 * REFERENCES_MAX):
        day = TODAY + timedelta(2 * times)
        linked.take(TakeOverReference(CORE, day), UnlinkReference(CORE.party, day + timedelta(1)))
        held.append(day)
    assert len(linked.document["parties"]) == 2 * REFERENCES_MAX
    since = date.fromisoformat(linked.document["parties_since"])
    assert since == held[REFERENCES_MAX - 1] + timedelta(1)
    shown = [day for number in range(2 * len(held)) if linked.shown_on(day := TODAY + timedelta(number))]
    assert shown == [day for day in held if day >= since]
