"""Tables, functions and privileges of one event store.

Why functions that run with their owner's rights: the service role may read and may call `append_items` and
`append_events`; it has no INSERT, so no code path can draw a position outside the lock that makes
positions appear in order. UPDATE, DELETE and TRUNCATE are granted to no role. Triggers refuse them to the
owner too, and also under session_replication_role = replica. The auditor's role may only select.
"""

import re
from hashlib import blake2b
from typing import Final

from psycopg import sql

from chassis.connections.migrating import Tables, migrate

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")

_TABLES: Final = """
create table if not exists {schema}.events (
    position bigint generated always as identity (cache 1) not null unique,
    stream_id uuid not null,
    version integer not null,
    name text not null,
    body bytea not null,
    identity uuid,
    constraint events_stream_version primary key (stream_id, version)
);
alter table {schema}.events alter column body set storage external;
create unique index if not exists events_identity on {schema}.events (identity) where identity is not null;

create table if not exists {schema}.commands (
    key text primary key,
    fingerprint bytea not null,
    stream_id uuid not null,
    version integer not null,
    event_count integer not null,
    recorded_at timestamptz not null default clock_timestamp()
);
create index if not exists commands_age on {schema}.commands (recorded_at);

create table if not exists {schema}.snapshots (
    stream_id uuid not null,
    kind text not null,
    version integer not null,
    position bigint not null,
    body bytea not null,
    primary key (stream_id, kind)
);

create table if not exists {schema}.leases (
    name text primary key,
    held_by text not null,
    epoch bigint not null,
    expires_at timestamptz not null
);
create table if not exists {schema}.fences (name text primary key, epoch bigint not null);
create table if not exists {schema}.secret_checks (purpose text primary key, digest bytea not null);
create table if not exists {schema}.relay (context text primary key, position bigint not null);
alter table {schema}.relay drop column if exists epoch;
alter table {schema}.relay add column if not exists published bigint[], add column if not exists counted_to bigint;
create table if not exists {schema}.unpublishable (
    subject uuid primary key,
    position bigint not null,
    version integer not null,
    name text not null,
    reason text not null,
    again boolean not null default false,
    held_at timestamptz not null default clock_timestamp()
);

create table if not exists {schema}.timers (
    subject uuid not null,
    name text not null,
    slot text not null,
    cause uuid not null,
    position bigint not null,
    due_at timestamptz not null,
    run_at timestamptz,
    data text not null,
    tries integer not null default 0,
    outcome text,
    settled_at timestamptz,
    generation text not null,
    primary key (subject, name, slot)
);
create index if not exists timers_due on {schema}.timers (run_at, subject, name, slot) where run_at is not null;
create index if not exists timers_due_of_name on {schema}.timers (name, run_at, subject, slot)
    where run_at is not null;
create index if not exists timers_failed on {schema}.timers (settled_at) where outcome like 'failed:%';
create table if not exists {schema}.timer_folds (
    one boolean primary key default true check (one),
    generation text not null,
    position bigint not null,
    complete boolean not null
);

create or replace function {schema}.refuse_change() returns trigger language plpgsql as $body$
begin
    raise exception '% of %: events are never changed or removed', tg_op, tg_table_name
        using errcode = 'restrict_violation';
end
$body$;
"""

_TRIGGERS: Final = """
create or replace trigger refuse_change before update or delete on {schema}.{t}
    for each row execute function {schema}.{refuse}();
create or replace trigger refuse_truncate before truncate on {schema}.{t}
    for each statement execute function {schema}.refuse_change();
alter table {schema}.{t} enable always trigger refuse_change;
alter table {schema}.{t} enable always trigger refuse_truncate;
"""

_COMMANDS: Final = """
create or replace function {schema}.refuse_change_of_command() returns trigger language plpgsql as $body$
begin
    if tg_op = 'DELETE' and old.recorded_at < clock_timestamp() - interval '1 day' then
        return old;
    end if;
    raise exception '% of %: commands are never changed, and are kept for a day at least', tg_op, tg_table_name
        using errcode = 'restrict_violation';
end
$body$;

create or replace function {schema}.prune_commands(p_days integer, p_limit integer)
returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
declare
    v_pruned bigint;
begin
    delete from {schema}.commands as c using (
        select key from {schema}.commands
        where recorded_at < clock_timestamp() - make_interval(days => greatest(p_days, 1))
        order by recorded_at limit p_limit for update skip locked
    ) as old
    where c.key = old.key;
    get diagnostics v_pruned = row_count;
    return v_pruned;
end
$body$;
"""

