"""Many customers are assigned to a branch at once: listed, started, with a result for each, and taken back."""

import asyncio
from uuid import UUID, uuid5

import pytest
from chassis.bulk import following
from chassis.write.deciding import CommandContext
from customer.application import ASSIGNED_ALONE_MAX
from customer.domain.commands import EraseCustomer
from customer.shapes import BranchAssignmentBody
from pydantic import ValidationError

from .test_api import CLOCK, WANG, api, key
from .test_lists import ZHANGS, branches
from .test_queries import LI, NOW, ZHANG, bank, queries

__all__ = ["api", "bank", "branches", "queries"]

WHY = {"reason": "the branch moved"}


@pytest.fixture
async def customers(api):
    """Two customers of a branch, and one of none."""
    made = []
    for number, branch in enumerate(["B1", "B2", None]):
        body = WANG | {"references": [], "branch": branch}
        made.append(
            (await api.post("/customers", json=body, headers=key(f"c{number}"))).json()["customer_id"]
        )
    return made


async def finished(api, where):
    """The run, once it is finished."""
    async with following(api.service.bulk, CLOCK, look_seconds=0.01):
        for _ in range(1_000):
            run = (await api.get(where)).json()
            if run["status"] == "finished":
                return run
            await CLOCK.sleep(0.01)
    raise AssertionError(run)


async def results(api, where):
    return [one["result"] for one in (await api.get(f"{where}/results")).json()["items"]]


@pytest.mark.requirement("M33", "R091")
async def test_many_customers_are_assigned_to_a_branch_and_back(api, customers, store):
    nobody = str(uuid5(UUID(int=1), "nobody"))
    body = WHY | {"branch": "B2", "customers": [*customers, nobody]}
    made = await api.post("/customers/branch-assignments", json=body, headers=key("run"))
    assert (made.status_code, made.json()["items"], made.json()["status"]) == (201, 4, "ready"), made.text
    where = made.headers["Location"]
    preview = (await api.get(f"{where}/preview")).json()
    assert preview == {
        "items": 4,
        "tried": 4,
        "changed": 2,
        "unchanged": 1,
        "refused": [{"code": "customer-not-registered", "items": 1}],
    }
    ring = api.service.handler.keys
    assert UUID(nobody) not in await asyncio.to_thread(ring.keys_for, [UUID(nobody)], create=False)
    assert (await api.post(f"{where}/undo", json=WHY, headers=key("u"))).json()["code"] == "bulk-not-finished"
    for _ in range(2):
        assert (await api.post(f"{where}/start", json=WHY, headers=key("s"))).json()["status"] == "running"
    run = await finished(api, where)
    assert (run["settled"], run["done"], run["unchanged"], run["refused"]) == (4, 2, 1, 1)
    assert await results(api, where) == ["done", "unchanged", "done", "customer-not-registered"]
    assert UUID(nobody) not in await asyncio.to_thread(ring.keys_for, [UUID(nobody)], create=False)
    page = (await api.get(f"{where}/results", params={"limit": 3})).json()
    rest = (await api.get(f"{where}/results", params={"limit": 3, "after": page["next"]})).json()
    assert ([one["number"] for one in rest["items"]], rest["next"]) == ([3], None)
    *_, last = await store.read_stream(UUID(customers[0]))
    meta = api.service.catalogue.metadata_of(last)
    assert (last.name, meta.actor, meta.reason, meta.privilege) == (
        "branch-assigned",
        "lin",
        WHY["reason"],
        "high",
    )

    undo = await api.post(f"{where}/undo", json=WHY, headers=key("undo"))
    assert (undo.status_code, undo.json()["items"], undo.json()["undoes_id"]) == (201, 2, run["run_id"])
    back = undo.headers["Location"]
    await api.post(f"{back}/start", json=WHY, headers=key("s2"))
    await finished(api, back)
    assert await results(api, back) == ["done", "branch-unknown-before"]
    state = (await api.service.handler.load(UUID(customers[0]))).state
    assert state.values["branch"] == "B1"


