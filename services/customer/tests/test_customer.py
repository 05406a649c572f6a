"""A customer's rules, as given, when, then."""

from datetime import date, timedelta
from uuid import UUID

import msgspec
import pytest
from contracts.identity import ExternalIds
from customer.domain.commands import (
    AdoptDescription,
    ChangeContactDetails,
    ConfirmReference,
    CorrectIdentityDetails,
    Details,
    LinkReference,
    Reference,
    RegisterCustomer,
    RejectReference,
    RenameCustomer,
    ResolveContradiction,
    TakeOverReference,
    UnlinkReference,
)
from customer.domain.customer import customer_decider, identify
from customer.domain.events import (
    BranchAssigned,
    ContactDetailsChanged,
    ContradictionResolved,
    CustomerRegistered,
    CustomerRenamed,
    DeclaredAsset,
    DetailsConfirmed,
    DetailsContradicted,
    IdentityDetailsCorrected,
    IdentityNumberShared,
    ReferenceClaimed,
    ReferenceConfirmed,
    ReferenceDisputed,
    ReferenceLinked,
    ReferenceRejected,
    ReferenceUnlinked,
)
from customer.domain.refusals import (
    REFERENCES_MAX,
    ContradictionUnknown,
    CustomerAlreadyRegistered,
    CustomerNotRegistered,
    ReferenceNotLinked,
    ReferenceSettled,
    TooManyReferences,
)
from customer.domain.state import Link
from hypothesis import given
from hypothesis import strategies as st

from tests.support.specification import Specification

customer = Specification(customer_decider)
zhang = Details(name="张伟", phone="13800001234")
ids = ExternalIds(bytes(32))
core = Reference.of(ids, "core", "4711")
core_linked = ReferenceLinked(source="core", party_id=ids.party("core", "4711"), key="4711")
by_staff = CustomerRegistered(name="张伟", kind="person", origin="staff", phone="13800001234")
by_source = CustomerRegistered(
    name="张伟", kind="person", origin="master-data", phone="13800001234", source="core", party_id=core.party
)
core_claimed = ReferenceClaimed(source="core", party_id=core.party, key="4711")
core_confirmed = ReferenceConfirmed(source="core", party_id=core.party)
core_says = {"source": "core", "party_id": core.party}
TODAY = date(2026, 2, 1)
TOMORROW = date(2026, 2, 2)


def describe(details, reference=core, day=TODAY):
    return AdoptDescription(reference, details, day)


def test_staff_register_a_customer_with_declared_assets():
    stated = DeclaredAsset("deposit", 30_000_000, "CNY")
    customer.given().when(RegisterCustomer(zhang, (core, core), (stated,))).then(
        msgspec.structs.replace(by_staff, stated_assets=(stated,)), core_claimed
    )


def test_a_customer_cannot_be_registered_twice():
    customer.given(by_staff).when(RegisterCustomer(zhang)).then_rejected(CustomerAlreadyRegistered)


def test_master_data_registers_a_described_party_and_links_it():
    customer.given().when(describe(zhang)).then(by_source, core_linked)


def test_the_same_description_again_gives_no_event():
    customer.given(by_source, core_linked).when(describe(zhang)).then_nothing()


def test_a_later_description_gives_one_event_for_each_kind_of_change():
    later = Details(name="张伟明", phone="13900005678", born_on="1980-02-29")
    customer.given(by_source, core_linked).when(describe(later)).then(
        CustomerRenamed(name="张伟明", **core_says),
        ContactDetailsChanged(phone="13900005678", email=None, address=None, changed=("phone",), **core_says),
        IdentityDetailsCorrected(
            born_on="1980-02-29", identity_number=None, changed=("born_on",), **core_says
        ),
    ).when(describe(later)).then_nothing()


def test_a_field_that_a_description_leaves_out_is_kept():
    customer.given(by_source, core_linked).when(describe(Details(name=None))).then_nothing()


