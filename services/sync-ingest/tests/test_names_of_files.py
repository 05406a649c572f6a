"""Names of files may hold a customer's name or number: they are sealed where they are kept, and masked where they are shown."""

from dataclasses import replace

import msgspec
import psycopg
import pytest
from chassis.connections.migrating import migrate
from psycopg import sql
from sync_ingest.archive.schema import NAMES_SQL, TABLES
from sync_ingest.domain.certificate import Comparison, Judgement, Problem, certify
from sync_ingest.domain.records import masked_file
from sync_ingest.domain.totals import ControlTotals

SCHEMA = "ingest_names"
NAME = 'O\'Brien, "张伟" 6222021234566789.csv'
BEFORE = """
alter table {s}.intakes add column name text not null default '';
alter table {s}.quarantine add column file text not null default '';
insert into {s}.intakes (id, source, sha256, name, format, size_bytes, received_at)
    values (gen_random_uuid(), 's', '', {name}, 'csv', 1, now());
insert into {s}.quarantine (id, source, intake, file, line, reason, detail, raw_sealed, quarantined_at)
    values (gen_random_uuid(), 's', gen_random_uuid(), {name}, 1, 'r', 'd', '', now());
insert into {s}.contradictions (id, source, kind, scope, code, expected, found, detail, status)
    values (gen_random_uuid(), 's', 'control', '', 'c', 1, 2, {detail}, 'open'),
    (gen_random_uuid(), 's', 'series', '', 'c', 1, 2, 'branch 1: number 2 missing', 'open'),
    (gen_random_uuid(), 's', 'control', '', 'c', 1, 2, {place}, 'open');
insert into {s}.certificates (id, source, certified_at, status, findings)
    values (gen_random_uuid(), 's', now(), 'RED', {findings});
"""
PLACE = "records, line 3 of intake 0b8e7a3e-0000-5000-8000-000000000003"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (NAME, "***.csv"),
        ("6222021234566789", "***"),
        ("张伟.6222021234566789", "***"),
        ("a.csv.GZ", "***.gz"),
        ("csv", "***"),
        ("", "***"),
    ],
)
def test_of_a_name_only_a_known_ending_is_shown(name, shown):
    assert masked_file(name) == shown


def test_a_migration_blanks_the_names_that_were_in_clear(postgres_url):
    steps = TABLES.steps[: TABLES.steps.index(NAMES_SQL) + 1]
    tables = replace(TABLES, module=SCHEMA, schema=SCHEMA, steps=steps)
    migrate(postgres_url, [replace(tables, steps=steps[:-1])])
    detail = f"records, {NAME}:17"
    empty = ControlTotals()
    findings = msgspec.structs.replace(
        certify(empty, Comparison(empty), Judgement()),
        problems=(
            Problem("c", 1, 2, detail=detail),
            Problem("d", 2**53, 4),
            Problem("e", 1, 2, detail=PLACE),
        ),
    )
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL(BEFORE).format(
                s=sql.Identifier(SCHEMA),
                name=sql.Literal(NAME),
                detail=sql.Literal(detail),
                place=sql.Literal(PLACE),
                findings=sql.Literal(msgspec.json.encode(findings)),
            )
        )
        assert migrate(postgres_url, [tables]) == 2
        found = {
            table: str(connection.execute(f"select * from {SCHEMA}.{table}").fetchall())
            for table in ("intakes", "quarantine", "contradictions")
        }
        [(after,)] = connection.execute(f"select findings from {SCHEMA}.certificates").fetchall()
    for table, content in found.items():
        assert [value for value in ("Brien", "6222021234566789") if value in content] == [], table
    assert PLACE in found["contradictions"]
    assert "number 2 missing" in found["contradictions"]
    expected = msgspec.structs.replace(
        findings, problems=(Problem("c", 1, 2, detail="records"), *findings.problems[1:])
    )
    assert msgspec.json.decode(after, type=type(findings)) == expected
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"delete from migrations.applied where module = '{SCHEMA}' and version = 4")
    assert migrate(postgres_url, [tables]) == 2, "it can be run again"
