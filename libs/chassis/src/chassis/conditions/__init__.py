"""Conditions over the facts of a subject: a language, and its interpreters.

`fields` says what can be asked; `language` is the tree and its JSON; `text` reads and writes it as a line;
`filtering` asks the database, `predicate` one document, `sentences` words it; `explaining` says why.
"""

from chassis.conditions.explaining import Explanation, Reason, Step, emptying, explained, funnel
from chassis.conditions.fields import DataClass, Field, Fields, Label, Type
from chassis.conditions.filtering import Filter, as_filter
from chassis.conditions.language import CONDITION, Condition, ConditionRefused, checked
from chassis.conditions.predicate import Facts, holds
from chassis.conditions.sentences import sentence
from chassis.conditions.text import as_text, from_text

__all__ = [
    "CONDITION",
    "Condition",
    "ConditionRefused",
    "DataClass",
    "Explanation",
    "Facts",
    "Field",
    "Fields",
    "Filter",
    "Label",
    "Reason",
    "Step",
    "Type",
    "as_filter",
    "as_text",
    "checked",
    "emptying",
    "explained",
    "from_text",
    "funnel",
    "holds",
    "sentence",
]
