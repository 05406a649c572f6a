"""A customer's rules, as given, when, then."""

import msgspec
import pytest
from chassis.testing import Specification
from contracts.identity import OutsideIds
from customer.domain.customer import (
    REFERENCES_MAX,
    AdoptDescription,
    ChangeContactDetails,
    CorrectIdentityDetails,
    CustomerAlreadyRegistered,
    CustomerNotRegistered,
    Details,
    LinkReference,
    Reference,
    RegisterCustomer,
    RenameCustomer,
    TooManyReferences,
    customer_decider,
    identify,
)
from customer.domain.events import (
    ContactDetailsChanged,
    CustomerRegistered,
    CustomerRenamed,
    IdentityDetailsCorrected,
    ReferenceLinked,
    StatedAsset,
)

customer = Specification(customer_decider)
zhang = Details(name="张伟", phone="13800001234")
ids = OutsideIds(bytes(32))
core = Reference.of(ids, "core", "4711")
core_linked = ReferenceLinked(source="core", party_id=ids.party("core", "4711"), key="4711")
by_staff = CustomerRegistered(name="张伟", kind="person", origin="staff", phone="13800001234")
by_source = CustomerRegistered(name="张伟", kind="person", origin="master-data", phone="13800001234")


def test_staff_register_a_customer_with_what_it_states_to_own():
    stated = StatedAsset("deposit", 30_000_000, "CNY")
    customer.given().when(RegisterCustomer(zhang, (core, core), (stated,))).then(
        msgspec.structs.replace(by_staff, stated_assets=(stated,)), core_linked
    )


def test_nobody_is_registered_twice():
    customer.given(by_staff).when(RegisterCustomer(zhang)).then_rejected(CustomerAlreadyRegistered)


def test_master_data_registers_whom_it_describes_and_links_it():
    customer.given().when(AdoptDescription(core, zhang)).then(by_source, core_linked)


def test_the_same_description_again_tells_nothing():
    customer.given(by_source, core_linked).when(AdoptDescription(core, zhang)).then_nothing()


def test_a_later_description_tells_each_change_by_its_name():
    later = Details(name="张伟明", phone="13900005678", born_on="1980-02-29")
    customer.given(by_source, core_linked).when(AdoptDescription(core, later)).then(
        CustomerRenamed(name="张伟明"),
        ContactDetailsChanged(phone="13900005678", email=None, address=None),
        IdentityDetailsCorrected(born_on="1980-02-29", identity_number=None),
    ).when(AdoptDescription(core, later)).then_nothing()


def test_what_a_description_leaves_out_stays():
    customer.given(by_source, core_linked).when(AdoptDescription(core, Details(name=None))).then_nothing()


def test_what_staff_entered_is_not_overwritten_by_a_dump():
    customer.given(by_staff, core_linked).when(
        AdoptDescription(core, Details(name="ZHANG WEI"))
    ).then_nothing()


def test_a_reference_is_linked_once():
    customer.given(by_staff).when(LinkReference(core)).then(core_linked).when(
        LinkReference(core)
    ).then_nothing()


def test_nobody_is_linked_or_changed_before_it_is_registered():
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


def test_contact_details_change_only_when_they_do():
    same = ChangeContactDetails("13800001234", None, None)
    customer.given(by_staff).when(same).then_nothing()
    customer.given(by_staff).when(ChangeContactDetails(None, "z@example.com", None)).then(
        ContactDetailsChanged(phone=None, email="z@example.com", address=None)
    )


def test_a_name_and_what_identifies_change_only_when_they_do():
    customer.given(by_staff).when(RenameCustomer("张伟")).then_nothing()
    customer.given(by_staff).when(RenameCustomer("张三")).then(CustomerRenamed(name="张三")).when(
        RenameCustomer("张三")
    ).then_nothing()
    customer.given(by_staff).when(CorrectIdentityDetails(None, None)).then_nothing()
    customer.given(by_staff).when(CorrectIdentityDetails("1980-02-29", None)).then(
        IdentityDetailsCorrected(born_on="1980-02-29", identity_number=None)
    )


@pytest.mark.parametrize("event", [by_staff, CustomerRenamed(name="张三")])
def test_only_a_link_is_unique_in_the_store(event):
    assert identify(event) is None
    assert identify(core_linked) == ids.party("core", "4711")