_FUNCTIONS: Final = """
create or replace function {schema}.append_events(
    p_stream uuid[], p_version integer[], p_name text[], p_body bytea[], p_identity uuid[], p_dense boolean
) returns bigint[] language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
declare
    v_positions bigint[];
    v_stream uuid;
    v_before bigint;
    v_stored bigint;
begin
    perform pg_advisory_xact_lock({lock});
    if p_dense then
        select s.id into v_stream from (
            select u.id, min(u.version) as version, max(u.version) as last, count(*) as events
            from unnest(p_stream, p_version) as u(id, version) group by u.id
        ) as s
        where s.last <> s.version + s.events - 1 or (s.version <> 1 and not exists (
            select from {schema}.events as e where e.stream_id = s.id and e.version = s.version - 1 offset 0
        )) limit 1;
        if found then
            raise exception 'stream % would have a gap', v_stream
                using errcode = 'unique_violation', constraint = 'events_stream_version';
        end if;
    end if;
    -- Positions are drawn under the lock alone, so those of one statement follow each other: nothing has to come back.
    select case when is_called then last_value else last_value - 1 end into v_before from {schema}.events_position_seq;
    insert into {schema}.events (stream_id, version, name, body, identity)
    select unnest(p_stream), unnest(p_version), unnest(p_name), unnest(p_body), unnest(p_identity);
    get diagnostics v_stored = row_count;
    select array_agg(each) into v_positions from generate_series(v_before + 1, v_before + v_stored) as each;
    if (select last_value from {schema}.events_position_seq) <> v_before + v_stored then
        raise exception 'a position of % was drawn outside its lock', '{schema}.events';
    end if;
    perform pg_notify({channel}, '');
    return v_positions;
end
$body$;

create or replace function {schema}.append_items(
    p_stream uuid[], p_first integer[], p_count integer[], p_key text[], p_fingerprint bytea[],
    p_item integer[], p_version integer[], p_name text[], p_body bytea[], p_identity uuid[],
    out o_status smallint[], out o_head integer[], out o_positions bigint[]
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $body$
declare
    v_taken integer[];
begin
    perform pg_advisory_xact_lock({lock});
    select coalesce(array_agg(u.item), '{{}}') into v_taken
    from unnest(p_item, p_identity) as u(item, identity)
    where u.identity is not null
        and exists (select from {schema}.events as e where e.identity = u.identity offset 0);
    select
        array_agg(case
            when seen.key is not null then 3
            when coalesce(head.version, 0) <> i.first - 1 then 1
            when i.ord = any(v_taken) then 2
            else 0 end order by i.ord),
        array_agg(coalesce(head.version, 0) order by i.ord)
    into o_status, o_head
    from unnest(p_stream, p_first, p_key) with ordinality as i(stream_id, first, key, ord)
    left join lateral (
        select e.version from {schema}.events as e where e.stream_id = i.stream_id order by e.version desc limit 1
    ) as head on true
    left join lateral (select c.key from {schema}.commands as c where c.key = i.key limit 1) as seen on true;
    with stored as (
        insert into {schema}.events (stream_id, version, name, body, identity)
        select p_stream[u.item], u.version, u.name, u.body, u.identity
        from unnest(p_item, p_version, p_name, p_body, p_identity) as u(item, version, name, body, identity)
        where o_status[u.item] = 0
        returning position
    )
    select array_agg(position) into o_positions from stored;
    insert into {schema}.commands (key, fingerprint, stream_id, version, event_count)
    select i.key, i.fingerprint, i.stream_id, i.first - 1 + i.count, i.count
    from unnest(p_key, p_fingerprint, p_stream, p_first, p_count)
        with ordinality as i(key, fingerprint, stream_id, first, count, ord)
    where i.key is not null and o_status[i.ord] = 0;
    if o_positions is not null then
        perform pg_notify({channel}, '');
    end if;
end
$body$;
"""

_RUNS: Final = """
create index if not exists events_bulk_started on {schema}.events (stream_id) where name = 'bulk-started';
create index if not exists events_bulk_finished on {schema}.events (stream_id) where name = 'bulk-finished';
"""
"""For `begun_not_ended`: the runs that a process has to go on with. They index no other event."""

_SAGAS: Final = """
create index if not exists events_saga_started on {schema}.events (stream_id) where name = 'saga-started';
create index if not exists events_saga_ended on {schema}.events (stream_id) where name = 'saga-ended';
"""
"""The same for sagas."""

