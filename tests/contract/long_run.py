"""`python -m tests.contract.long_run [REQUESTS]`: requests from the OpenAPI document against the running `crm up`.

10,000 unless another number is given; prints what was answered, ends with 1 where an answer is wrong.
"""

import sys

import requests
from chassis.clock import SystemClock
from chassis.privacy.tokens import development_token
from crm_cli.running import customer_settings, running

from tests.contract.fuzzing import fuzz

REQUESTS = 10_000


def main(arguments: list[str]) -> int:
    """Runs it."""
    wanted = int(arguments[0]) if arguments else REQUESTS
    here = running()
    if here is None:
        print("nothing runs here: start `make run`", file=sys.stderr)
        return 2
    url, token = here.web, development_token(customer_settings(), SystemClock().now())
    result = fuzz(
        url,
        token,
        wanted,
        known=known(url, token),
        told=lambda text: print(text, file=sys.stderr, flush=True),
    )
    for line in (*result.lines(), *result.failures):
        print(line)
    return 1 if result.failures else 0


def known(url: str, token: str) -> dict[str, list[str]]:
    """Ids that exist, for path parameters: a customer with accounts, these, certificates, quarantined records."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"

        def listed(path: str, field: str, **asked: str) -> list[str]:
            found = session.get(f"{url}{path}", params=asked, timeout=30)
            found.raise_for_status()
            return [str(one[field]) for one in found.json()["items"]]

        for customer in listed("/customers", "customer_id", limit="50"):
            if accounts := listed(f"/customers/{customer}/accounts", "account_id"):
                return {
                    "customer_id": [customer],
                    "account_id": accounts,
                    "certificate_id": listed("/ingest/certificates", "certificate_id", limit="5"),
                    "entry": listed("/ingest/quarantine", "id", limit="5"),
                }
    raise LookupError("no customer with accounts: is the demo bank in?")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