def test_a_value_of_staff_is_kept_beside_the_value_of_a_source():
    customer.given(by_staff, core_linked).when(describe(Details(name="ZHANG WEI", phone="13800001234"))).then(
        DetailsConfirmed(fields=("phone",), **core_says), DetailsContradicted(name="ZHANG WEI", **core_says)
    ).when(describe(Details(name="ZHANG WEI", phone="13800001234"))).then_nothing()


def test_a_correction_by_staff_stands_when_the_source_changes_another_field():
    """The phone that the core bank sends with every description is not a change of its own."""
    corrected = customer.given(by_source, core_linked).when(ChangeContactDetails("13700000001", None, None))
    story = corrected.then(
        ContactDetailsChanged(phone="13700000001", email=None, address=None, changed=("phone",))
    )
    moved = Details(name="张伟", phone="13800001234", address="上海市浦东新区")
    story = story.when(describe(moved)).then(
        ContactDetailsChanged(
            phone="13700000001", email=None, address="上海市浦东新区", changed=("address",), **core_says
        )
    )
    own = msgspec.structs.replace(moved, phone="13900009999")
    contradicted = story.when(describe(own)).then(DetailsContradicted(phone="13900009999", **core_says))
    contradicted.when(describe(own)).then_nothing()
    for accept, phone in ((True, "13900009999"), (False, "13700000001")):
        resolved = ContradictionResolved(field="phone", accepted=accept, **core_says)
        after = contradicted.when(ResolveContradiction("phone", core.party, accept)).then(resolved)
        state = customer_decider.fold(after.history)
        assert (state.values["phone"], state.contradictions) == (phone, {})
        after.when(ResolveContradiction("phone", core.party, accept)).then_rejected(ContradictionUnknown)
        after.when(describe(own)).then_nothing()
    agreed = contradicted.when(describe(msgspec.structs.replace(own, phone="13700000001"))).then(
        DetailsConfirmed(fields=("phone",), **core_says)
    )
    assert customer_decider.fold(agreed.history).contradictions == {}


def test_a_contact_detail_that_staff_removed_stays_removed():
    customer.given(by_source, core_linked).when(ChangeContactDetails(None, None, None)).then(
        ContactDetailsChanged(phone=None, email=None, address=None, changed=("phone",))
    ).when(describe(zhang)).then_nothing()


def test_a_claimed_reference_waits_for_its_confirmation():
    customer.given(by_staff).when(LinkReference(core)).then(core_claimed).when(
        LinkReference(core)
    ).then_nothing().when(ConfirmReference(core.party)).then(core_confirmed).when(
        ConfirmReference(core.party)
    ).then_nothing()


same = Details(name="张伟", phone="13800001234", identity_number="11010519491231002X")
identified = msgspec.structs.replace(by_staff, identity_number="11010519491231002X")


def test_master_data_confirms_a_claimed_reference_of_the_same_person():
    agreed = DetailsConfirmed(fields=("name", "phone", "identity_number"), **core_says)
    customer.given(identified, core_claimed).when(describe(same)).then(core_confirmed, agreed)
    born = msgspec.structs.replace(by_staff, born_on="1949-12-31")
    customer.given(born, core_claimed).when(describe(Details(name="张伟", born_on="1949-12-31"))).then(
        core_confirmed, DetailsConfirmed(fields=("name", "born_on"), **core_says)
    )


@pytest.mark.parametrize(
    "other",
    [
        {"name": "张伟", "identity_number": "110105194912310038"},
        {"name": "张伟", "born_on": "1949-12-31", "identity_number": "110105194912310038"},
        {"name": "张伟"},
        {"name": "李娜", "born_on": "1949-12-31"},
    ],
)
def test_a_claimed_reference_of_somebody_else_is_disputed_and_takes_nothing_over(other):
    history = [msgspec.structs.replace(identified, born_on="1949-12-31"), core_claimed]
    described = Details(**other)
    disputed = (
        customer.given(*history).when(describe(described)).then(ReferenceDisputed(**core_says, **other))
    )
    disputed.when(describe(described)).then_nothing()
    disputed.when(RejectReference(core.party)).then(ReferenceRejected(**core_says)).when(
        ConfirmReference(core.party)
    ).then_rejected(ReferenceNotLinked)
    confirmed = disputed.when(ConfirmReference(core.party))
    assert confirmed.decided[0] == core_confirmed
    assert confirmed.then(*confirmed.decided).when(describe(described)).then_nothing()


