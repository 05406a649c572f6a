"""The page of all public events, made from the registry: `python -m contracts.page > docs/events.md`."""

import sys
from collections.abc import Iterator
from typing import Any, Final

from contracts.registry import BY_CONTEXT, PublicEvent
from contracts.topics import CONSUMERS, EVENTS, TOPICS

_HEAD: Final = """# Public events

Generated from `libs/contracts` (`python -m contracts.page > docs/events.md`); a test keeps it fresh. Do not edit.

An event travels as CloudEvents 1.0 in Kafka's binary mode: attributes in `ce_*` headers, JSON in the body, the key is
the subject's id, and a subject's events are in order. Readers ignore fields that they do not know. A version is never
changed; a golden file per version stands in `libs/contracts/golden`. Fields marked **sealed** carry a token that only
the holder of the subject's key can open. Money is signed integer minor units: credit positive, debit negative.
"""


_READING: Final = """## Reading a topic

- **Partition of a key:** `toPositive(murmur2(key)) % partitions`, the default of Kafka's Java client (`murmur2_random` in
  librdkafka). The key is the subject's id as text. Topics with the same keys and as many partitions can be joined.
- **Order:** the events of a subject are in the order of `ce_sequence`, the version of its stream. It has gaps: not every
  event of a stream is published. `ce_position` is the place in the context's store; it has gaps too.
- **Repeats:** every record may come again, also behind later ones. An event is known by `ce_id`, or by its subject and
  `ce_sequence`: a reader passes over what is not above what it has seen.
- **Watermarks:** beside the events there are records of type `crm.watermark`, with the body `{"position": n}` and an empty
  key: all events of the source up to `ce_position` lie before this record in its partition. They come to every partition,
  a second apart at least while events come, and once in ten minutes without. Whoever does not need them passes over them
  by `ce_type`, as over every type that it does not know.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [_HEAD, _topics(), _READING]
    for context, events in BY_CONTEXT.items():
        parts.append(f"## {context}\n\nTopic `{EVENTS[context].name}`.\n")
        parts += [_event(event) for event in sorted(events, key=lambda one: (one.TYPE, one.VERSION))]
    return "\n".join(parts)


def _topics() -> str:
    rows = ["## Topics", "", "| topic | partitions | key | holds |", "|---|---|---|---|"]
    rows += [f"| `{one.name}` | {one.partitions} | {one.key} | {one.description} |" for one in TOPICS]
    rows += ["", "## Consumer groups", "", "| group | reads |", "|---|---|"]
    rows += [f"| `{one.name}` | {', '.join(f'`{name}`' for name in one.topics)} |" for one in CONSUMERS]
    return "\n".join([*rows, ""])


def _event(event: type[PublicEvent]) -> str:
    schema = event.model_json_schema()
    said = " ".join((event.__doc__ or "").split())
    rows = [f"### {event.TYPE} v{event.VERSION}", "", said, "", "| field | type | |", "|---|---|---|"]
    required = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        marks = [
            *(["required"] if name in required else []),
            *(["**sealed**"] if name in event.PERSONAL else []),
        ]
        rows.append(f"| `{name}` | {' or '.join(_kinds(field))} | {', '.join(marks)} |")
    return "\n".join([*rows, ""])


def _kinds(field: dict[str, Any]) -> Iterator[str]:
    for one in field.get("anyOf", [field]):
        if "enum" in one:
            yield ", ".join(f'"{value}"' for value in one["enum"])
        elif "const" in one:
            yield f'"{one["const"]}"'
        elif one.get("type") == "array":
            yield f"list of {' or '.join(_kinds(one['items']))}"
        elif "format" in one:
            yield str(one["format"])
        else:
            yield str(one.get("type", "any"))


if __name__ == "__main__":
    sys.stdout.write(page())
