"""The output of a command: a text for people, or one JSON object. It is never empty."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="print the result as one JSON object")]
AlwaysJson = Annotated[bool, typer.Option("--json", help="as without it: the result is one JSON object")]


def answer(values: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Prints the result on stdout."""
    print(json.dumps(values, ensure_ascii=False) if as_json else text)


def answer_list(
    items: Sequence[Mapping[str, Any]], lines: Sequence[str], nothing: str, *, as_json: bool
) -> None:
    """Prints a list on stdout; an empty one is `{"items": []}`, or the line `nothing`."""
    answer({"items": items}, "\n".join(lines) or nothing, as_json=as_json)