@pytest.mark.parametrize("number", ["E12345678", "无"])
def test_an_identity_number_without_a_checksum_confirms_a_claim_only_with_the_same_name(number):
    """Two countries may give one number, and a placeholder is nobody's."""
    history = [msgspec.structs.replace(by_staff, identity_number=number), core_claimed]
    for name, decided in (
        ("张伟", ReferenceConfirmed),
        ("李娜", ReferenceDisputed),
        (None, ReferenceDisputed),
    ):
        described = Details(name=name, identity_number=number)
        assert type(customer.given(*history).when(describe(described)).decided[0]) is decided
        proven = msgspec.structs.replace(described, proven=True)
        assert type(customer.given(*history).when(describe(proven)).decided[0]) is ReferenceConfirmed


def test_a_shared_identity_number_is_a_question_once_and_again_only_with_another_number():
    one, two = UUID(int=1), UUID(int=2)

    def sharing(number, with_whom, **other):
        details = Details(name="张伟", phone="13800001234", identity_number=number, **other)
        return AdoptDescription(core, details, TODAY, None, with_whom)

    def shared(with_whom):
        return IdentityNumberShared(customer_id=with_whom, **core_says)

    numbered = msgspec.structs.replace(by_source, identity_number="E1")
    story = customer.given().when(sharing("E1", one)).then(numbered, core_linked, shared(one))
    story.when(sharing("E1", one)).then_nothing()
    moved = story.when(sharing("E1", one, address="上海市")).decided
    assert [type(event) for event in moved] == [ContactDetailsChanged]
    corrected = IdentityDetailsCorrected(
        born_on=None, identity_number="E2", changed=("identity_number",), **core_says
    )
    story.when(sharing("E2", two)).then(corrected, shared(two))


def test_a_shared_identity_number_that_is_stated_again_is_claimed():
    claim = UUID(int=7)
    again = CorrectIdentityDetails(None, "E1", claim)
    shared = IdentityNumberShared(customer_id=UUID(int=1), **core_says)
    by_core = msgspec.structs.replace(by_source, identity_number="E1")
    claimed = IdentityDetailsCorrected(
        born_on=None, identity_number="E1", changed=("identity_number",), number_claim=claim
    )
    story = customer.given(by_core, core_linked, shared).when(again).then(claimed)
    story.when(again).then_nothing()
    customer.given(by_core, core_linked).when(again).then_nothing()
    by_staff = CustomerRegistered(name="张伟", kind="person", origin="staff", identity_number="E1")
    beside = DetailsContradicted(identity_number="E2", **core_says)
    customer.given(by_staff, core_linked, beside, shared).when(again).then_nothing()


def test_a_confirmation_by_a_person_takes_over_the_description_that_waited():
    disputed = ReferenceDisputed(name="李娜", phone="1", address="上海市", identity_number="E2", **core_says)
    bare = CustomerRegistered(name="李娜", kind="person", origin="staff")
    confirming = ConfirmReference(core.party, UUID(int=5), UUID(int=1), ("phone", "name"))
    customer.given(bare, core_claimed, disputed).when(confirming).then(
        core_confirmed,
        ContactDetailsChanged(
            phone="1",
            email=None,
            address="上海市",
            changed=("phone", "address"),
            invalid=("phone",),
            **core_says,
        ),
        IdentityDetailsCorrected(
            born_on=None,
            identity_number="E2",
            changed=("identity_number",),
            number_claim=UUID(int=5),
            **core_says,
        ),
        DetailsConfirmed(fields=("name",), **core_says),
        IdentityNumberShared(customer_id=UUID(int=1), **core_says),
    ).when(confirming).then_nothing()


