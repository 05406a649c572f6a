"""The documents that a caller may see.

A scope is a condition on the fields of a list, built from the caller. What it asks for, the caller need not be
allowed to ask for. Outside of it a document is not there: it is on no page, in no count, and asked for by its id it
is not found.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

from chassis.conditions import Condition, Facts, Fields, Filter, as_filter, checked, holds
from chassis.conditions.language import CONDITION
from chassis.read.documents import ID


@dataclass(frozen=True, slots=True)
class Scope:
    """All documents, those that meet a condition, or none. Days in the condition count from the day of the question."""

    everything: bool = False
    condition: Condition | None = None

    @classmethod
    def all(cls) -> "Scope":
        """All documents."""
        return cls(everything=True)

    @classmethod
    def where(cls, condition: Condition) -> "Scope":
        """The documents that meet a condition."""
        return cls(condition=condition)

    @classmethod
    def nothing(cls) -> "Scope":
        """No document."""
        return cls()

    def filter(self, fields: Fields, as_of: date) -> Filter:
        """The scope as a filter of the database."""
        if self.everything:
            return {}
        if self.condition is None:
            return {ID: {"$in": []}}
        return as_filter(checked(self.condition, fields), fields, as_of)

    def covers(self, facts: Facts, fields: Fields, as_of: date) -> bool:
        """Whether a document is in the scope."""
        if self.condition is None:
            return self.everything
        return holds(self.condition, facts, fields, as_of)

    def as_condition(self) -> Condition | None:
        """What is to hold of a document in the scope; None where nothing has to.

        A scope without documents cannot be said so: raises ValueError.
        """
        if not self.everything and self.condition is None:
            raise ValueError("no document is in this scope")
        return self.condition

    def named(self) -> Any:
        """What distinguishes it from other scopes, as JSON."""
        return (
            self.everything if self.condition is None else CONDITION.dump_python(self.condition, mode="json")
        )
