"""Links of one party over time: the write side, the view and a model of one list of links agree on every day."""

from datetime import date, timedelta
from uuid import UUID

import msgspec
from chassis.write.deciding import Refusal
from contracts.identity import ExternalIds
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
from customer.holdings import parties_on
from customer.views import customers
from hypothesis import given
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


class Model:
    """Links as `[from, until, confirmed]`, oldest first; a claim that was given up has `until` and shows nothing."""

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
                self.links[-1][1] = day

    def shows_on(self, day):
        return any(since <= day < until for since, until, confirmed in self.links if confirmed)

    def stands_on(self, day):
        return self.shows_on(day) or any(
            until == date.max for _, until, confirmed in self.links if not confirmed
        )

    @property
    def related_until(self):
        """The day on which the last confirmed link ended, `date.max` where it stands; None where none was confirmed."""
        return max((until for _, until, confirmed in self.links if confirmed), default=None)

    @property
    def free(self):
        """Whether nobody stands in the way of another link from today on, as the service asks before it links."""
        return not any(
            until > TODAY if confirmed else until == date.max for _, until, confirmed in self.links
        )


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
            assert state.has(CORE.party, each) is model.stands_on(each), (kind, day, each)
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