_NOTICES: Final = """
create table if not exists {schema}.notices (
    id uuid primary key,
    position bigint not null,
    subject uuid not null,
    channel text not null,
    requested_at timestamptz not null,
    expires_at timestamptz not null,
    inbox text,
    run_at timestamptz,
    tries integer not null default 0,
    reason text
);
create index if not exists notices_due on {schema}.notices (channel, run_at, id) where run_at is not null;
create index if not exists notices_inbox on {schema}.notices (inbox, position) where inbox is not null;
create index if not exists notices_open on {schema}.notices (requested_at) where run_at is not null;
create index if not exists notices_age on {schema}.notices (requested_at) where inbox is not null;
create table if not exists {schema}.notice_reads (
    notice uuid not null,
    reader text not null,
    primary key (notice, reader)
);
create table if not exists {schema}.notice_limits (key text primary key, free_at timestamptz not null);
create index if not exists notice_limits_free on {schema}.notice_limits (free_at);
create table if not exists {schema}.notice_folds (
    one boolean primary key default true check (one),
    position bigint not null
);
"""

_PROPOSALS: Final = """
create index if not exists events_proposal_made on {schema}.events (stream_id) where name = 'proposal-made';
"""
"""The same for proposals; what ends one is looked for in its own stream."""

_EXPORTS: Final = """
create index if not exists events_export_released on {schema}.events (stream_id) where name = 'export-released';
create index if not exists events_export_made on {schema}.events (stream_id) where name = 'export-made';
create index if not exists events_export_failed on {schema}.events (stream_id) where name = 'export-failed';
"""
"""The same for exports."""

_PRIVILEGES: Final = """
revoke all on schema {schema} from public;
revoke all on all tables in schema {schema} from public, {role};
revoke all on all functions in schema {schema} from public, {role};
grant usage on schema {schema} to {role};
grant select on {schema}.events, {schema}.commands to {role};
grant select, insert on {schema}.secret_checks to {role};
grant select, insert, update, delete on {schema}.snapshots, {schema}.unpublishable, {schema}.timers to {role};
grant select, insert, update on {schema}.leases, {schema}.fences, {schema}.relay, {schema}.timer_folds to {role};
grant select, insert, update, delete on {schema}.notices, {schema}.notice_reads, {schema}.notice_limits to {role};
grant select, insert, update on {schema}.notice_folds to {role};
grant execute on function {schema}.append_events, {schema}.append_items, {schema}.prune_commands to {role};
"""


_READING: Final = """
grant usage on schema {schema} to {reader};
grant select on {schema}.events, {schema}.commands, {schema}.relay, {schema}.leases, {schema}.unpublishable to {reader};
grant select on {schema}.timers, {schema}.timer_folds, {schema}.notices, {schema}.notice_folds to {reader};
"""


def writer_role(schema: str) -> str:
    """The role that a service writes with: `crm_<context>_writer` for `store_<context>`."""
    return f"crm_{checked(schema).removeprefix('store_')}_writer"


def channel(schema: str) -> str:
    """The NOTIFY channel that hints that there may be events to read. A hint may be missing or wrong."""
    return f"{checked(schema)}_events"


def checked(schema: str) -> str:
    """The schema name, if it is one that needs no quoting."""
    if not _NAME.fullmatch(schema):
        raise ValueError(f"not a schema name: {schema!r}")
    return schema


def lock_key(schema: str) -> int:
    """Key of the advisory lock under which positions of this store are drawn."""
    digest = blake2b(f"chassis.write.store|{schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def tables(schema: str) -> Tables:
    """The tables of one store, with those of its relay, its timers and its notices, for `migrate`."""
    return Tables(
        module=checked(schema),
        schema=schema,
        role=writer_role(schema),
        steps=(
            _TABLES
            + _COMMANDS
            + "".join(
                _TRIGGERS.replace("{t}", table).replace("{refuse}", refuse)
                for table, refuse in (("events", "refuse_change"), ("commands", "refuse_change_of_command"))
            )
            + _FUNCTIONS,
            _RUNS,
            _SAGAS,
            _NOTICES,
            _PROPOSALS,
            _EXPORTS,
        ),
        grants=_PRIVILEGES,
        read_grants=_READING,
        names=(("lock", sql.Literal(lock_key(schema))), ("channel", sql.Literal(channel(schema)))),
    )


def prepare(url: str, schema: str) -> None:
    """Migrates one store, as its owner."""
    migrate(url, [tables(schema)])
