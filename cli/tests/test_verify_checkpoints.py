"""The log against what it was when it was last verified."""

import os
from pathlib import Path
from uuid import UUID

import pytest
from chassis.write.events import StoredEvent
from crm_cli.verify_checkpoints import CHECKPOINTS_KEPT_MAX, Checkpoints
from crm_cli.verify_report import Report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LOG = [StoredEvent(UUID(int=at % 3), at, "moved", b"%d" % at, position=2 * at) for at in range(1, 13)]
"""The positions have gaps."""


def verified(folder: Path, log: list[StoredEvent], page: int = 5) -> Report:
    """What a verification of this log says and keeps."""
    report = Report()
    checkpoints = Checkpoints(folder, "ingest", report)
    for at in range(0, len(log), page):
        checkpoints.take(log[at : at + page])
    checkpoints.finish()
    return report


@pytest.mark.parametrize("page", [1, 5, 12])
def test_a_log_that_only_grows_is_what_it_was(tmp_path: Path, page: int) -> None:
    compared = []
    for length in (3, 3, 7, 12):
        report = verified(tmp_path, LOG[:length], page)
        assert report.green, report.readable()
        compared.append(report.checked["I6"])
    assert compared == [0, 1, 1, 2]


@given(
    checkpoints=st.lists(st.integers(1, len(LOG)), min_size=1, max_size=4),
    changed=st.integers(0, len(LOG) - 1),
    how=st.sampled_from(["body", "name", "stream", "version", "left out", "two exchanged", "cut off"]),
    pages=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_before_a_checkpoint_is_seen_and_none_behind_the_last(
    tmp_path: Path, checkpoints: list[int], changed: int, how: str, pages: tuple[int, int]
) -> None:
    (tmp_path / "ingest.json").unlink(missing_ok=True)
    for length in sorted(checkpoints):
        assert verified(tmp_path, LOG[:length], pages[0]).green
    log = list(LOG)
    match how:
        case "body":
            log[changed] = replaced(log[changed], body=b"0")
        case "name":
            log[changed] = replaced(log[changed], name="moved|")
        case "stream":
            log[changed] = replaced(log[changed], stream_id=UUID(int=9))
        case "version":
            log[changed] = replaced(log[changed], version=99)
        case "left out":
            del log[changed]
        case "two exchanged":
            changed = min(changed, len(LOG) - 2)
            one, other = log[changed], log[changed + 1]
            log[changed], log[changed + 1] = (
                replaced(other, position=one.position),
                replaced(one, position=other.position),
            )
        case _:
            del log[changed:]
    assert verified(tmp_path, log, pages[1]).green == (changed >= max(checkpoints))


def replaced(event: StoredEvent, **fields: object) -> StoredEvent:
    """The event with other fields."""
    there = {name: getattr(event, name) for name in event.__struct_fields__}
    return StoredEvent(**(there | fields))


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    log = [
        StoredEvent(UUID(int=1), at, "moved", b"", position=at) for at in range(1, CHECKPOINTS_KEPT_MAX + 9)
    ]
    for length in range(1, len(log) + 1):
        verified(tmp_path, log[:length], 1_000)
    assert verified(tmp_path, log, 1_000).checked["I6"] == CHECKPOINTS_KEPT_MAX
    assert [file.name for file in tmp_path.iterdir()] == ["ingest.json"]


@pytest.mark.parametrize("text", [b"", b"{", b'{"7": 1}', b'{"seven": "x"}', b"\xff"])
def test_checkpoints_that_cannot_be_read_are_told_and_left(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "ingest.json"
    file.write_bytes(text)
    report = verified(tmp_path, LOG)
    assert "ingest.json cannot be read" in report.readable()
    assert not report.green
    assert file.read_bytes() == text


def test_a_checkpoint_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / f"ingest.{os.getpid()}.partial").mkdir()
    report = verified(tmp_path, LOG)
    assert "ingest: the checkpoint cannot be kept" in report.readable()
    assert not report.green
