"""Commands to tags and to the tags of customers, at random and several at once, against what the stored events say."""

import asyncio
import json
from collections import defaultdict
from itertools import combinations
from random import Random
from uuid import UUID

import pytest
from customer.catalogue import catalogue
from customer.domain.spelling import key_of
from customer.domain.tag import code_of, stream_of

from .test_api import api
from .test_queries import bank, queries
from .test_tags_api import WHY, found, once, registered, shown

__all__ = ["api", "bank", "queries", "shown"]

NAMES = ["房贷客户", "房贷", "VIP", "ｖｉｐ", "Vip 客户", "学生", "高净值", '有"引号"', "or", "买买提・艾力"]
RULES = ["loan", "card"]
ROUNDS = 25
AT_ONCE_MAX = 4
"""Commands of a round, which are sent together."""


class Told:
    """The stored events of tags, folded by hand: the names, what each tag was merged into, and who has which code."""

    def __init__(self, events):
        self.tag_of, self.into, self.took_over = dict[str, str](), dict[str, str](), defaultdict(set)
        self.retired, self.has, self.said = set(), defaultdict(dict), defaultdict(set)
        for stream, event in events:
            match type(event).__name__:
                case "TagDefined" | "TagRenamed":
                    assert self.tag_of.setdefault(key_of(event.name), event.code) == event.code, (
                        "two have one name"
                    )
                    assert event.code not in self.into, "a merged tag was renamed"
                    self.said[event.code] |= {event.name, event.code}
                case "TagMerged":
                    assert event.code not in self.into, "merged twice"
                    assert event.into not in self.into, "merged into one that is merged"
                    self.into[event.code] = event.into
                case "TagTookOver":
                    self.took_over[event.code] |= {*event.codes}
                case "TagRetired":
                    assert event.code not in self.into | dict.fromkeys(self.retired)
                    self.retired.add(event.code)
                case "TagReinstated":
                    assert event.code not in self.into
                    self.retired.remove(event.code)
                case "TagAdded":
                    assert event.code not in self.has[stream]
                    self.has[stream][event.code] = event.rule
                case "TagRemoved":
                    del self.has[stream][event.code]

    def end(self, code):
        for _ in self.into:
            code = self.into.get(code, code)
        assert code not in self.into, "a circle"
        return code

    def ends(self, customer):
        return {self.end(code) for code in self.has[UUID(customer)]}


async def sent(api, random, customers, tags):
    """One command at random; what it answers is one of those that a caller can expect."""
    service = api.service.tagging.tags
    what = random.choice(
        ["define", "name", "merge", "merge", "retire", *["add"] * 4, "remove", "rule", "override"]
    )
    name, tag, customer = random.choice(NAMES), random.choice(tags), random.choice(customers)
    said = random.choice([name, tag])
    version = (await service.handler.load(stream_of(tag))).version
    headers = once() | {"If-Match": f'"{version}"'}
    match what:
        case "define":
            asked = api.post("/tags", json={"name": name}, headers=once())
        case "name":
            asked = api.put(f"/tags/{tag}/name", json={"name": name}, headers=headers)
        case "merge":
            into = random.choice(tags)
            asked = api.post(f"/tags/{tag}/merge", json=WHY | {"into": into}, headers=headers)
        case "retire":
            # More often taken back: most that is added would be refused.
            step = random.choice(["retire", "reinstate", "reinstate", "accept"])
            asked = api.post(f"/tags/{tag}/{step}", json=WHY, headers=headers)
        case "rule":
            token = {"Authorization": f"Bearer {api.token_of('service')}"}
            more = {random.choice(["add", "remove"]): [tag], "rule": random.choice(RULES)}
            asked = api.post(f"/customers/{customer}/tags/by-rule", json=more, headers=once() | token)
        case "override":
            more = WHY | {"remove": [said]}
            asked = api.post(f"/customers/{customer}/tags/remove", json=more, headers=once())
        case _:
            asked = api.post(f"/customers/{customer}/tags", json={what: [said]}, headers=once())
    answer = await asked
    assert answer.status_code in {200, 201, 404, 409, 412}, (what, answer.status_code, answer.text)
    return answer.status_code


@pytest.mark.requirement("R025", "R026")
@pytest.mark.parametrize("seed", range(4))
async def test_conditions_by_any_name_and_what_is_shown_are_as_the_events_say(api, store, shown, seed):
    random = Random(seed)
    customers = [await registered(api) for _ in range(4)]
    tags = [code_of(name) for name in NAMES]
    statuses = list[int]()
    for _ in range(ROUNDS):
        acts = [sent(api, random, customers, tags) for _ in range(random.randint(1, AT_ONCE_MAX))]
        statuses += await asyncio.gather(*acts)
    assert sum(status < 300 for status in statuses) > ROUNDS / 2, "most of it was refused"

    known, told = catalogue(), await store.read_after(0, 10_000)
    model = Told((one.stream_id, known.open(one, None).event) for one in told if one.name.startswith("tag-"))
    for code in model.took_over:
        stands = {one for one in model.into if model.end(one) == code}
        assert code in model.into or model.took_over[code] == stands
    await shown()
    for customer in customers:
        answer = (await api.get(f"/customers/{customer}")).json()["tags"]
        assert {one["tag"] for one in answer} == model.ends(customer)
        history = (await api.get(f"/customers/{customer}/tags/history", params={"limit": 200})).json()[
            "items"
        ]
        changes = [(one["change"], one["tag"]) for one in history]
        had = {code for change, code in changes if change == "added"}
        assert {
            code for code in had if changes.count(("added", code)) > changes.count(("removed", code))
        } == set(model.has[UUID(customer)])
    called = {name: code for code, names in model.said.items() for name in names}
    for name, code in called.items():
        wanted = {one for one in customers if model.end(code) in model.ends(one)}
        assert await found(api, f"tags has {json.dumps(name, ensure_ascii=False)}") == wanted, name
    for one, other in combinations(random.sample(sorted(called), 5), 2):
        values = json.dumps([one, other], ensure_ascii=False)[1:-1]
        ends = {model.end(called[one]), model.end(called[other])}
        anyone = {each for each in customers if ends & model.ends(each)}
        everyone = {each for each in customers if ends <= model.ends(each)}
        assert await found(api, f"tags has any ({values})") == anyone
        assert await found(api, f"not tags has any ({values})") == {*customers} - anyone
        assert await found(api, f"tags has all ({values})") == everyone
        assert await found(api, f"not tags has all ({values})") == {*customers} - everyone
