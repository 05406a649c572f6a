"""Gauges of the processes beside this one."""

from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from chassis.observability import metrics

PAGE = """# TYPE crm_lag_events gauge
crm_lag_events{context="boxes",group="boxes.beside.v1"} 7.0
# TYPE crm_parked_subjects gauge
crm_parked_subjects{group="boxes.beside.v1"} 2.0
# TYPE crm_http_requests counter
crm_http_requests_total{method="GET",route="/x",status="200"} 5.0
"""


class Page(BaseHTTPRequestHandler):
    """Shows what the test said last."""

    def __init__(self, text: list[str], *given: Any) -> None:
        self.text = text
        super().__init__(*given)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text[-1].encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def text() -> list[str]:
    return [PAGE]


@pytest.fixture
def address(text: list[str]) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), partial(Page, text))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


async def shown(beside: metrics.Beside) -> str:
    page = (await metrics.measured([beside.measure])).decode()
    return "\n".join(line for line in page.splitlines() if "beside" in line or "/x" in line)


async def test_gauges_of_a_process_beside_are_shown_and_disappear_with_it(address, text):
    pages = {"views": address}
    beside = metrics.Beside(lambda: pages)
    assert await shown(beside) == (
        'crm_lag_events{context="boxes",group="boxes.beside.v1"} 7.0\n'
        'crm_parked_subjects{group="boxes.beside.v1"} 2.0'
    )
    text.append(PAGE.replace("7.0", "9.0").replace("crm_parked", "crm_other"))
    assert await shown(beside) == 'crm_lag_events{context="boxes",group="boxes.beside.v1"} 9.0'
    pages["views"] = "http://127.0.0.1:1/metrics"
    assert await shown(beside) == ""


async def test_a_measure_that_takes_too_long_does_not_hold_the_page_up():
    import asyncio

    async def slow() -> None:
        await asyncio.sleep(10)

    assert b"crm_role_ready" in await asyncio.wait_for(metrics.measured([slow], seconds_max=0.05), 2)
