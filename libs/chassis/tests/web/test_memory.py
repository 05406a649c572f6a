"""What a refused request leaves in memory: nothing that only a search for cycles would find.

The body of a request may be large, and a process looks for cycles only after thousands of objects
(`chassis.heap`).
"""

import gc
from collections import Counter

import pytest
from structlog.testing import capture_logs

REQUESTS = 20
KEYED = {"Idempotency-Key": "k1"}
JSON = {"content-type": "application/json"}


def errors() -> Counter[str]:
    """The errors in memory, by class."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, BaseException))


@pytest.mark.usefixtures("never_looking_for_cycles")
@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("POST", "/boxes", KEYED | JSON, b'{"label": "' + b"a" * 1_000, 422),
        ("POST", "/boxes", KEYED | JSON, b'{"label": "a", "label": "b"}', 422),
        ("POST", "/boxes", KEYED | JSON, b'{"label": ""}', 422),
        ("POST", "/boxes", KEYED | JSON, b'{"label": "\xff"}', 400),
        ("POST", "/boxes", KEYED | JSON, b'{"label": ' + b"[" * 60_000, 422),
        ("POST", "/boxes", JSON, b'{"label": "a"}', 400),
        ("POST", "/boxes", KEYED | {"content-type": "text/csv"}, b"a", 415),
        ("PUT", "/boxes/1/label", KEYED | JSON | {"If-Match": '"9"'}, b'{"label": "a"}', 412),
        ("GET", "/boxes?after=no-cursor", {}, b"", 400),
        ("GET", "/boxes/99", {}, b"", 404),
        ("GET", "/boxes/1/secret", {}, b"", 403),
        ("GET", "/boxes/1/broken", {}, b"", 500),
        ("GET", "/boxes/1/away", {}, b"", 503),
        ("DELETE", "/boxes", {}, b"", 405),
        ("GET", "/nowhere", {}, b"", 404),
    ],
)
async def test_a_refused_request_leaves_nothing_behind(client, method, path, headers, content, status):
    async def refused() -> None:
        with capture_logs():  # what shows a traceback in development looks into the functions itself
            answer = await client.request(method, path, headers=headers, content=content)
        assert answer.status_code == status, answer.text

    await refused()
    before = errors()
    for _ in range(REQUESTS):
        await refused()
    left = errors() - before
    assert left.total() < REQUESTS // 2, left
