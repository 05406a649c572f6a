"""Files of the lists of customers over HTTP: asked for, made, approved, read, and what they hold."""

import csv
from io import StringIO
from uuid import UUID

import pytest
from chassis.conditions.language import DAY_MAX
from chassis.exports import making
from chassis.exports.rows import text_in
from customer.catalogue import catalogue
from customer.exports import EXPORTED_ALONE_MAX

from .test_api import CLOCK, api, key
from .test_lists import LIS, WU, ZHANGS, acting, asking, branches
from .test_queries import NOW, ZHANG, bank, queries

__all__ = ["api", "asking", "bank", "branches", "queries"]

WHY = {"reason": "the branch meets on Monday"}
PLACE = "/exports/customer"


async def ask(api, text="e1", **body):
    return await api.post(PLACE, json={"listing": "selection", **WHY, **body}, headers=key(text))


async def made(api, at, status="made"):
    async with making(api.service.exports, CLOCK, look_seconds=0.01):
        for _ in range(500):
            shown = (await api.get(at)).json()
            if shown["status"] == status:
                return shown
            await CLOCK.sleep(0.01)
    raise AssertionError(shown)


async def content(api, at, text="r1"):
    read = await api.post(f"{at}/content", json=WHY, headers=key(text))
    assert read.status_code == 200, read.text
    return read


def records(body):
    return list(csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True))


@pytest.mark.requirement("R089", "R090", "R094", "M19")
async def test_a_file_has_what_the_page_shows_and_every_step_is_an_event(asking, store):
    api = asking
    first = await ask(api, sort="-aum.CNY", columns=["customer_id", "branch", "aum"])
    assert (first.status_code, first.json()["status"], first.json()["rows_counted"]) == (
        201,
        "released",
        3,
    ), first.text
    again = await ask(api, sort="-aum.CNY", columns=["customer_id", "branch", "aum"])
    assert again.json() == first.json()
    at = first.headers["Location"]
    shown = await made(api, at)
    assert (shown["file"]["rows"], shown["attempts"], shown["as_of"]) == (3, 1, str(NOW.date()))
    read = await content(api, at)
    assert read.content.startswith("\ufeff".encode())
    header, *rows, last = records(read.content)
    assert header == ["客户编号", "所属支行", "管理资产 CNY", "管理资产 USD", "管理资产 其他币种"]
    page = (await api.get("/customers/selection", params={"sort": "-aum.CNY"})).json()["items"]
    told = [
        [
            one["customer_id"],
            one["branch"] or "",
            *(
                f"{one['aum'][code] // 100}.{one['aum'][code] % 100:02}" if code in one["aum"] else ""
                for code in ("CNY", "USD")
            ),
        ]
        for one in page
    ]
    assert [one[:4] for one in rows] == told
    assert last[0].startswith("# rows: 3; as of: ")
    assert f"asked by: lin; export: {shown['export_id']}" in last[0], "a copy says whose it was"
    stored = [*await store.read_stream(UUID(shown["export_id"]))]
    names = [one.name for one in stored]
    assert names == ["export-requested", "export-released", "export-begun", "export-made"]
    metas = [catalogue().metadata_of(one) for one in stored]
    assert {(meta.actor, meta.reason, meta.privilege) for meta in metas} == {("lin", WHY["reason"], "high")}
    assert (await api.get(PLACE)).json()["items"] == [shown]


async def test_personal_values_are_masked_as_on_the_page(asking):
    api = asking
    at = (await ask(api, listing="customers", language="en")).headers["Location"]
    await made(api, at)
    body = (await content(api, at)).content
    header, *rows, _ = records(body)
    page = {one["customer_id"]: one for one in (await api.get("/customers")).json()["items"]}
    assert header[:3] == ["customer", "name", "kind of customer"]
    for row in rows:
        one = page[row[0]]
        assert [text_in(row[1]), text_in(row[5])] == [one["name"], one["phone"] or ""]
    for raw in ("张伟", "李娜", "吴用", "13800001234"):
        assert raw not in body.decode()