def test_a_description_that_waited_is_forgotten_with_the_confirmation():
    disputed = ReferenceDisputed(phone="13900009999", **core_says)
    state = customer_decider.fold([by_staff, core_claimed, disputed, core_confirmed])
    assert state.links == {core.party: Link("core", "4711", True)}


def test_an_event_from_before_changed_fields_were_named_changes_those_that_differ():
    """What staff stated of the other fields is not the source's then, and a source's next value contradicts it."""
    old = ContactDetailsChanged(phone="13800001234", email="z@example.com", address=None, **core_says)
    state = customer_decider.fold([by_staff, core_linked, old])
    assert (state.stated_by["phone"], state.stated_by["email"]) == (None, core.party)
    assert state.last == {core.party: {"email": "z@example.com"}}


def test_each_event_of_a_description_names_its_own_invalid_fields_and_its_source():
    wrong = ("name", "phone", "address", "identity_number", "branch")
    first = Details(name="", phone="1", invalid=("name", "phone"))
    registered = msgspec.structs.replace(by_source, name="", phone="1", invalid=("name", "phone"))
    story = customer.given().when(describe(first)).then(registered, core_linked)
    second = Details(
        name="-", phone="2", identity_number="0", branch="?", born_on="1980-02-29", invalid=wrong
    )
    story.when(describe(second)).then(
        CustomerRenamed(name="-", invalid=("name",), **core_says),
        ContactDetailsChanged(
            phone="2", email=None, address=None, changed=("phone",), invalid=("phone",), **core_says
        ),
        IdentityDetailsCorrected(
            born_on="1980-02-29",
            identity_number="0",
            changed=("born_on", "identity_number"),
            invalid=("identity_number",),
            **core_says,
        ),
        BranchAssigned(branch="?", invalid=("branch",), **core_says),
    )
    against = customer.given(by_staff, core_linked).when(describe(second)).decided[-1]
    assert against == DetailsContradicted(name="-", phone="2", invalid=("name", "phone"), **core_says)


def test_a_correction_that_leaves_the_identity_number_as_it_is_claims_none():
    claiming = CorrectIdentityDetails("1980-02-29", None, UUID(int=5))
    customer.given(by_staff).when(claiming).then(
        IdentityDetailsCorrected(born_on="1980-02-29", identity_number=None, changed=("born_on",))
    )


def test_a_resolved_contradiction_claims_an_identity_number_that_is_accepted_and_nothing_else():
    against = DetailsContradicted(phone="13900009999", identity_number="E1", **core_says)
    story = customer.given(by_staff, core_linked, against)
    for field, accept, claim in (
        ("identity_number", True, UUID(int=5)),
        ("identity_number", False, None),
        ("phone", True, None),
    ):
        resolving = ResolveContradiction(field, core.party, accept, number_claim=UUID(int=5))
        story.when(resolving).then(
            ContradictionResolved(field=field, accepted=accept, number_claim=claim, **core_says)
        )


def test_what_neither_description_has_makes_no_two_one_person():
    customer.given(by_staff, core_claimed).when(describe(Details(name="张伟"))).then(
        ReferenceDisputed(name="张伟", **core_says)
    )


def test_a_reference_is_unlinked_on_a_day_and_linked_again_under_another_identity():
    unlinked = ReferenceUnlinked(until=TOMORROW, **core_says)
    story = customer.given(by_source, core_linked).when(UnlinkReference(core.party, TOMORROW)).then(unlinked)
    story.when(UnlinkReference(core.party, TOMORROW)).then_nothing()
    story.when(UnlinkReference(core.party, TOMORROW + timedelta(days=1))).then_rejected(ReferenceSettled)
    story.when(RejectReference(core.party)).then_rejected(ReferenceSettled)
    renamed = Details(name="张伟明", phone="13800001234")
    assert story.when(describe(renamed)).decided[0] == CustomerRenamed(name="张伟明", **core_says)
    story.when(describe(renamed, day=TOMORROW)).then_nothing()
    again = msgspec.structs.replace(core, claim=UUID(int=5))
    linked = story.when(TakeOverReference(again, TOMORROW)).then(again.linked(TOMORROW))
    assert [identify(one) for one in linked.history] == [None, core.party, None, UUID(int=5)]


