"""Which files of a folder are a feed, and what is said of those that are not."""

import os

import pytest
from crm_cli.feed_files import DEPTH_MAX, FeedUnreadable, feed_of


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "feed"
    inside.mkdir()
    return inside


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def taken(folder):
    found = {}
    for content in feed_of(folder).contents:
        with content.open() as stream:
            found[content.name] = stream.read().decode()
    return found


def test_folders_inside_a_folder_are_read_too_in_the_order_of_their_names(folder):
    put(folder, "b.jsonl", "a/z.jsonl", "a/b/c.jsonl", "a.jsonl")
    assert list(taken(folder)) == ["a.jsonl", "a/b/c.jsonl", "a/z.jsonl", "b.jsonl"]
    assert all(name == content for name, content in taken(folder).items())


def test_copies_and_files_under_way_are_left_and_named(folder):
    put(folder, "a.jsonl", "a.jsonl.bak", "a.jsonl~", "b.jsonl.filepart", "c.TMP", ".hidden", ".git/config")
    assert list(taken(folder)) == ["a.jsonl"]
    assert feed_of(folder).shown() == {
        "taken": ["a.jsonl"],
        "taken_total": 1,
        "left": [
            {"file": ".git", "reason": "hidden"},
            {"file": ".hidden", "reason": "hidden"},
            {"file": "a.jsonl.bak", "reason": "leftover"},
            {"file": "a.jsonl~", "reason": "leftover"},
            {"file": "b.jsonl.filepart", "reason": "leftover"},
            {"file": "c.TMP", "reason": "leftover"},
        ],
        "left_total": 6,
    }


def test_links_that_lead_out_are_refused_and_links_inside_are_taken_once(folder, tmp_path):
    put(folder, "a.jsonl", "sub/b.jsonl", ".data/c.jsonl")
    put(tmp_path, "outside.jsonl", "elsewhere/d.jsonl")
    links = {
        "out.jsonl": tmp_path / "outside.jsonl",
        "out": tmp_path / "elsewhere",
        "sub/up": folder,
        "sub/a.jsonl": folder / "a.jsonl",
        "c.jsonl": folder / ".data/c.jsonl",
        "d.jsonl": folder / ".data/c.jsonl",
        "nothing.jsonl": folder / "nothing",
        "around.jsonl": folder / "around.jsonl",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert taken(folder) == {"a.jsonl": "a.jsonl", "c.jsonl": ".data/c.jsonl", "sub/b.jsonl": "sub/b.jsonl"}
    assert {left.name: left.reason for left in feed_of(folder).left} == {
        ".data": "hidden",
        "around.jsonl": "link-broken",
        "d.jsonl": "link-to-taken",
        "nothing.jsonl": "link-broken",
        "out": "link-leads-out",
        "out.jsonl": "link-leads-out",
        "sub/a.jsonl": "link-to-taken",
        "sub/up": "link-to-folder",
    }


def test_a_file_that_became_a_link_since_it_was_looked_at_is_not_opened(folder, tmp_path):
    put(folder, "a.jsonl")
    put(tmp_path, "secret")
    (content,) = feed_of(folder).contents
    (folder / "a.jsonl").unlink()
    (folder / "a.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"symbolic|ELOOP|levels"):
        content.open()


def test_what_is_neither_a_file_nor_a_folder_is_left(folder):
    put(folder, "a.jsonl")
    os.mkfifo(folder / "pipe")
    assert [tuple(left) for left in feed_of(folder).left] == [("pipe", "no-file")]
    with pytest.raises(FeedUnreadable, match="neither a file nor a folder"):
        feed_of(folder / "pipe")


def test_folders_are_read_down_to_a_limit_and_what_is_below_is_named(folder):
    deep = "/".join(["d"] * DEPTH_MAX)
    put(folder, f"{deep}/a.jsonl", f"{deep}/d/b.jsonl")
    assert list(taken(folder)) == [f"{deep}/a.jsonl"]
    assert [left.reason for left in feed_of(folder).left] == ["too-deep"]


def test_a_folder_of_nothing_but_leftovers_is_no_feed(folder):
    put(folder, "a.jsonl.bak")
    with pytest.raises(FeedUnreadable, match=r"no files in .*1 left out"):
        feed_of(folder)


def test_one_file_is_the_file_that_was_named(tmp_path):
    put(tmp_path, "a.jsonl.bak")
    assert list(taken(tmp_path / "a.jsonl.bak")) == ["a.jsonl.bak"]