@pytest.mark.requirement("R083", "R084")
async def test_a_file_has_the_rows_and_columns_of_who_asks_and_nobody_else_is_given_it(asking, bank):
    api = asking
    acting(api, "teller", f"{ZHANGS}/柜员")
    refused = await ask(api, columns=["aum"])
    assert (refused.status_code, refused.json()["code"]) == (403, "field-not-permitted")
    refused = await ask(api, where="aum > CNY 1")
    assert (refused.status_code, refused.json()["code"]) == (403, "field-not-permitted")
    at = (await ask(api)).headers["Location"]
    shown = await made(api, at)
    assert "aum" not in shown["columns"]
    _, *rows, _ = records((await content(api, at)).content)
    assert [UUID(one[0]) for one in rows] == [ZHANG, WU]
    acting(api, "administrator", subject="wu")
    for answer in (
        await api.get(at),
        await api.post(f"{at}/content", json=WHY, headers=key("r")),
        await api.post(f"{at}/propose", json=WHY, headers=key("p")),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "export-unknown")
    assert (await api.get(PLACE)).json()["items"] == []
    acting(api, "teller", f"{LIS.split('/')[0]}/柜员")
    moved = await api.post(f"{at}/content", json=WHY, headers=key("r2"))
    assert (moved.status_code, moved.json()["code"]) == (403, "export-rights-changed"), (
        "lin works elsewhere now"
    )
    acting(api, "auditor")
    assert (await api.post(f"{at}/content", json=WHY, headers=key("r3"))).status_code == 403
    acting(api, "analyst")
    refused = await ask(api, "e2", listing="customers")
    assert (refused.status_code, refused.json()["code"]) == (403, "export-not-permitted")


@pytest.mark.requirement("R089", "R090", "M19")
async def test_more_rows_than_a_page_shows_are_released_by_compliance(branches, api, bank, mongo):
    bank.folded.clear()
    for number in range(EXPORTED_ALONE_MAX):
        bank.customer(UUID(int=5_000 + number), "张伟")
        bank.tell(UUID(int=5_000 + number), "customer.branch_assigned", branch="=cmd|' /C calc'!A0")
    await bank.keep(mongo)
    chen = {"Authorization": f"Bearer {api.token_of('compliance', subject='chen')}"}
    shown = await ask(api, listing="customers", columns=["customer_id", "name", "branch"])
    at, rows = shown.headers["Location"], EXPORTED_ALONE_MAX + 3
    assert (shown.json()["status"], shown.json()["rows_counted"]) == ("waiting", rows)
    refused = await api.post(f"{at}/content", json=WHY, headers=key("early"))
    assert (refused.status_code, refused.json()["code"]) == (409, "export-not-made")
    waiting = await api.post(f"{at}/propose", json=WHY, headers=key("p"))
    assert (waiting.status_code, waiting.json()["proposes"]) == (202, "export-customers"), waiting.text
    told = waiting.json()["command"]["export"]
    assert (told["asked_by"], told["rows_counted"], told["columns"]) == (
        "lin",
        rows,
        ["customer_id", "name", "branch"],
    )
    approving = {"digest": waiting.json()["digest"], "reason": "seen"}
    place = waiting.headers["Location"]
    own = await api.post(f"{place}/approve", json=approving, headers=key("own"))
    assert own.status_code == 403, own.text
    approved = await api.post(f"{place}/approve", json=approving, headers=key("a") | chen)
    assert approved.status_code == 200, approved.text
    await made(api, at)
    _, *found, last = records((await content(api, at)).content)
    assert (len(found), last[0].startswith(f"# rows: {rows};")) == (rows, True)
    assert {(one[1], one[2]) for one in found if int(UUID(one[0])) >= 5_000} == {
        ("张*", "'=cmd|' /C calc'!A0")
    }


async def test_what_is_no_export_is_refused_and_nothing_is_stored(asking, store):
    before = await store.head_position()
    for body, status, code in (
        ({"listing": "nothing"}, 422, "export-list-unknown"),
        ({"columns": ["name"]}, 422, "export-list-unknown"),
        ({"where": "branch is"}, 422, "condition-invalid"),
        ({"sort": "name"}, 422, "sort-invalid"),
        ({"as_of": "0001-01-01"}, 422, "request-invalid"),
        ({"language": "fr"}, 422, "request-invalid"),
        ({"reason": None}, 422, "request-invalid"),
        ({"format": "xls"}, 422, "request-invalid"),
    ):
        refused = await ask(asking, **body)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    assert await store.head_position() == before
    made_of = await ask(asking, as_of=str(DAY_MAX))
    assert made_of.status_code == 201
    other = await ask(asking, as_of=str(DAY_MAX), sort="branch")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
