"""What waits for people, from the command line: bulk runs, and proposals."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import typer
from chassis.bulk import Approval, Bulk, Bulkable, listed
from chassis.clock import SystemClock, uuid7
from chassis.privacy.tokens import development_token
from chassis.proposals import FourEyes, Proposable
from chassis.write.deciding import CommandContext
from crm_cli import approve, bulk, proposals
from customer.application import Erase
from customer.catalogue import catalogue
from customer.connections import write_side
from customer.domain.commands import AssignBranch
from customer.settings import CustomerSettings
from typer.testing import CliRunner, Result

from .stores import Bank, new_database

CLOCK = SystemClock()
ZHANG, LI = UUID(int=1), UUID(int=2)


def by(key: str, actor: str = "chen") -> CommandContext:
    now = CLOCK.now()
    return CommandContext(
        actor=actor, now=now, command_id=uuid7(now), idempotency_key=key, reason="asked for"
    )


# Not the program: it sends the logs of this process to its own standard error, and that ends with the command.
APP = typer.Typer()
APP.add_typer(bulk.app, name="bulk")
APP.add_typer(proposals.app, name="proposals")
approve.register(APP)


async def crm(bank: Bank, *arguments: str) -> Result:
    """What a command says, in a thread of this process."""
    return await asyncio.to_thread(CliRunner().invoke, APP, list(arguments), env=bank.environment())


async def never(*_: Any) -> Any:
    raise AssertionError("no item is given, and nothing is carried out")


async def test_bulk_runs_and_proposals_are_listed_and_runs_are_paused_and_resumed(
    postgres_url: str, tmp_path: Path
) -> None:
    bank = Bank(new_database(postgres_url), "127.0.0.1:1", "mongodb://127.0.0.1:1", tmp_path)
    for command in ("bulk", "proposals"):
        nothing = await crm(bank, command, "list", "--json")
        assert nothing.exit_code == 0, nothing.stderr
        assert json.loads(nothing.stdout) == {"items": []}
    known = {"postgres_url", "keys_url", "data", "environment"}
    settings = CustomerSettings(**bank.settings().model_dump(include=known))
    async with write_side(settings, CLOCK) as write:
        kinds = {"assign-branch": Bulkable(AssignBranch, never, never, never)}
        many = Bulk(write.store, catalogue(), write.ring, kinds, CLOCK)
        run = (await many.prepare("assign-branch", AssignBranch("7"), listed([ZHANG, LI]), by("run"))).run_id
        ready = (await many.prepare("assign-branch", AssignBranch("6"), listed([ZHANG]), by("ready"))).run_id
        await many.start(run, by("start"))
        alone = Approval(1, frozenset(), timedelta(days=1), "assign")
        kinds = {"assign-branch": Bulkable(AssignBranch, never, never, never, approval=alone)}
        two = Bulk(write.store, catalogue(), write.ring, kinds, CLOCK)
        large = (await two.prepare("assign-branch", AssignBranch("8"), listed([ZHANG, LI]), by("2"))).run_id
        erasable = {"erase": Proposable(Erase, frozenset(), timedelta(days=1), never, "erase")}
        eyes = FourEyes(write.store, catalogue(), write.ring, erasable)
        made = [await eyes.propose("erase", one, Erase(), by(f"propose {one}")) for one in (ZHANG, LI)]
        await eyes.withdraw(made[1].proposal_id, by("withdraw"))

    for verb, status in (("list", "running"), ("pause", "paused"), ("list", "paused"), ("resume", "running")):
        said = [] if verb == "list" else [str(run), "--reason", "month end"]
        ended = await crm(bank, "bulk", verb, *said, "--json")
        assert ended.exit_code == 0, ended.stderr
        found = json.loads(ended.stdout)
        [one] = found["items"] if verb == "list" else [found]
        assert (one["run_id"], one["status"], one["items"], one["settled"]) == (str(run), status, 2, 0)
    never_started = await crm(bank, "bulk", "resume", str(ready), "--reason", "the wrong one")
    assert (never_started.exit_code, "it is ready" in never_started.stderr) == (2, True)
    unknown = await crm(bank, "bulk", "pause", str(ZHANG), "--reason", "x")
    assert (unknown.exit_code, "There is no such bulk run" in unknown.stderr) == (2, True)

    waiting = await crm(bank, "proposals", "list", "--json")
    [one] = json.loads(waiting.stdout)["items"]
    assert (one["proposal_id"], one["kind"], one["subject"]) == (
        str(made[0].proposal_id),
        "erase",
        str(ZHANG),
    )
    assert (one["proposed_by"], one["digest"], one["expired"]) == ("chen", made[0].digest, False)
    assert "by chen" in (await crm(bank, "proposals", "list")).stdout

    refused = await crm(bank, "bulk", "resume", str(large), "--reason", "alone")
    assert (refused.exit_code, "Another person must approve" in refused.stderr) == (2, True)
    proposed = await crm(bank, "bulk", "propose", str(large), "--reason", "month end", "--json")
    assert proposed.exit_code == 0, proposed.stderr
    said = json.loads(proposed.stdout)
    approving = ("approve", said["proposal_id"], said["digest"], "--reason", "seen", "--json")
    own = await crm(bank, *approving)
    assert (own.exit_code, "Another person" in own.stderr) == (2, True)
    token = development_token(settings, CLOCK.now(), subject="wu", roles=["compliance"])
    approved = await crm(bank, *approving, "--token", token)
    assert approved.exit_code == 0, approved.stderr
    assert json.loads(approved.stdout)["subject_id"] == str(large)
    items = json.loads((await crm(bank, "bulk", "list", "--json")).stdout)["items"]
    assert {one["run_id"]: one["status"] for one in items}[str(large)] == "running"
