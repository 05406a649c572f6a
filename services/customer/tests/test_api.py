"""The routes, over the real store, keys and MongoDB, with the conventions that every service has."""

from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.privacy.tokens import development_token
from chassis.web import create_app, dependencies
from customer import permissions
from customer.api import create_router
from customer.application import CustomerService
from customer.catalogue import catalogue
from customer.domain.events import CustomerReviewed, DeclaredAsset
from customer.domain.reviewing import month_after
from customer.file_routes import body_limits
from customer.files import LIMITS
from customer.panorama.schema import Panorama
from customer.shapes import CustomerShown
from pydantic import TypeAdapter

from .test_queries import IDS, LI, NOW, ZHANG, Bank, bank, queries
from .told import dated

__all__ = ["bank", "queries"]

CLOCK = SystemClock()
WANG = {
    "name": "王芳",
    "phone": "13911112222",
    "born_on": "1990-01-31",
    "references": [{"source": "core", "key": "W1"}],
    "stated_assets": [{"product": "fund", "amount": "5432.10", "currency": "CNY"}],
}


@pytest.fixture
async def api(handler, store, queries, storage, tmp_path, postgres_url, hub):
    """A caller with a valid token."""
    settings = Settings(postgres_url=postgres_url, environment="development", data=tmp_path)
    asked = []

    async def wait_for(context, position, seconds):
        asked.append((context, position))
        return position < (0 if client.views_stand else 1_000_000)

    service = CustomerService(
        handler, store, catalogue(), queries, IDS, CLOCK, NOW.date, wait_for, dated, storage=storage, hub=hub
    )
    app = create_app(
        "customer",
        [create_router(service, dependencies(wait_for, permissions.ROUTES, high=permissions.HIGH_PRIVILEGE))],
        settings,
        body_limits=body_limits(LIMITS.size_bytes_max),
    )
    token = development_token(settings, CLOCK.now(), subject="lin")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://crm",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        client.asked, client.views_stand, client.service = asked, False, service
        client.token_of = lambda role, post=None, subject="lin": development_token(
            settings, CLOCK.now(), subject=subject, post=post, roles=[role]
        )
        yield client


def key(text):
    return {"Idempotency-Key": text}


