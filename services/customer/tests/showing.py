"""What is stored, folded into the documents of the views and of the facts, as the roles would."""

import json
from collections import defaultdict

from chassis.read.blind import BlindIndex
from chassis.read.deriving import InputGeneration, MongoInputs
from chassis.read.documents import Change
from chassis.read.mongo import MongoDocuments
from customer.catalogue import catalogue
from customer.derived import customer_facts
from customer.publishing import published
from customer.views import VIEWS

from .told import Told


async def told_of(store):
    """The public events of a store, in order."""
    known = catalogue()
    for one in await store.read_after(0, 100_000):
        if (public := published(one)) is not None:
            data = json.loads(public.body)
            meta = known.metadata_of(one)
            yield Told(
                public.event.TYPE,
                one.stream_id,
                one.version,
                data,
                one.position,
                one.name,
                meta.recorded_at,
                meta.effective_at,
            )


async def show(store, mongo, ring, today):
    """Makes every view and the facts anew of what is stored."""
    folded = {view.name: {} for view in VIEWS}
    async for event in told_of(store):
        for view in VIEWS:
            for key in view.keys(event) if event.type in view.events else ():
                made = view.project(key, folded[view.name].get(key), event)
                folded[view.name][key] = {**made, "_id": key.id, "_seq": event.sequence}
    for view in VIEWS:
        documents = MongoDocuments(mongo, f"{view.name}_v1_")
        by_collection = defaultdict(list)
        for key, document in folded[view.name].items():
            by_collection[key.collection].append(
                Change(key.id, None, document["_seq"], documents.freeze(document))
            )
        for collection in view.collections:
            await mongo.drop(f"{view.name}_v1_{collection.name}")
            if changes := by_collection[collection.name]:
                assert not (await documents.write(collection.name, changes)).conflicts
    inputs = inputs_of(mongo, ring, today)
    await keep_facts(mongo, inputs, await customer_facts.everything(inputs, None, 10_000))


def inputs_of(mongo, ring, today):
    """The views as the facts are derived from them."""
    pinned = [InputGeneration(view, f"{view.name}_v1_", f"{view.name}.v1") for view in VIEWS]
    return MongoInputs(mongo, pinned, today, BlindIndex(ring))


async def keep_facts(mongo, inputs, ids):
    """Derives the facts of these customers anew."""
    view = customer_facts.VIEW
    documents = MongoDocuments(mongo, f"{view.name}_v1_")
    found = await customer_facts.derive(inputs, ids)
    await mongo.delete(f"{view.name}_v1_{customer_facts.FACTS}", {"_id": {"$in": list(ids)}})
    changes = [
        Change(id, None, 1, documents.freeze({**view.placed(id, document), "_id": id, "_seq": 1}))
        for id, document in found.items()
    ]
    if changes:
        assert not (await documents.write(customer_facts.FACTS, changes)).conflicts
