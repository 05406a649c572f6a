"""An example of every public event: the golden files, which lie beside the sources and go into the package."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

_PLACES: Final = (Path(__file__).with_name("golden"), Path(__file__).resolve().parents[2].joinpath("golden"))


@lru_cache(1)
def examples() -> dict[str, list[dict[str, Any]]]:
    """Bodies by type and version (`posting.booked.v1`); those with optional fields come last."""
    found: dict[str, list[dict[str, Any]]] = {}
    folder = next((place for place in _PLACES if place.is_dir()), None)
    if folder is None:
        return found
    for file in sorted(folder.glob("*.json"), key=lambda one: (one.name.count("+"), one.name)):
        name = file.name.removesuffix(".json").partition("+")[0]
        found.setdefault(name, []).append(json.loads(file.read_bytes()))
    return found
