"""How long ago a source was heard of, from the real tables."""

import psycopg
from chassis import metrics
from sync_ingest.freshness import freshness


async def test_every_source_s_last_intake_counts(postgres_url, source):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "insert into ingest.intakes (id, source, sha256, name, format, size_bytes, received_at)"
            " select gen_random_uuid(), %s, '', 'n', 'canonical', 0, now() - make_interval(mins => m)"
            " from unnest(array[90, 5, 60]) as m",
            (source,),
        )
    page = (await metrics.measured([freshness(postgres_url)])).decode()
    [line] = [
        line for line in page.splitlines() if line.startswith(f'crm_freshness_seconds{{name="{source}"}}')
    ]
    assert 300 <= float(line.split()[-1]) < 360