def test_an_announced_end_of_a_link_is_brought_forward():
    story = customer.given(by_source, core_linked, ReferenceUnlinked(until=TOMORROW, **core_says))
    earlier = story.when(UnlinkReference(core.party, TODAY)).then(ReferenceUnlinked(until=TODAY, **core_says))
    assert not customer_decider.fold(earlier.history).has_later(core.party, TODAY)


def test_a_claim_that_is_given_up_ends_at_once_and_nothing_confirms_it():
    announced = ReferenceUnlinked(until=TOMORROW, **core_says)
    story = customer.given(identified, core_claimed).when(UnlinkReference(core.party, TOMORROW))
    story = story.then(announced)
    assert not customer_decider.fold(story.history).has_later(core.party, TODAY)
    story.when(describe(same)).then_nothing()
    story.when(ConfirmReference(core.party)).then_rejected(ReferenceSettled)
    story.when(UnlinkReference(core.party, TODAY)).then_rejected(ReferenceSettled)


def test_a_claim_that_is_rejected_leaves_what_was_known_of_the_link_before():
    contradicted = DetailsContradicted(phone="13900009999", **core_says)
    ended = ReferenceUnlinked(until=TODAY, **core_says)
    history = [
        by_staff,
        core_linked,
        contradicted,
        ended,
        msgspec.structs.replace(core_claimed, claim=UUID(int=5)),
    ]
    story = customer.given(*history).when(RejectReference(core.party)).then(ReferenceRejected(**core_says))
    assert customer_decider.fold(story.history) == customer_decider.fold(history[:-1])
    resolved = ContradictionResolved(field="phone", accepted=True, **core_says)
    story.when(ResolveContradiction("phone", core.party, True)).then(resolved)


def test_a_confirmed_reference_is_unlinked_and_not_rejected():
    customer.given(by_source, core_linked).when(RejectReference(core.party)).then_rejected(ReferenceSettled)
    customer.given(by_source).when(UnlinkReference(core.party, TODAY)).then_rejected(ReferenceNotLinked)


def test_an_unregistered_customer_cannot_be_linked_or_changed():
    customer.given().when(LinkReference(core)).then_rejected(CustomerNotRegistered)
    customer.given().when(ChangeContactDetails("1", None, None)).then_rejected(CustomerNotRegistered)
    customer.given().when(RenameCustomer("张三")).then_rejected(CustomerNotRegistered)
    customer.given().when(CorrectIdentityDetails(None, "1")).then_rejected(CustomerNotRegistered)


def test_references_are_bounded():
    many = tuple(Reference.of(ids, "core", str(number)) for number in range(REFERENCES_MAX + 1))
    customer.given().when(RegisterCustomer(zhang, many)).then_rejected(TooManyReferences)
    full = customer.given().when(RegisterCustomer(zhang, many[:-1])).decided
    customer.given(*full).when(LinkReference(many[-1])).then_rejected(TooManyReferences)
    customer.given(*full).when(LinkReference(many[0])).then_nothing()
    ended = ReferenceUnlinked(source="core", party_id=many[0].party, until=TODAY)
    again = msgspec.structs.replace(many[0], claim=UUID(int=5))
    customer.given(*full, ended).when(LinkReference(again)).then(again.claimed())


def test_unchanged_contact_details_give_no_event():
    same = ChangeContactDetails("13800001234", None, None)
    customer.given(by_staff).when(same).then_nothing()
    customer.given(by_staff).when(ChangeContactDetails(None, "z@example.com", None)).then(
        ContactDetailsChanged(phone=None, email="z@example.com", address=None, changed=("phone", "email"))
    )


