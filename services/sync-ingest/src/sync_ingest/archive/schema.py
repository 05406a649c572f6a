"""The DDL of ingest's own tables, which lie beside the event store.

The events are the system of record. The tables hold either raw bytes (intakes) or data that can be rebuilt
from events. Every write is idempotent, so it may be repeated after a crash.
"""

from typing import Final

from chassis.connections.migrating import Tables
from chassis.write.store import writer_role
from psycopg import sql

STORE_SCHEMA: Final = "store_ingest"
SCHEMA_SQL: Final = """
create table if not exists {schema}.intakes (
    id uuid primary key, source text not null, sha256 bytea not null, name_sealed bytea, format text not null,
    mapping text, size_bytes bigint not null, received_at timestamptz not null, certificate uuid,
    set_aside text, repairs uuid, request text, fingerprint bytea, number bigint generated always as identity);
alter table {schema}.intakes add column if not exists repairs uuid,
    add column if not exists request text, add column if not exists fingerprint bytea,
    add column if not exists again uuid;
create index if not exists intakes_open on {schema}.intakes (source)
    where certificate is null and set_aside is null;
create index if not exists intakes_bytes on {schema}.intakes (source, sha256);
create table if not exists {schema}.intake_chunks (
    content uuid not null, number int not null, sealed bytea not null, primary key (content, number));
create table if not exists {schema}.statements (
    number bigint generated always as identity primary key, source text not null, intakes uuid[] not null,
    sealed bytea not null);
create index if not exists statements_of on {schema}.statements (source);
create table if not exists {schema}.quarantine (
    id uuid primary key, source text not null, intake uuid not null, line bigint not null,
    "column" text, reason text not null, detail text not null, raw_sealed text not null,
    quarantined_at timestamptz not null, status text not null default 'waiting', kind text,
    whole_file boolean not null default false, "row" uuid, number bigint generated always as identity);
alter table {schema}.quarantine add column if not exists kind text,
    add column if not exists whole_file boolean not null default false, add column if not exists "row" uuid;
create index if not exists quarantine_rows on {schema}.quarantine ("row") where "row" is not null;
create table if not exists {schema}.proposals (
    entry uuid primary key, repair uuid not null, repaired bytea not null, records int not null,
    amounts_minor jsonb not null, proposed_by text not null, reason text not null, proposed_at timestamptz not null);
create index if not exists quarantine_waiting on {schema}.quarantine (source, number);
create index if not exists quarantine_intakes on {schema}.quarantine (intake) where status = 'waiting';
create index if not exists intakes_repairs on {schema}.intakes (source) where repairs is not null;
create table if not exists {schema}.certificates (
    id uuid primary key, source text not null, certified_at timestamptz not null, status text not null,
    findings bytea not null, number bigint generated always as identity);
create index if not exists certificates_latest on {schema}.certificates (source, number desc);
create table if not exists {schema}.certified_balances (
    account uuid not null, currency text not null, balance_minor bigint not null, source text not null,
    primary key (account, currency));
create table if not exists {schema}.descriptions (subject uuid primary key, revision int not null, digest text not null);
create table if not exists {schema}.awaited_originals (
    quarantine uuid primary key, source text not null, original uuid not null);
create index if not exists awaited_originals_of on {schema}.awaited_originals (source);
create table if not exists {schema}.source_names (look text primary key, name text not null);
drop table if exists {schema}.requests;
"""
TOTALS_SQL: Final = """
drop table if exists {schema}.certified_balances;
create table if not exists {schema}.account_totals (
    account uuid not null, currency text not null, source text not null, version int not null,
    postings bigint not null, credits_minor bigint not null, debits_minor bigint not null,
    certified_postings bigint not null, certified_credits_minor bigint not null, certified_debits_minor bigint not null,
    last_on date, printed bigint not null, within bigint not null, beyond bigint not null, uncompared bigint not null,
    drift_minor bigint not null, off_minor bigint not null, largest_minor bigint not null,
    primary key (account, currency)) with (fillfactor = 80);
create index if not exists intakes_uncertified on {schema}.intakes (source) where certificate is null;
create index if not exists account_totals_open on {schema}.account_totals (source)
    where postings <> certified_postings;
create table if not exists {schema}.account_days (
    account uuid not null, currency text not null, day date not null, body bytea not null,
    primary key (account, currency, day));
create table if not exists {schema}.turnovers (
    source text not null, currency text not null, turnover_minor bigint not null, primary key (source, currency));
create table if not exists {schema}.number_series (
    source text not null, scope text not null, body bytea not null, primary key (source, scope));
create table if not exists {schema}.contradictions (
    id uuid primary key, source text not null, kind text not null, scope text not null, code text not null,
    account uuid, currency text, expected bigint not null, found bigint not null, detail text,
    status text not null, certificate uuid, number bigint generated always as identity);
create index if not exists contradictions_standing on {schema}.contradictions (source, kind, account)
    where status <> 'resolved';
create table if not exists {schema}.schedules (source text primary key, every_seconds bigint not null);
"""
"""Tables folded from the events. Where they are empty, the next run of an account folds it from the
beginning."""
COUNTS_SQL: Final = """
create index if not exists intakes_latest on {schema}.intakes (source, number desc);
create table if not exists {schema}.source_counts (
    source text primary key, posted bigint not null, duplicates bigint not null, quarantined bigint not null);
insert into {schema}.source_counts
select source, sum((f ->> 'posted')::bigint), sum((f ->> 'duplicates')::bigint), sum((f ->> 'quarantined')::bigint)
from (select source, convert_from(findings, 'UTF8')::jsonb as f from {schema}.certificates) as c
group by source on conflict do nothing;
"""
"""Sums over the certificates of a source, for monitoring."""
NAMES_SQL: Final = """
alter table {schema}.intakes add column if not exists name_sealed bytea;
do $body$ begin
    update {schema}.intakes set name = '';
    alter table {schema}.intakes drop column name;
exception when undefined_column then null;
end $body$;
do $body$ begin
    update {schema}.quarantine set file = '';
    alter table {schema}.quarantine drop column file;
exception when undefined_column then null;
end $body$;
update {schema}.contradictions set detail = regexp_replace(detail, ', .*:[0-9]+$', '')
    where kind = 'control' and detail ~ ', .*:[0-9]+$';
update {schema}.certificates as c set findings = convert_to(jsonb_set(f.f, '{{problems}}', (
        select jsonb_agg(case when p ->> 'detail' ~ ', .*:[0-9]+$'
            then p || jsonb_build_object('detail', regexp_replace(p ->> 'detail', ', .*:[0-9]+$', '')) else p end)
        from jsonb_array_elements(f.f -> 'problems') as p))::text, 'UTF8')
    from (select id, convert_from(findings, 'UTF8')::jsonb as f from {schema}.certificates) as f
    where f.id = c.id and jsonb_path_exists(f.f, '$.problems[*].detail ? (@ like_regex ", .*:[0-9]+$")');
"""
"""Names of files were in clear here. They are blanked, since this step knows no keys: later names are sealed.

A column that is dropped keeps its bytes in old rows, so it is emptied first; they go with the next vacuum.
"""
PARTIAL_SUMS_SQL: Final = """
create unlogged table if not exists {schema}.partial_sums (
    source text not null, run bigint not null, kind text not null, account uuid not null, body bytea not null);
create index if not exists partial_sums_of on {schema}.partial_sums (source, run, kind, account);
"""
"""Partial sums of runs that are under way. A crash of the server may empty it: its runs end with it."""
PROPOSERS_SQL: Final = "alter table {schema}.proposals add column if not exists on_behalf_of text;"
DESCRIBING_SQL: Final = """
alter table {schema}.descriptions add column if not exists before_revision int,
    add column if not exists before_digest text, add column if not exists described_by uuid;
alter table {schema}.intakes add column if not exists described_line bigint,
    add column if not exists described_line_before bigint, add column if not exists described_by uuid;
"""
"""What a batch of master data is about to describe is noted before its events are stored, with what stood before.

`described_by` is an event of the batch: where it is not in the store, what stood before is put back.
"""
WAITING_SQL: Final = """
create index if not exists quarantine_waiting_of on {schema}.quarantine (source) where status = 'waiting';
"""
"""Each certificate counts the entries of its source that wait. It reads only these, however many were resolved."""
OLDER_ENTRIES_SQL: Final = r"""
do $body$ begin
    if to_regclass('{store}.events') is null then
        return;
    end if;
    update {schema}.quarantine as q
        set detail = '***', "column" = case when q."column" is null then null else '***' end
        from {store}.events as e
        where e.identity = q.id and e.name = 'feed-record-quarantined' and q.detail <> '***'
            and convert_from(e.body, 'UTF8') ~ '"data":\{{"v":1[,}}]';
    update {schema}.quarantine as q set status = r.status
        from (select substring(convert_from(e.body, 'UTF8') from '"quarantine":"([0-9a-f-]{{36}})"')::uuid as id,
                case e.name when 'quarantined-record-dismissed' then 'dismissed' else 'released' end as status
            from {store}.events as e
            where e.name in ('quarantined-record-dismissed', 'quarantined-record-released')
                and e.stream_id in (select i.stream_id from {schema}.quarantine as w
                    join {store}.events as i on i.identity = w.intake where w.status = 'waiting')) as r
        where r.id = q.id and q.status = 'waiting';
end $body$;
"""
"""What older versions left in the entries. The detail and column of a first-version entry may quote its record, and are
blanked as its event is for readers. An entry that was resolved just before a crash is listed as its event says."""
EARLY_CLOSINGS_SQL: Final = """
create table if not exists {schema}.early_closings (
    account uuid primary key, source text not null, intake uuid not null, line bigint not null);
create index if not exists early_closings_of on {schema}.early_closings (source);
"""
CLOSED_PARTIES_SQL: Final = "create table if not exists {schema}.closed_parties (party uuid primary key);"
TABLES: Final = Tables(
    "ingest",
    "ingest",
    writer_role(STORE_SCHEMA),
    (
        SCHEMA_SQL,
        TOTALS_SQL,
        COUNTS_SQL,
        NAMES_SQL,
        PARTIAL_SUMS_SQL,
        PROPOSERS_SQL,
        DESCRIBING_SQL,
        WAITING_SQL,
        OLDER_ENTRIES_SQL,
        EARLY_CLOSINGS_SQL,
        CLOSED_PARTIES_SQL,
    ),
    names=(("store", sql.Identifier(STORE_SCHEMA)),),
)
"""Ingest's own tables, for `migrate`; the role of its event store may read and write them."""
