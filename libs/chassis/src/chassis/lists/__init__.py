"""Lists: pages of the documents of a view, filtered, sorted, counted and searched, each within the scope of its caller.

`declaring` says what a list can be asked for; `asking` reads what a caller asks, or refuses it; `scope` says which
documents the caller may see; `finding` asks the database; `cursors` seals where a page ended.
"""

from chassis.lists.asking import ConditionInvalid, FieldNotPermitted, Question, SortInvalid, question
from chassis.lists.cursors import Cursors
from chassis.lists.declaring import Listing
from chassis.lists.finding import Counted, Found, LiveViews, QueryTooSlow, Reader
from chassis.lists.pairing import Ago
from chassis.lists.scope import Scope

__all__ = [
    "Ago",
    "ConditionInvalid",
    "Counted",
    "Cursors",
    "FieldNotPermitted",
    "Found",
    "Listing",
    "LiveViews",
    "QueryTooSlow",
    "Question",
    "Reader",
    "Scope",
    "SortInvalid",
    "question",
]