def test_an_unchanged_name_or_identity_gives_no_event():
    customer.given(by_staff).when(RenameCustomer("张伟")).then_nothing()
    customer.given(by_staff).when(RenameCustomer("张三")).then(CustomerRenamed(name="张三")).when(
        RenameCustomer("张三")
    ).then_nothing()
    customer.given(by_staff).when(CorrectIdentityDetails(None, None)).then_nothing()
    customer.given(by_staff).when(CorrectIdentityDetails("1980-02-29", None)).then(
        IdentityDetailsCorrected(born_on="1980-02-29", identity_number=None, changed=("born_on",))
    )


def test_a_link_and_a_proven_identity_number_are_unique_in_the_store():
    assert [identify(one) for one in (by_staff, CustomerRenamed(name="张三"))] == [None, None]
    assert [identify(one) for one in (core_linked, core_claimed)] == [core.party, core.party]
    numbered = RegisterCustomer(same, number_claim=UUID(int=9))
    [registered] = customer.given().when(numbered).decided
    assert identify(registered) == UUID(int=9)


FIELDS = ("name", "phone", "email", "address", "born_on", "identity_number", "branch")
other_core = Reference.of(ids, "fund", "7")
values = st.sampled_from(["a", "b", "c"])
descriptions = st.fixed_dictionaries({field: st.none() | values for field in FIELDS})
steps = st.lists(
    st.one_of(
        st.tuples(st.just("describe"), st.sampled_from([core, other_core]), descriptions),
        st.tuples(st.just("change"), st.sampled_from(["phone", "email", "address"]), st.none() | values),
        st.tuples(st.just("resolve"), st.sampled_from([core, other_core]), st.booleans()),
    ),
    max_size=12,
)


class Model:
    """Of each field a value, who stated it, what each source last stated, and what is stated against staff."""

    def __init__(self):
        self.stands = dict.fromkeys(FIELDS) | {"name": "a"}
        self.staff = set()
        self.last = {core.party: {"name": "a"}, other_core.party: {}}
        self.against = {}

    def describe(self, reference, described):
        for field, value in described.items():
            if value is None or self.last[reference.party].get(field) == value:
                continue
            self.last[reference.party][field] = value
            self.against.pop((field, reference.party), None)
            if self.stands[field] != value and field in self.staff:
                self.against[field, reference.party] = value
            else:
                self.stands[field] = value
        return describe(Details(**described), reference)

    def change(self, field, value):
        now = {one: self.stands[one] for one in ("phone", "email", "address")} | {field: value}
        if self.stands[field] != value:
            self.settle(field, value)
            self.staff.add(field)
        return ChangeContactDetails(**now)

    def resolve(self, reference, accept):
        found = sorted(field for field, party in self.against if party == reference.party)
        if not found:
            return None
        value = self.against.pop((found[0], reference.party))
        if accept:
            self.settle(found[0], value)
            self.staff.discard(found[0])
        return ResolveContradiction(found[0], reference.party, accept)

    def settle(self, field, value):
        self.stands[field] = value
        self.against = {key: stated for key, stated in self.against.items() if key[0] != field}


@given(steps)
def test_details_follow_the_model(taken):
    history = [
        CustomerRegistered(name="a", kind="person", origin="master-data", **core_says),
        core_linked,
        other_core.linked(),
    ]
    model = Model()
    for kind, whom, what in taken:
        command = getattr(model, kind)(whom, what)
        if command is None:
            continue
        history += customer_decider.decide(command, customer_decider.fold(history))
        after = customer_decider.fold(history)
        assert {field: after.values.get(field) for field in FIELDS} == model.stands
        found = {(field, party): of[party] for field, of in after.contradictions.items() for party in of}
        assert found == model.against
        assert {field for field, by in after.stated_by.items() if by is None} == model.staff
        if kind == "describe":
            assert customer_decider.decide(command, after) == []
