"""`crm verify` finds the file of every export that was made, and names one that has none."""

from datetime import timedelta
from uuid import UUID

from chassis.clock import uuid7
from chassis.exports.deciding import EXPORT, Begin, ExportMade, ExportRequested, Finish, Request
from chassis.files import FileKeeper, Offered, Storage
from chassis.files.folder import Folder
from chassis.privacy.keys import KeyRing
from chassis.write.deciding import CommandContext
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore
from crm_cli.contexts import CONTEXTS
from crm_cli.verify_exports import check_exports
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store
from customer.settings import CustomerSettings
from msgspec import structs

from .planting import spoiled
from .stores import CLOCK, Bank, new_database

CONTEXT = CONTEXTS["customer"]


def by():
    return CommandContext(actor="anna", now=CLOCK.now(), command_id=uuid7(CLOCK.now()))


async def content():
    yield b"a"


def checked(settings):
    report = Report()
    store = Store(settings.postgres_url, CONTEXT, report)
    try:
        check_exports(settings.postgres_url, CONTEXT, store, report)
    finally:
        store.close()
    return report


async def test_an_export_without_its_file_is_named(postgres_url, tmp_path):
    bank = Bank(new_database(postgres_url), "", "", tmp_path)
    settings = CustomerSettings(
        postgres_url=bank.postgres_url, keys_url=bank.keys_url, data=tmp_path, environment="development"
    )
    assert (checked(settings).green, checked(settings).figures) == (True, {})
    ring = KeyRing.of(settings, CLOCK.monotonic)
    store = EventStore(settings.postgres_url, CONTEXT.schema)
    storage = Storage(Folder(tmp_path / "files", CONTEXT.name, create=True))
    keeper = FileKeeper(store, CONTEXT.catalogue(), ring, storage)
    handler = CommandHandler(EXPORT, store, CONTEXT.catalogue(), ring)
    now = CLOCK.now()
    requested = ExportRequested(
        listing="customers",
        where=None,
        sort=None,
        as_of=now.date(),
        columns=("name",),
        language="zh",
        asked_by="anna",
        post=None,
        on_behalf_of=None,
        roles=("compliance",),
        counted=1,
        alone_rows_max=1,
        rows_max=1,
        slot=UUID(int=1),
        at=now,
    )
    exports = [uuid7(now) for _ in range(3)]
    for number, export in enumerate(exports):
        command = Request(structs.replace(requested, slot=export))
        await handler.handle(export, command, by())
        if number == 2:
            continue
        kept = await keeper.attach(export, Offered("a.txt", "text/plain", "export"), content(), by())
        await handler.handle(export, Begin(now), by())
        file = kept.shown.file_id if number == 0 else UUID(int=9)
        made = ExportMade(1, file, 1, 1, "0" * 64, now, now + timedelta(days=7))
        await handler.handle(export, Finish(made), by())
    report = checked(settings)
    assert report.figures["exports"] == {"customer": {"made": 2, "under_way": 1}}
    [problem] = report.as_json()["invariants"]["I11"]["problems"]
    assert str(exports[1]) in problem
    spoiled(settings.postgres_url, exports[0], b"{")
    found = checked(settings).as_json()["invariants"]["I11"]["problems"]
    assert len(found) == 2
    assert any(f"the export {exports[0]} cannot be read" in problem for problem in found)
    ring.close()
    await store.close()
    await storage.close()
