"""A recipe of CONTRIBUTING as somebody follows it, and what most recipes change in the same way.

A recipe is the files that it adds and the lines that it changes. Every `old` stands once in its file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` becomes `new` in a file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """The heading of a recipe in CONTRIBUTING, and what is written for it, its test included."""

    heading: str
    files: Mapping[str, str]
    edits: tuple[Edit, ...]

    def follow(self, root: Path, name: str) -> None:
        """Writes it into the service of that name; raises ValueError where the skeleton has not what is changed."""
        values = {"name": name, "Name": name.capitalize()}
        for path, text in self.files.items():
            file = root / Template(path).substitute(values)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(values))
        for edit in self.edits:
            file = root / Template(edit.file).substitute(values)
            text, old = file.read_text(), Template(edit.old).substitute(values)
            if text.count(old) != 1:
                raise ValueError(f"{edit.file} has {text.count(old)} times: {old}")
            file.write_text(text.replace(old, Template(edit.new).substitute(values)))


SERVICE = "services/$name"
SOURCE = f"{SERVICE}/src/$name"
CONTRACTS = "libs/contracts"


def stored(names: str, module: str) -> tuple[Edit, ...]:
    """Stored names of a mechanism: in the catalogue, and not published."""
    imported = f"from {module} import {names}\n"
    return (
        Edit(f"{SOURCE}/catalogue.py", "STORED_NAMES | OPERATIONS", f"STORED_NAMES | OPERATIONS | {names}"),
        Edit(
            f"{SOURCE}/catalogue.py",
            "from chassis.write.catalogue",
            f"{imported}from chassis.write.catalogue",
        ),
        Edit(f"{SOURCE}/publishing.py", "fromkeys(OPERATIONS", f"fromkeys(OPERATIONS | {names}"),
        Edit(f"{SOURCE}/publishing.py", "from chassis.write.events", f"{imported}from chassis.write.events"),
    )


def allowed(
    *routes: str, roles: str = "_SERVING", scope: str = "WHOLE", commands: tuple[str, ...] = ()
) -> Edit:
    """Routes in `permissions.py`; `commands` take no effective time."""
    line = '    "list_${name}s": Rights(_SERVING, WHOLE),\n'
    added = [f'    "{route}": Rights({roles}, {scope}),\n' for route in routes]
    added += [f'    "{route}": Rights({roles}, {scope}, _AT_ONCE),\n' for route in commands]
    return Edit(f"{SOURCE}/permissions.py", line, line + "".join(added))


def imported(file: str, *lines: str) -> Edit:
    """Imports in a module that imports `Final`; ruff sorts them."""
    return Edit(
        f"{SOURCE}/{file}",
        "from typing import ",
        "".join(f"{each}\n" for each in lines) + "from typing import ",
    )


def role(name: str, made: str) -> Edit:
    """A role in `bootstrap.py`."""
    before = '        "policies": lambda'
    return Edit(f"{SOURCE}/bootstrap.py", before, f'        "{name}": lambda: {made},\n{before}')


def examples(names: str) -> Edit:
    """Examples of a mechanism in the `EXAMPLES` of the service."""
    return Edit(f"{SOURCE}/api.py", "EXAMPLES: Final = {\n", f"EXAMPLES: Final = {{\n    **{names},\n")


def with_policy(module: str, short: str) -> tuple[Edit, ...]:
    """A policy beside those that there are."""
    file = f"{SOURCE}/policies/__init__.py"
    return (
        Edit(file, "POLICIES: Final = (", f"POLICIES: Final = ({short}.POLICY, "),
        imported("policies/__init__.py", f"from $name.policies import {module} as {short}"),
    )
