"""Files of a customer over HTTP: attached, listed, read with a reason, removed; by whom and of whom."""

from datetime import date, timedelta
from urllib.parse import quote
from uuid import UUID, uuid5

import pytest
from chassis.privacy.keys import ERASED
from chassis.write.deciding import CommandContext
from customer.catalogue import catalogue
from customer.domain.commands import EraseContact, LiftLegalHold
from customer.files import LIMITS
from msgspec import structs

from .test_api import CLOCK, WANG, api, key
from .test_lists import ZHANGS, acting, asking, branches
from .test_queries import LI, bank, queries

__all__ = ["api", "asking", "bank", "branches", "queries"]

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 700
NAME = '合同 "2026"; a.pdf'
WHY = {"reason": "the customer asks at the counter"}


@pytest.fixture
async def at(api):
    """Where the files of a customer of branch B1 are."""
    made = await api.post("/customers", json=WANG | {"branch": "B1"}, headers=key("c1"))
    return f"{made.headers['Location']}/files"


def sending(name=NAME, text="d1", kind="application/pdf"):
    return key(text) | {"File-Name": quote(name), "Content-Type": kind}


async def attach(api, at, content=PDF, params=None, **sent):
    params = {"purpose": "contract", **WHY, **(params or {})}
    return await api.post(at, content=content, params=params, headers=sending(**sent))


@pytest.mark.requirement("R091", "R094")
async def test_a_file_is_attached_listed_read_and_removed(api, at, store):
    made = await attach(api, at)
    assert made.status_code == 201, made.text
    one = made.json()
    assert (one["file_name"], one["size_bytes"], one["purpose"], one["attached_by"]) == (
        "合*.pdf",
        len(PDF),
        "contract",
        "lin",
    )
    assert (await attach(api, at, kind="application/octet-stream")).json() == one
    assert (await api.get(at)).json() == {"items": [one], "next": None}
    place = f"{at}/{one['file_id']}"
    assert (await api.post(f"{place}/content", json={}, headers=key("r0"))).status_code == 422
    for _ in range(2):
        read = await api.post(f"{place}/content", json=WHY, headers=key("r1"))
        assert (read.status_code, read.content) == (200, PDF)
    assert read.headers["Content-Disposition"] == (
        "attachment; filename=\"__ _2026__ a.pdf\"; filename*=UTF-8''" + quote(NAME, safe="")
    )
    assert read.headers["X-Content-Type-Options"] == "nosniff"
    assert (read.headers["Content-Type"], read.headers["Cache-Control"]) == ("application/pdf", "no-store")
    noted = await store.read_stream(UUID(one["file_id"]))
    metas = [catalogue().metadata_of(each) for each in noted]
    assert [one.name for one in noted] == ["file-read"] * 2
    assert {(meta.actor, meta.reason, meta.privilege) for meta in metas} == {("lin", WHY["reason"], "high")}
    for number in range(2):
        gone = await api.post(f"{place}/remove", json=WHY, headers=key(f"x{number}"))
        assert gone.status_code == 200, gone.text
    assert (await api.get(at)).json()["items"] == []
    again = await api.post(f"{place}/content", json=WHY, headers=key("r2"))
    assert (again.status_code, again.json()["code"]) == (410, "file-gone")


async def test_what_is_no_file_is_refused_and_nothing_is_kept(api, at, store):
    before = await store.head_position()
    for sent, params, content, code in (
        ({"name": "../a.pdf"}, {}, PDF, "file-name-invalid"),
        ({"name": "a\u202efdp.pdf"}, {}, PDF, "file-name-invalid"),
        ({"name": "a\r\nSet-Cookie: b.pdf"}, {}, PDF, "file-name-invalid"),
        ({}, {}, b"MZ", "file-type-refused"),
        ({}, {}, b"", "file-empty"),
        ({"kind": "text/html"}, {}, PDF, "media-type-unsupported"),
        ({"kind": "application/octet-stream", "name": "a.exe"}, {}, PDF, "file-type-refused"),
        ({}, {"purpose": "anything"}, PDF, "request-invalid"),
        ({}, {"expires_at": "2020-01-01T00:00:00Z"}, PDF, "file-expiry-passed"),
        ({}, {"expires_at": "9999-12-31T23:59:59-14:00"}, PDF, "request-invalid"),
        ({}, {"expires_at": "253402300799"}, PDF, "request-invalid"),
    ):
        refused = await attach(api, at, content, params, **sent)
        assert refused.json()["code"] == code, refused.text
    assert await store.head_position() == before


async def test_a_file_that_expires_is_shown_until_then(api, at):
    ends = (CLOCK.now() + timedelta(days=1)).isoformat()
    assert (await attach(api, at, params={"expires_at": ends})).status_code == 201
    [one] = (await api.get(at)).json()["items"]
    assert one["expires_at"][:19] == ends[:19]