async def test_a_paused_run_waits_and_unknown_runs_are_404(api, customers):
    body = WHY | {"branch": "B9", "customers": customers}
    where = (await api.post("/customers/branch-assignments", json=body, headers=key("run"))).headers[
        "Location"
    ]
    await api.post(f"{where}/start", json=WHY, headers=key("s"))
    assert (await api.post(f"{where}/pause", json=WHY, headers=key("p"))).json()["status"] == "paused"
    assert await api.service.bulk.run(UUID((await api.get(where)).json()["run_id"])) == "paused"
    assert await results(api, where) == []
    await api.post(f"{where}/start", json=WHY, headers=key("s2"))
    assert (await finished(api, where))["done"] == 3
    nowhere = f"/bulk/customer/{uuid5(UUID(int=1), 'x')}"
    assert (await api.get(nowhere)).status_code == 404
    assert (await api.post(f"{nowhere}/start", json=WHY, headers=key("n"))).status_code == 404
    other = await api.post("/customers/branch-assignments", json=body | {"branch": "B8"}, headers=key("run"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_a_run_over_a_condition_lists_those_who_meet_it_and_its_key_is_for_nothing_else(
    branches, api, bank, mongo
):
    await bank.keep_facts(mongo)
    path, body = "/customers/branch-assignments", WHY | {"branch": "B3", "where": f"branch is ({ZHANGS}, B3)"}
    made = await api.post(path, json=body, headers=key("run"))
    assert (made.status_code, made.json()["items"]) == (201, 1), made.text
    assert made.json()["selection"] == f"branch is ({ZHANGS}, B3) as of {NOW.date()}"
    again = await api.post(path, json=body, headers=key("run"))
    assert again.json() == made.json()
    ids = [str(ZHANG), str(LI)]
    for other in (
        {"where": "branch is B3"},
        {"where": None, "customers": ids},
        {"where": None, "customers": ids[:1]},
        {"reason": "another"},
    ):
        reused = await api.post(path, json=body | other, headers=key("run"))
        assert (reused.status_code, reused.json()["code"]) == (422, "idempotency-key-reused"), other
    for wrong, code in (
        ({"where": "branch is"}, "condition-invalid"),
        ({"where": None}, "request-invalid"),
        ({"customers": ids}, "request-invalid"),
    ):
        refused = await api.post(path, json=body | wrong, headers=key("other"))
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    api.headers["Authorization"] = f"Bearer {api.token_of('operator')}"
    forbidden = await api.post(path, json=body | {"where": "aum > CNY 1"}, headers=key("money"))
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "field-not-permitted")


@pytest.mark.requirement("M33", "R091")
async def test_more_customers_than_one_person_may_assign_are_assigned_by_two(api, customers, store):
    nobody = [str(uuid5(UUID(int=1), f"nobody {number}")) for number in range(ASSIGNED_ALONE_MAX)]
    chen = {"Authorization": f"Bearer {api.token_of('compliance', subject='chen')}"}
    wu = {"Authorization": f"Bearer {api.token_of('operator', subject='wu')}"}
    of_lin = {"Authorization": f"Bearer {api.token_of('compliance', subject='LIN ')}"}
    body = WHY | {"branch": "B7", "customers": [*customers, *nobody]}
    made = await api.post("/customers/branch-assignments", json=body, headers=key("run"))
    where, ready = made.headers["Location"], made.json()
    assert (ready["needs_approval"], ready["selection"]) == (True, "")
    alone = await api.post(f"{where}/start", json=WHY, headers=key("s"))
    assert (alone.status_code, alone.json()["code"]) == (409, "bulk-needs-approval")
    waiting = await api.post(f"{where}/propose", json=WHY, headers=key("p"))
    assert (waiting.status_code, waiting.json()["proposes"]) == (202, "start-assign-branch"), waiting.text
    shown, at = waiting.json(), waiting.headers["Location"]
    refused = {"customer-not-registered": ASSIGNED_ALONE_MAX}
    preview = {"tried": 3 + ASSIGNED_ALONE_MAX, "changed": 3, "unchanged": 0, "refused": refused}
    assert shown["command"]["preview"] == preview
    assert (shown["command"]["run"]["items"], shown["subject_id"]) == (preview["tried"], ready["run_id"])
    page = (await api.get(f"{where}/items", params={"limit": 2}, headers=chen)).json()
    rest = await api.get(f"{where}/items", params={"limit": 200, "after": page["next"]}, headers=chen)
    found = [*page["items"], *rest.json()["items"]]
    assert [one["subject_id"] for one in found] == [*customers, *nobody], "who approves sees the list"
    assert ([one["number"] for one in found], rest.json()["next"]) == ([*range(len(found))], None)
    approving = {"digest": shown["digest"], "reason": "seen"}
    for headers, status, code in (
        (key("own"), 403, "forbidden"),
        (key("o") | wu, 403, "forbidden"),
        (key("c") | of_lin, 403, "second-person-needed"),
        (key("other") | chen, 409, "digest-differs"),
    ):
        other = approving | ({"digest": "0" * 64} if code == "digest-differs" else {})
        refused = await api.post(f"{at}/approve", json=other, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    for _ in range(2):
        approved = await api.post(f"{at}/approve", json=approving, headers=key("a") | chen)
        assert (approved.status_code, approved.json()["subject_id"]) == (200, ready["run_id"]), approved.text
    assert (await finished(api, where))["done"] == 3
    for customer in customers:
        *_, last = await store.read_stream(UUID(customer))
        meta = api.service.catalogue.metadata_of(last)
        assert (last.name, meta.actor, meta.proposed_by) == ("branch-assigned", "chen", "lin")
        assert (str(meta.proposal_id), meta.reason) == (shown["proposal_id"], WHY["reason"])


async def test_a_customer_that_was_erased_since_is_refused_and_stops_no_other(api, customers):
    body = WHY | {"branch": "B7", "customers": customers}
    made = await api.post("/customers/branch-assignments", json=body, headers=key("run"))
    erased = UUID(customers[0])
    context = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=9))
    await api.service.handler.handle(erased, EraseCustomer((), (), CLOCK.now().date()), context)
    await asyncio.to_thread(api.service.handler.keys.erase, [erased])
    where = made.headers["Location"]
    assert (await api.get(f"{where}/preview")).json()["refused"] == [{"code": "customer-erased", "items": 1}]
    await api.post(f"{where}/start", json=WHY, headers=key("s"))
    await finished(api, where)
    assert await results(api, where) == ["customer-erased", "done", "done"]


@pytest.mark.requirement("R083")
@pytest.mark.parametrize("branch", [" 支行\uf90a ", "支行\uf90a"])
def test_a_branch_is_spelled_as_master_data_has_it(branch):
    """Of two names that look alike one was another branch: its customers were out of the scope of who serves them."""
    body = WHY | {"customers": [str(ZHANG)]}
    assert BranchAssignmentBody(**body, branch=branch).branch == "支行\u91d1"
    for wrong in (" ", "支行\u200b", "支\0行", "支\n行"):
        with pytest.raises(ValidationError, match="branch"):
            BranchAssignmentBody(**body, branch=wrong)
