"""Watching: a caller is told which documents of a view changed, by their ids or by a condition, as server-sent events.

`hub` hears the changes of a collection once for a process, and tells its watchers; `groups` is what a change is to those who
want the same, `recalling` what changed while one was away, `reaching` how much a read then shows; `watchers` is what one of
them was not sent yet; `routes` is the stream. What is told is that a document changed, never what it holds.
"""

from chassis.watching.hub import ConditionWide, Hub, Watched, hearing
from chassis.watching.routes import LastEventId, Seconds, streamed, watched
from chassis.watching.watchers import Wanted, Watcher

__all__ = [
    "ConditionWide",
    "Hub",
    "LastEventId",
    "Seconds",
    "Wanted",
    "Watched",
    "Watcher",
    "hearing",
    "streamed",
    "watched",
]