@pytest.mark.requirement("R083")
async def test_files_of_a_customer_out_of_scope_are_not_there(asking):
    acting(asking, "relationship-manager", f"{ZHANGS}/1")
    place = f"/customers/{LI}/files"
    one = f"{place}/{uuid5(LI, 'file')}"
    for answer in (
        await asking.get(place),
        await attach(asking, place),
        await asking.post(f"{one}/content", json=WHY, headers=key("r")),
        await asking.post(f"{one}/remove", json=WHY, headers=key("x")),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "customer-not-registered")


async def test_who_may_see_that_a_file_is_there_may_not_always_read_it(api, at):
    one = (await attach(api, at)).json()["file_id"]
    for role, listed, read, removed in (
        ("analyst", 403, 403, 403),
        ("auditor", 200, 403, 403),
        ("compliance", 200, 200, 403),
        ("teller", 200, 200, 403),
        ("relationship-manager", 200, 200, 200),
    ):
        acting(api, role, "B1/1")
        content = await api.post(f"{at}/{one}/content", json=WHY, headers=key("r"))
        remove = await api.post(f"{at}/{one}/remove", json=WHY, headers=key("x"))
        found = (await api.get(at)).status_code, content.status_code, remove.status_code
        assert found == (listed, read, removed), role


async def test_the_file_of_another_customer_is_unknown(api, at):
    body = WANG | {"references": [], "phone": "13911113333", "born_on": None}
    made = await api.post("/customers", json=body, headers=key("c2"))
    one = (await attach(api, at)).json()["file_id"]
    theirs = f"{made.headers['Location']}/files/{one}/content"
    nobodys = f"/customers/{uuid5(UUID(int=1), 'nobody')}/files/{one}/content"
    for place, code in ((theirs, "file-unknown"), (nobodys, "customer-not-registered")):
        refused = await api.post(place, json=WHY, headers=key("r"))
        assert (refused.status_code, refused.json()["code"]) == (404, code)


async def test_after_an_erasure_a_file_cannot_be_read(api, at, key_ring):
    one = (await attach(api, at)).json()["file_id"]
    key_ring.erase([UUID(at.split("/")[2])])
    [shown] = (await api.get(at)).json()["items"]
    assert shown["file_name"] == ERASED
    refused = await api.post(f"{at}/{one}/content", json=WHY, headers=key("r"))
    assert (refused.status_code, refused.json()["code"]) == (410, "file-gone")


async def test_no_file_is_attached_once_contact_is_erased_and_what_there_is_stays(api, at):
    one = (await attach(api, at)).json()["file_id"]
    customer = UUID(at.split("/")[2])
    context = CommandContext(actor="chen", now=CLOCK.now(), command_id=uuid5(customer, "erase"))
    await api.service.handler.handle(customer, EraseContact((), date(2040, 1, 1), date(2030, 1, 1)), context)
    refused = await attach(api, at, text="d2")
    assert (refused.status_code, refused.json()["code"]) == (409, "customer-erased")
    assert (await api.post(f"{at}/{one}/content", json=WHY, headers=key("r"))).content == PDF


@pytest.mark.requirement("M22")
async def test_no_file_of_a_customer_is_removed_while_a_legal_hold_stands(api, at):
    one = (await attach(api, at)).json()["file_id"]
    customer, service = UUID(at.split("/")[2]), api.service
    place = CommandContext(
        actor="chen", now=CLOCK.now(), command_id=uuid5(customer, "hold"), reason="a court asks"
    )
    lift = structs.replace(place, command_id=uuid5(customer, "lift"))
    await service.place_legal_hold(customer, None, place)
    refused = await api.post(f"{at}/{one}/remove", json=WHY, headers=key("x"))
    assert (refused.status_code, refused.json()["code"]) == (409, "file-held")
    assert "legal" not in refused.text, "who serves the customer does not learn of the hold"
    assert (await api.post(f"{at}/{one}/content", json=WHY, headers=key("r"))).content == PDF
    await service.handler.handle(customer, LiftLegalHold(place.command_id), lift)
    assert (await api.post(f"{at}/{one}/remove", json=WHY, headers=key("x"))).status_code == 200


async def test_a_file_may_be_larger_than_other_bodies_and_no_larger_than_its_limit(api, at):
    large = b"%PDF-" + bytes(3 << 20)
    made = await attach(api, at, large)
    assert made.status_code == 201, made.text
    read = await api.post(f"{at}/{made.json()['file_id']}/content", json=WHY, headers=key("r"))
    assert (read.content == large, read.headers["Content-Length"]) == (True, str(len(large)))
    refused = await attach(api, at, b"%PDF-" + bytes(LIMITS.size_bytes_max), text="d2")
    assert (refused.status_code, refused.json()["code"]) == (413, "body-oversized")
    elsewhere = at.removesuffix("/files") + "/key-customer"
    body = '{"reason": "' + "a" * (2 << 20) + '"}'
    other = await api.post(elsewhere, content=body, headers=key("k") | {"Content-Type": "application/json"})
    assert (other.status_code, other.json()["code"]) == (413, "body-oversized")


async def test_a_storage_that_is_away_is_503_and_nothing_is_kept(api, at, store, tmp_path):
    (tmp_path / "files").write_text("no folder")
    before = await store.head_position()
    refused = await attach(api, at)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert await store.head_position() == before
