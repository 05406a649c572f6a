"""`crm verify` reads every file: one that was changed or lost is named, and one whose key was destroyed is not taken for it."""

from chassis.clock import uuid7
from chassis.files import FileKeeper, Offered, Storage, objects_of
from chassis.files.contents import stream_of
from chassis.files.objects import Name
from chassis.privacy.keys import KeyRing
from chassis.write.deciding import CommandContext
from chassis.write.store import EventStore
from crm_cli.contexts import CONTEXTS
from crm_cli.verify_files import check_files
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store
from customer.settings import CustomerSettings

from .planting import spoiled
from .stores import CLOCK, Bank, new_database

CONTEXT = CONTEXTS["customer"]


async def content(text):
    yield text.encode()


async def checked(settings):
    report = Report()
    store = Store(settings.postgres_url, CONTEXT, report)
    try:
        await check_files(settings, CONTEXT, store, report, CLOCK)
    finally:
        store.close()
    return report


async def test_a_file_that_was_changed_or_lost_is_named_and_not_one_whose_key_was_destroyed(
    postgres_url, tmp_path
):
    bank = Bank(new_database(postgres_url), "", "", tmp_path)
    settings = CustomerSettings(
        postgres_url=bank.postgres_url, keys_url=bank.keys_url, data=tmp_path, environment="development"
    )
    assert (await checked(settings)).as_json()["green"]
    ring = KeyRing.of(settings, CLOCK.monotonic)
    store = EventStore(settings.postgres_url, CONTEXT.schema)
    storage = Storage(objects_of(settings, CONTEXT.name))
    keeper = FileKeeper(store, CONTEXT.catalogue(), ring, storage)
    subjects = [uuid7(CLOCK.now()) for _ in range(4)]
    objects = []
    for subject in subjects:
        given = CommandContext(actor="anna", now=CLOCK.now(), command_id=uuid7(CLOCK.now()))
        offered = Offered("a.txt", "text/plain", "letter")
        kept = await keeper.attach(subject, offered, content(str(subject)), given)
        objects.append(kept.outcome.events[0].object)
    left = storage.write(Name(subjects[0], subjects[1]))
    await left.write(b"without an event")
    await left.commit()
    ring.erase(subjects[3:])
    report = await checked(settings)
    assert (report.green, report.checked["I11"]) == (True, 3)
    kept = {"kept": 4, "key_gone": 1, "objects_without_file": 1, "opened": True}
    assert report.figures["files"] == {"customer": kept}

    places = {path.name: path for path in (tmp_path / "files").rglob("*")}
    places[objects[0].hex].unlink()
    changed = bytearray(places[objects[1].hex].read_bytes())
    changed[-1] ^= 1
    places[objects[1].hex].write_bytes(changed)
    found = (await checked(settings)).as_json()["invariants"]["I11"]["problems"]
    named = [subject for subject in subjects if any(str(subject) in problem for problem in found)]
    assert (named, len(found)) == (subjects[:2], 2)

    without_keys = settings.model_copy(update={"keys_url": "postgresql://127.0.0.1:1/none"})
    report = await checked(without_keys)
    assert (report.figures["files"]["customer"]["opened"], report.checked["I11"]) == (False, 4)
    [missing] = report.as_json()["invariants"]["I11"]["problems"]
    assert str(subjects[0]) in missing

    spoiled(settings.postgres_url, unread := stream_of(CONTEXT.catalogue().store, subjects[2]), b"{")
    found = (await checked(settings)).as_json()["invariants"]["I11"]["problems"]
    assert len(found) == 3, "the files of the others are checked all the same"
    assert any(f"the files of the stream {unread} cannot be read" in problem for problem in found)
    ring.close()
    await store.close()
    await storage.close()
