"""Each context has a store of its own, and goes on where that of the other context is gone."""

import httpx
import psycopg
import pytest
from chassis.privacy.tokens import development_token
from chassis.web import create_app
from chassis.write.store import Recorder
from crm_cli.contexts import CONTEXTS
from customer import bootstrap as customer_service
from customer.settings import CustomerSettings

from .stores import CLOCK, PHONE, Bank, a_small_feed, new_database

REGISTERED = {
    "name": "周慧",
    "phone": PHONE,
    "stated_assets": [{"product": "fund", "amount": "1", "currency": "CNY"}],
}


@pytest.fixture
def bank(postgres_url, kafka_url, mongo_url, tmp_path) -> Bank:
    return Bank(new_database(postgres_url), kafka_url, mongo_url, tmp_path)


def without(bank: Bank, *schemas: str) -> None:
    with psycopg.connect(bank.postgres_url, autocommit=True) as connection:
        for schema in schemas:
            connection.execute(f"drop schema {schema} cascade")


def head(bank: Bank, context: str) -> int:
    recorder = Recorder(bank.postgres_url, CONTEXTS[context].schema)
    try:
        return recorder.head_position()
    finally:
        recorder.close()


async def register(bank: Bank) -> httpx.Response:
    """A customer is registered over HTTP."""
    settings = CustomerSettings(**bank.settings().model_dump(include=set(CustomerSettings.model_fields)))
    async with customer_service.routes(settings) as served:
        app = create_app("customer", [served.router], settings)
        token = development_token(settings, CLOCK.now())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://crm") as web:
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "one"}
            return await web.post("/customers", json=REGISTERED, headers=headers)


@pytest.mark.requirement("D01")
async def test_customers_are_registered_where_the_store_of_feeds_is_gone(bank):
    without(bank, CONTEXTS["ingest"].schema, "ingest")
    made = await register(bank)
    assert made.status_code == 201, made.text
    assert head(bank, "customer") == 1


@pytest.mark.requirement("D01")
def test_feeds_are_taken_in_where_the_store_of_customers_is_gone(bank):
    without(bank, CONTEXTS["customer"].schema)
    bank.take("branch", *a_small_feed())
    assert head(bank, "ingest") > len(a_small_feed())
