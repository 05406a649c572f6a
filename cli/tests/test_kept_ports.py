"""The processes of `crm up` are scraped at the same addresses in every run on a data folder."""

import json
import socket

from crm_cli.up import PORTS_FILE, kept_port


def test_a_part_has_the_same_port_in_the_next_run(tmp_path):
    views = kept_port(tmp_path, "views")
    workers = kept_port(tmp_path, "workers", [views])
    assert views != workers
    assert (kept_port(tmp_path, "views"), kept_port(tmp_path, "workers", [views])) == (views, workers)


def test_a_port_that_somebody_took_is_replaced_and_the_new_one_kept(tmp_path):
    before = kept_port(tmp_path, "views")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", before))
        taken.listen()
        other = kept_port(tmp_path, "views")
        assert other != before
    assert kept_port(tmp_path, "views") == other


def test_a_file_that_cannot_be_read_is_written_anew(tmp_path):
    for broken in ("", "[]", '{"views": "x"}', '{"views": 70000}', '{"views": null}'):
        (tmp_path / PORTS_FILE).write_text(broken)
        assert 0 < kept_port(tmp_path, "views") < 65_536
        assert "views" in json.loads((tmp_path / PORTS_FILE).read_text())