@pytest.mark.requirement("R013")
async def test_a_customer_is_registered_once_per_key(api, store):
    first = await api.post("/customers", json=WANG, headers=key("k1"))
    again = await api.post("/customers", json=WANG, headers=key("k1"))
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert first.headers["ETag"] == '"2"'
    assert first.headers["Location"] == f"/customers/{first.json()['customer_id']}"
    assert first.headers["Consistency-Token"] == f"customer-{await store.head_position()}"
    assert await store.head_position() == 2
    other = await api.post("/customers", json=WANG | {"name": "王"}, headers=key("k1"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    taken = await api.post("/customers", json=WANG, headers=key("k2"))
    assert (taken.status_code, taken.json()["code"]) == (409, "already-recorded")


async def test_the_version_that_is_read_is_the_streams_where_the_view_takes_no_part(api, key_ring, mongo):
    """An event that the view does not take left the ETag where it was, and every edit was refused for ever."""
    at = (await api.post("/customers", json=WANG, headers=key("k1"))).headers["Location"]
    shown, customer = Bank(key_ring), UUID(at.rpartition("/")[2])
    shown.customer(customer, "王芳")
    await shown.keep(mongo)
    api.views_stand = True
    behind = await api.get(at)
    assert (behind.headers["ETag"], behind.json()["version"]) == ('"1"', 1), (
        "the view may lack what came after"
    )
    refused = await api.put(
        f"{at}/name", json={"name": "王五"}, headers=key("k2") | {"If-Match": behind.headers["ETag"]}
    )
    assert refused.status_code == 412
    api.views_stand = False
    read = await api.get(at)
    assert (read.headers["ETag"], read.json()["version"]) == ('"2"', 2)
    page = (await api.get("/customers")).json()["items"]
    assert {one["version"] for one in page if one["customer_id"] == str(customer)} == {2}
    tagged = key("k3") | {"If-Match": read.headers["ETag"]}
    changed = await api.put(f"{at}/name", json={"name": "王芳芳"}, headers=tagged)
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"3"')


@pytest.mark.requirement("R060", "R091", "M46")
async def test_changes_name_the_version_that_was_seen(api):
    at = (await api.post("/customers", json=WANG, headers=key("k1"))).headers["Location"]
    renamed = await api.put(f"{at}/name", json={"name": "王芳芳"}, headers=key("k2") | {"If-Match": '"2"'})
    assert (renamed.status_code, renamed.headers["ETag"]) == (200, '"3"')
    stale = await api.put(f"{at}/name", json={"name": "王五"}, headers=key("k3") | {"If-Match": '"2"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "version-mismatch")
    again = await api.put(f"{at}/name", json={"name": "王芳芳"}, headers=key("k2") | {"If-Match": '"2"'})
    assert (again.status_code, again.headers["ETag"]) == (200, '"3"')
    blind = await api.put(f"{at}/name", json={"name": "王五"}, headers=key("k4"))
    assert blind.status_code == 428
    unkeyed = await api.put(f"{at}/name", json={"name": "王五"}, headers={"If-Match": '"3"'})
    assert (unkeyed.status_code, unkeyed.json()["code"]) == (400, "idempotency-key-missing")
    for number, (path, method, body) in enumerate(
        [
            ("contact-details", "PUT", {"phone": None, "email": "w@example.com"}),
            ("identity-details", "PUT", {"identity_number": "110101199001310026"}),
            ("references", "POST", {"source": "fund", "key": "F9"}),
        ],
        start=3,
    ):
        headers = key(f"m{number}") | {"If-Match": f'"{number}"'}
        done = await api.request(method, f"{at}/{path}", json=body, headers=headers)
        assert (done.status_code, done.headers["ETag"]) == (200, f'"{number + 1}"'), done.text
    events = (await api.get(f"{at}/events", params={"limit": 4})).json()
    assert [one["name"] for one in events["items"]] == [
        "customer-registered",
        "reference-claimed",
        "customer-renamed",
        "contact-details-changed",
    ]
    assert {one["actor"] for one in events["items"]} == {"lin"}
    assert "王" not in str(events)
    rest = (await api.get(f"{at}/events", params={"limit": 4, "after": events["next"]})).json()
    assert ([one["sequence"] for one in rest["items"]], rest["next"]) == ([5, 6], None)


async def test_an_unknown_customer_cannot_be_changed(api, store, key_ring):
    nobody = UUID(int=9)
    put = await api.put(
        f"/customers/{nobody}/name", json={"name": "王五"}, headers=key("k") | {"If-Match": '"1"'}
    )
    assert (put.status_code, put.json()["code"]) == (404, "customer-not-registered")
    assert key_ring.keys_for([nobody], create=False) == {}
    for path in ("", "/panorama", "/accounts", "/events", f"/accounts/{nobody}/movements"):
        assert (await api.get(f"/customers/{nobody}{path}")).status_code == 404


async def test_a_panorama_and_the_way_from_each_figure_to_its_movements(api, bank):
    answer = await api.get(f"/customers/{ZHANG}/panorama")
    shown = answer.json()
    TypeAdapter(Panorama).validate_python(shown, strict=True)
    assert shown["currencies"][0]["loans"]["amount_minor"] == 11_000
    for block in shown["currencies"]:
        for name in ("deposits", "wealth", "aum", "loans", "liabilities", "net_worth"):
            total = 0
            for link in block[name]["events"]:
                sums = (await api.get(link)).json()["sums"]
                if "/loans?" in link:
                    sign = -1 if name == "net_worth" else 1
                    total += sign * sum(one["outstanding_minor"] for one in sums)
                else:
                    total += sum(one["amount_minor"] for one in sums)
            assert total == block[name]["amount_minor"], name
        spent = 0
        for link in block["spending"]["events"]:
            assert "spending=true" in link
            spent += sum(one["outflow_minor"] for one in (await api.get(link)).json()["sums"])
        assert spent == block["spending"]["amount_minor"]


async def test_movements_come_in_pages(api, bank):
    at = f"/customers/{ZHANG}/accounts/{bank.mine}/movements"
    found, params = [], {"limit": 10}
    while True:
        page = (await api.get(at, params=params)).json()
        found += page["items"]
        if page["next"] is None:
            break
        params["after"] = page["next"]
    assert len(found) == 27
    assert len({one["event_id"] for one in found}) == 27
    assert (await api.get(f"/customers/{LI}/accounts/{bank.mine}/movements")).json()[
        "code"
    ] == "account-not-held"
    assert (await api.get(at, params={"after": "x"})).json()["code"] == "cursor-invalid"


async def test_movements_and_loans_are_those_that_are_asked_for(api, bank):
    at = f"/customers/{ZHANG}/accounts/{bank.mine}/movements"
    for asked, counted in (
        ({"kind": "card"}, {"CNY": 25}),
        ({"kind": "transfer"}, {"CNY": 1, "USD": 1}),
        ({"kind": "transfer", "currency": "USD"}, {"USD": 1}),
        ({"month": "2026-01"}, {"CNY": 26, "USD": 1}),
        ({"month": "2026-02"}, {}),
        ({"spending": True}, {"CNY": 25}),
        ({"spending": True, "month": "2026-02"}, {}),
    ):
        found = (await api.get(at, params=asked | {"limit": 100})).json()
        assert {one["currency"]: one["movements"] for one in found["sums"]} == counted, asked
        assert len(found["items"]) == sum(counted.values()), asked
    at = f"/customers/{ZHANG}/accounts/{bank.ours}/loans"
    for currency, loans in (("CNY", ["L1"]), ("USD", [])):
        found = (await api.get(at, params={"currency": currency})).json()
        assert [one["loan"] for one in found["items"]] == loans
        assert len(found["sums"]) == len(loans)


async def test_customers_by_page_and_by_reference(api):
    page = (await api.get("/customers", params={"limit": 1})).json()
    rest = (await api.get("/customers", params={"limit": 2, "after": page["next"]})).json()
    assert [one["customer_id"] for one in page["items"] + rest["items"]] == [str(ZHANG), str(LI)]
    [found] = (await api.get("/customers", params={"reference": "fund:7"})).json()["items"]
    assert found["customer_id"] == str(ZHANG)
    shown = await api.get(f"/customers/{ZHANG}")
    assert CustomerShown(**shown.json()).phone == "138****1234"
    assert shown.headers["ETag"] == '"3"'
    for wrong in ("fund", ":7", "fund:"):
        assert (await api.get("/customers", params={"reference": wrong})).status_code == 422


async def test_accounts_and_those_that_wait(api, bank):
    accounts = (await api.get(f"/customers/{ZHANG}/accounts")).json()["items"]
    assert {one["account_id"] for one in accounts} == {str(bank.mine), str(bank.ours), str(bank.fund)}
    page = (await api.get("/accounts/unlinked", params={"limit": 1})).json()
    assert (page["counted"], page["all_counted"]) == (2, True)
    rest = (await api.get("/accounts/unlinked", params={"after": page["next"]})).json()
    assert {one["account_id"] for one in page["items"] + rest["items"]} == {
        str(bank.lost),
        str(bank.strangers),
    }


async def test_questions_wait_for_the_view_and_say_when_it_is_behind(api):
    assert (await api.get("/customers", params={"at_least": "customer-3"})).status_code == 200
    assert api.asked == [("customer", 3)]
    behind = await api.get(f"/customers/{ZHANG}/panorama", params={"at_least": "ingest-1000000"})
    assert (behind.status_code, behind.json()["code"]) == (503, "view-behind")
    assert "Retry-After" in behind.headers


async def test_every_route_needs_a_token(api):
    for path in ("/customers", f"/customers/{ZHANG}/panorama", "/accounts/unlinked"):
        refused = await api.get(path, headers={"Authorization": ""})
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        assert "WWW-Authenticate" in refused.headers


@pytest.mark.requirement("R014")
async def test_declared_assets_are_stored_in_minor_units(api, handler):
    made = await api.post("/customers", json=WANG, headers=key("k1"))
    stream = UUID(made.json()["customer_id"])
    [first] = await handler._store.read_stream(stream, 0, 1)
    registered = handler._catalogue.open(first, handler._keys.keys_for([stream])[stream]).event
    assert registered.stated_assets == (DeclaredAsset("fund", 543_210, "CNY"),)


def stated(**changed):
    return WANG | {"stated_assets": [{"product": "fund", "amount": "1", "currency": "CNY"} | changed]}


@pytest.mark.requirement("R014")
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({field: value for field, value in WANG.items() if field != missing}, missing)
        for missing in ("name", "phone", "stated_assets")
    ]
    + [
        (WANG | {"name": ""}, "name"),
        (WANG | {"name": "a\u0000b"}, None),
        (WANG | {"surprise": 1}, "surprise"),
        (WANG | {"stated_assets": []}, "stated_assets"),
        (WANG | {"references": [{"source": "a:b", "key": "1"}]}, "references.0.source"),
        (WANG | {"born_on": "2026-02-30"}, "born_on"),
        (WANG | {"born_on": 0}, "born_on"),
        (WANG | {"born_on": "1990-01-31T00:00:00"}, "born_on"),
        (stated(amount=1.5), "stated_assets.0.amount"),
        (stated(amount=True), "stated_assets.0.amount"),
        (stated(amount="12..34"), "stated_assets.0.amount"),
        (stated(amount="-1"), "stated_assets.0.amount"),
        (stated(amount="1.5", currency="JPY"), "stated_assets.0.amount"),
        (stated(currency="yuan"), "stated_assets.0.currency"),
    ],
)
async def test_an_invalid_field_is_refused_by_its_name_and_stores_nothing(api, store, body, place):
    refused = await api.post("/customers", json=body, headers=key("k"))
    assert refused.status_code == 422
    if place is not None:
        assert [error["place"] for error in refused.json()["errors"]] == [place]
    assert await store.head_position() == 0


@pytest.mark.requirement("R015")
async def test_the_document_calls_mandatory_exactly_what_is_refused_when_it_is_absent(api):
    schema = (await api.get("/openapi.json")).json()["components"]["schemas"]["RegisterBody"]
    whole = WANG | {
        "kind": "person",
        "email": "wang@example.com",
        "address": "上海市",
        "born_on": "1990-01-31",
        "identity_number": "110101199001310026",
        "branch": "B1",
        "references": [],
        "reason": "he opened an account",
        "effective_at": "2026-01-05T09:30:00+08:00",
    }
    assert whole.keys() == schema["properties"].keys()
    refused = set()
    for field in whole:
        body = {name: value for name, value in whole.items() if name != field}
        answer = await api.post("/customers", json=body, headers=key(f"without-{field}"))
        if answer.status_code == 422:
            refused.add(field)
            assert [error["place"] for error in answer.json()["errors"]] == [field]
    assert refused == set(schema["required"]) > set()


async def test_customers_are_found_by_a_condition_on_their_facts(api, bank, mongo):
    await bank.keep_facts(mongo)
    where = {"where": "aum >= CNY 200.00 and products has deposit"}
    found = await api.get("/customers/selection", params=where)
    assert found.status_code == 200, found.text
    [one] = found.json()["items"]
    assert one["customer_id"] == str(ZHANG)
    shown = (await api.get(f"/customers/{ZHANG}/panorama")).json()["currencies"]
    assert one["aum"] == {each["currency"]: each["aum"]["amount_minor"] for each in shown}
    assert one["net_worth"] == {each["currency"]: each["net_worth"]["amount_minor"] for each in shown}
    counted = (await api.get("/customers/selection/count", params=where)).json()
    assert (counted["count"], counted["more"]) == (1, False)
    assert counted["sentence"]["zh"]
    why = (await api.get(f"/customers/{ZHANG}/selection", params=where)).json()
    assert (why["holds"], len(why["because"])) == (True, 2)
    first = (await api.get("/customers/selection", params={"where": "accounts >= 0", "limit": 1})).json()
    after = {"where": "accounts >= 0", "limit": 1, "after": first["next"]}
    second = (await api.get("/customers/selection", params=after)).json()
    assert first["items"][0]["customer_id"] < second["items"][0]["customer_id"]


async def test_a_condition_that_cannot_be_read_or_asks_for_too_much_is_refused(api, bank, mongo):
    await bank.keep_facts(mongo)
    for where, code in (("aun >= CNY 1", "condition-invalid"), ("aum >=", "condition-invalid")):
        refused = await api.get("/customers/selection", params={"where": where})
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    api.headers["Authorization"] = f"Bearer {api.token_of('teller')}"
    refused = await api.get("/customers/selection/count", params={"where": "aum >= CNY 1"})
    assert (refused.status_code, refused.json()["code"]) == (403, "field-not-permitted")
    found = (await api.get("/customers/selection", params={"where": "accounts >= 1"})).json()["items"]
    assert {one["aum"] for one in found} == {None}


async def test_a_key_customer_may_have_been_named_and_reviewed_before_that_is_recorded(api, store):
    at = (await api.post("/customers", json=WANG, headers=key("k1"))).headers["Location"]
    earlier = {"reason": "上月已达标", "effective_at": (NOW - timedelta(days=3)).isoformat()}
    named = await api.post(f"{at}/key-customer", json=earlier, headers=key("k2") | {"If-Match": '"2"'})
    assert named.status_code == 200, named.text
    review = earlier | {"effective_at": (NOW - timedelta(days=1)).isoformat()}
    done = await api.post(f"{at}/review", json=review, headers=key("k3") | {"If-Match": '"3"'})
    assert (done.status_code, done.headers["ETag"]) == (200, '"4"'), done.text
    again = await api.post(f"{at}/review", json=review, headers=key("k3") | {"If-Match": '"3"'})
    assert (again.status_code, again.headers["ETag"]) == (200, '"4"')
    other = earlier | {"effective_at": NOW.isoformat()}
    reused = await api.post(f"{at}/review", json=other, headers=key("k3") | {"If-Match": '"3"'})
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency-key-reused")
    ahead = earlier | {"effective_at": "2999-01-01T00:00:00Z"}
    refused = await api.post(f"{at}/review", json=ahead, headers=key("k4") | {"If-Match": '"4"'})
    assert (refused.status_code, refused.json()["code"]) == (422, "effective-time-ahead")
    stored = await store.read_stream(UUID(at.rpartition("/")[2]))
    reviews = ("named-key-customer", "customer-reviewed")
    events = [catalogue().decode(one) for one in stored if one.name in reviews]
    dates = {type(one.event).__name__: one for one in events}
    day, since = (dated(NOW - timedelta(days=days)) for days in (1, 3))
    assert dates["NamedKeyCustomer"].event.review_due_on == month_after(since)
    assert dates["CustomerReviewed"].event == CustomerReviewed(day, month_after(day))
    assert dates["CustomerReviewed"].metadata.effective_at == NOW - timedelta(days=1)


@pytest.mark.requirement("R020")
async def test_a_key_customer_is_named_reviewed_and_ended(api):
    at = (await api.post("/customers", json=WANG, headers=key("k1"))).headers["Location"]
    why = {"reason": "资产超过六百万"}
    early = await api.post(f"{at}/review", json={}, headers=key("k2") | {"If-Match": '"2"'})
    assert (early.status_code, early.json()["code"]) == (409, "not-a-key-customer")
    for number, (path, body, version) in enumerate(
        [
            ("key-customer", why, 3),
            ("key-customer", why, 3),  # it is one already
            ("review", {}, 4),
            ("key-customer/end", why, 5),
        ]
    ):
        before = 2 if number == 0 else version if number == 1 else version - 1
        headers = key(f"n{number}") | {"If-Match": f'"{before}"'}
        done = await api.post(f"{at}/{path}", json=body, headers=headers)
        assert (done.status_code, done.headers["ETag"]) == (200, f'"{version}"'), done.text
        again = await api.post(f"{at}/{path}", json=body, headers=headers)
        assert (again.status_code, again.headers["ETag"]) == (200, f'"{version}"'), again.text
