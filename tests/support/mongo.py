"""A question that MongoDB takes long to answer."""

from typing import Any, Final

_MANY: Final = {"$add": [100_000, {"$size": {"$ifNull": ["$none", []]}}]}
SLOW: Final[dict[str, Any]] = {
    "$expr": {
        "$lt": [
            {"$reduce": {"input": {"$range": [0, _MANY]}, "initialValue": 0, "in": {"$add": ["$$value", 1]}}},
            0,
        ]
    }
}
"""Takes tens of milliseconds a document, and no document meets it. It runs no JavaScript, whose interruption is another error."""
