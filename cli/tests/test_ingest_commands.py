"""`crm ingest`, `crm certificate` and `crm quarantine` as a person or a program calls them, over a real PostgreSQL."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from chassis.connections.settings import Settings
from crm_cli.migrate import migrated

HEADER = "trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account\r\n"
ROWS = (
    "1;10;930101;PRIJEM;VKLAD;700.00;700.00;;;\r\n"
    "2;10;930102;VYDAJ;VYBER;12..34;687.66;;;\r\n"
    "3;10;930103;VYDAJ;VYBER;100.50;599.50;;;\r\n"
    "4;11;930103;PRIJEM;VKLAD;5.00;5.00;;;\r\n"
)
RESULT = {
    "records": 4,
    "posted": 3,
    "duplicates": 0,
    "quarantined": 1,
    "accounts": 2,
    "credits_minor": 70_500,
    "debits_minor": 10_050,
    "currency": "CZK",
    "certificate": "AMBER",
    "reasons": ["quarantine-waiting"],
}


@pytest.fixture(scope="module")
def environment(postgres_url, tmp_path_factory):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("ingest_commands", "ingest_commands_keys"):
            connection.execute(f"create database {name}")
    of = psycopg.conninfo.make_conninfo
    migrated(
        Settings(
            postgres_url=of(postgres_url, dbname="ingest_commands"),
            keys_url=of(postgres_url, dbname="ingest_commands_keys"),
        )
    )
    return os.environ | {
        "POSTGRES_URL": psycopg.conninfo.make_conninfo(postgres_url, dbname="ingest_commands"),
        "CRM_KEYS_URL": psycopg.conninfo.make_conninfo(postgres_url, dbname="ingest_commands_keys"),
        "CRM_DATA": str(tmp_path_factory.mktemp("data")),
        "CRM_ENVIRONMENT": "development",
    }


@pytest.fixture
def crm(environment):
    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, "-m", "crm_cli.main", *map(str, arguments)],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "trans.asc").write_text(HEADER + ROWS)
    return tmp_path


def test_a_folder_is_taken_in_and_told_as_one_object(crm, folder):
    first = crm("ingest", "--format", "berka", "--source", "one", folder, "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    seconds = told.pop("seconds")
    assert told.pop("files")["taken"] == ["trans.asc"]
    assert told == RESULT
    assert seconds > 0
    assert "100.0%" in first.stderr
    again = json.loads(crm("ingest", "--format", "berka", "--source", "one", folder, "--json").stdout)
    assert (again["posted"], again["duplicates"], again["credits_minor"]) == (0, 3, 70_500)


def test_a_certificate_names_the_account_as_the_bank_does(crm, folder):
    (folder / "trans.asc").write_text(HEADER + ROWS.replace("599.50", "600.50"))
    crm("ingest", "--format", "berka", "--source", "two", folder, "--json")
    told = crm("certificate", "--source", "two", "--json")
    assert told.returncode == 3, told.stderr
    certificate = json.loads(told.stdout)
    assert (certificate["status"], certificate["records"], certificate["posted"]) == ("RED", 4, 3)
    ((code, account),) = {(each["code"], each["account"]) for each in certificate["problems"]}
    assert (code, account) == ("running-balance-differs", "**")
    assert "account 10" not in crm("certificate", "--source", "two").stdout
    assert "account 10" in crm("certificate", "--source", "two", "--accounts").stdout
    again = crm("ingest", "--format", "berka", "--source", "two", folder)
    assert again.returncode == 3
    assert "RED: running-balance-differs" in again.stderr
    silent = crm("certificate", "acknowledge", certificate["certificate_id"], "--reason", " ")
    assert (silent.returncode, silent.stdout) == (2, "")
    said = crm("certificate", "acknowledge", certificate["certificate_id"], "--reason", "the bank knows")
    assert (said.returncode, json.loads(said.stdout)["status"]) == (0, "AMBER"), said.stderr
    assert crm("certificate", "--source", "two").returncode == 0
    assert crm("certificate", "acknowledge", certificate["certificate_id"], "--reason", "x").returncode == 2


def test_a_file_that_repeats_older_master_data_is_amber_and_its_place_is_printed(crm, tmp_path):
    def sent(phone):
        file = tmp_path / f"{phone}.jsonl"
        file.write_text(json.dumps({"record": "party", "party": "P1", "phone": phone}) + "\n")
        return crm("ingest", "--format", "canonical", "--source", "older", file, "--json")

    sent("13800001111")
    assert "repeats-older-master-data" not in json.loads(sent("13900002222").stdout)["reasons"]
    again = sent("13800001111")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["certificate"], told["reasons"][-1]) == ("AMBER", "repeats-older-master-data")
    shown = crm("certificate", "--source", "older").stdout
    assert "1 repeat older master data\n  older master data: intake " in shown
    assert "1380000" not in shown + again.stderr


def test_a_source_is_scheduled(crm, folder):
    assert crm("source", "schedule", "one", "--every", "6h").stdout == "one sends every 6h\n"
    for wrong in ("0m", "6", "1y", "99999d", "６h"):
        assert crm("source", "schedule", "one", "--every", wrong).returncode == 2


@pytest.mark.requirement("R088")
def test_a_quarantined_record_is_listed_and_released_once(crm, folder, tmp_path):
    crm("ingest", "--format", "berka", "--source", "three", folder, "--json")
    listed = crm("quarantine", "list", "--source", "three", "--json")
    (entry,) = json.loads(listed.stdout)["items"]
    assert (entry["file"], entry["line"], entry["column"]) == ("***.asc", 3, "amount")
    assert entry["reason"] == "amount-malformed"
    assert crm("quarantine", "show", entry["id"]).returncode == 2, "showing it needs a purpose"
    shown = crm("quarantine", "show", entry["id"], "--purpose", "to repair it")
    assert shown.stdout.strip() == ROWS.splitlines()[1]
    assert "line 3 of 'trans.asc'" in shown.stderr
    repaired = tmp_path / "repaired.jsonl"
    repaired.write_text(
        '{"record":"posting","account":"10","core_transaction_id":"2","amount_minor":-1234,"currency":"CZK",'
        '"booked_on":"1993-01-02"}\n'
    )
    assert crm("quarantine", "release", entry["id"], repaired).returncode == 2, "it needs a reason"
    released = crm("quarantine", "release", entry["id"], repaired, "--reason", "as the branch says")
    assert (released.returncode, json.loads(released.stdout)["posted"]) == (0, 1), released.stderr
    again = crm("quarantine", "release", entry["id"], repaired, "--reason", "as the branch says")
    assert (again.returncode, again.stdout) == (2, "")
    assert "released before" in again.stderr
    assert json.loads(crm("quarantine", "list", "--source", "three", "--json").stdout) == {
        "waiting": 0,
        "items": [],
    }


def test_a_quarantined_record_is_dismissed_and_a_large_repair_waits_for_a_second_person(crm, tmp_path):
    broken = {
        "record": "posting",
        "account": "1",
        "core_transaction_id": "t1",
        "amount_minor": "x",
        "currency": "CNY",
        "booked_on": "2026-03-02",
    }
    feed, repaired = tmp_path / "feed.jsonl", tmp_path / "repaired.jsonl"
    feed.write_text("\n".join(json.dumps(broken | {"core_transaction_id": f"t{n}"}) for n in (1, 2)))
    repaired.write_text(json.dumps(broken | {"amount_minor": 10**15}))
    crm("ingest", "--source", "four-eyes", feed)
    listed = json.loads(crm("quarantine", "list", "--source", "four-eyes", "--json").stdout)["items"]
    gone, large = (entry["id"] for entry in listed)
    assert crm("quarantine", "dismiss", gone, "--reason", "a test of theirs").stdout == "dismissed\n"
    proposed = crm("quarantine", "release", large, repaired, "--reason", "as the branch says")
    assert proposed.returncode == 1, proposed.stderr
    repair = json.loads(proposed.stdout)["repair"]
    approve = ("quarantine", "approve", large, repair, "--reason", "seen")
    own = crm(*approve)
    assert (own.returncode, own.stdout) == (2, "")
    assert "Another person" in own.stderr
    token = crm("token", "--subject", "boris").stdout.strip()
    approved = crm(*approve, "--token", token)
    assert (approved.returncode, json.loads(approved.stdout)["posted"]) == (0, 1), approved.stderr
    statuses = json.loads(
        crm("quarantine", "list", "--source", "four-eyes", "--status", "all", "--json").stdout
    )
    assert [item["status"] for item in statuses["items"]] == ["dismissed", "released"]


@pytest.mark.requirement("R091")
def test_who_acts_is_in_every_event(crm, environment, folder):
    token = crm("token", "--subject", "staff-4711", "--post", "operations").stdout.strip()
    for source, more in (("by-token", {"CRM_TOKEN": token}), ("by-user", {})):
        assert crm("ingest", "--format", "berka", "--source", source, folder, **more).returncode == 0
    with psycopg.connect(environment["POSTGRES_URL"]) as connection:
        rows = connection.execute("select body from store_ingest.events").fetchall()
    actors = {}
    for (body,) in rows:
        content = json.loads(body)
        actors.setdefault(content["data"].get("source"), set()).add(content["meta"]["actor"])
    assert actors["by-token"] == {"staff-4711"}
    assert actors["by-user"] == {f"os:{getpass.getuser()}"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"CRM_ENVIRONMENT": "production"}, "a person must act"),
        ({"CRM_TOKEN": "a.b.c"}, "no JSON Web Token"),
        (
            {
                "CRM_ENVIRONMENT": "production",
                "CRM_TOKEN_KEYS_FILE": "/nowhere",
                "CRM_TOKEN_ISSUER": "bank",
                "CRM_TOKEN": "a.eyJpc3MiOiAiYmFuayJ9.c",  # it says that its issuer is bank
            },
            "keys",
        ),
    ],
)
def test_a_command_without_an_actor_is_refused(crm, folder, more, said):
    for command in (
        ("ingest", "--source", "x", folder),
        ("quarantine", "dismiss", "00000000-0000-0000-0000-000000000001", "--reason", "r"),
        ("quarantine", "show", "00000000-0000-0000-0000-000000000001", "--purpose", "p"),
    ):
        failed = crm(*command, **more)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert said in failed.stderr
        assert "Traceback" not in failed.stderr


def test_a_token_without_the_role_does_nothing(crm, folder):
    token = crm("token", "--role", "analyst").stdout.strip()
    failed = crm("ingest", "--format", "berka", "--source", "no-role", folder, "--token", token)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "roles" in failed.stderr
    assert crm("certificate", "--source", "no-role").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--source", "x", "nowhere"), "no such file or folder"),
        (("--source", "a:b", "."), "printable characters"),
        (("--source", "x", "--format", "mt999", "."), "mt999"),
        (("--source", "x", "--format", "csv", "."), "mapping"),
    ],
)
def test_an_unreadable_feed_is_reported_on_stderr_alone(crm, arguments, said):
    failed = crm("ingest", *arguments, "--json")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_missing_certificate_and_an_unreachable_database_are_reported(crm):
    unknown = crm("certificate", "--source", "nobody", "--json")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no certificate of nobody" in unknown.stderr
    for command in (("certificate", "--source", "x"), ("quarantine", "list")):
        nowhere = crm(
            *command, POSTGRES_URL="postgresql://127.0.0.1:1/x", CRM_KEYS_URL="postgresql://127.0.0.1:1/y"
        )
        assert nowhere.returncode == 2, nowhere.stderr
        assert "does not answer" in nowhere.stderr
        assert "Traceback" not in nowhere.stderr


EURO = """
separator = ";"
encoding = "cp1252"
header_line = 6
account = "DE02"
currency = "EUR"
date_format = "%d.%m.%Y"
decimal_mark = ","
group_mark = "."
[columns]
booked_on = "Buchungstag"
amount = "Betrag (€)"
"""
DASHES = """
account = "CH01"
currency = "CHF"
date_format = "%d.%m.%Y"
[columns]
booked_on = "Datum"
text = "Text"
debit = "Belastung"
credit = "Gutschrift"
balance_after = "Saldo"
"""
ZEROS = """
encoding = "gb18030"
account = "6222"
currency = "CNY"
date_format = "%Y%m%d"
[columns]
booked_on = "交易日期"
text = "摘要"
credit = "收入"
debit = "支出"
balance_after = "余额"
"""
LINES = """
account = "1"
currency = "USD"
[columns]
booked_on = "Date"
amount = "Amount"
text = "Text"
"""


@pytest.mark.parametrize(
    ("mapping", "content", "credits_minor", "debits_minor"),
    [
        (
            EURO,
            "1\n2\n3\n4\n5\nBuchungstag;Betrag (€)\n28.12.2018;-1.000,00 €\n28.12.2018;-950,00 €\n".encode(
                "cp1252"
            ),
            0,
            195_000,
        ),
        (
            DASHES,
            b'Datum,Text,Belastung,Gutschrift,Saldo\n27.05.2019,"Eins",-,500.00,2000.00\n24.05.2019,"Zwei",500.00,-,-\n',
            50_000,
            50_000,
        ),
        (
            ZEROS,
            "交易日期,摘要,收入,支出,余额\n20240102,工资,8000.00,0.00,8000.00\n20240103,消费,0.00,35.60,7964.40\n".encode(
                "gb18030"
            ),
            800_000,
            3_560,
        ),
        (
            LINES,
            b'Date,Amount,Text\n2024-02-01,-10.00,"line one\nline two"\n2024-02-02,20.00,"a ""quoted"" word"\n',
            2_000,
            1_000,
        ),
    ],
    ids=["euro", "dashes", "zeros", "lines"],
)
def test_a_file_as_a_bank_prints_it_gives_its_sums(
    crm, tmp_path, request, mapping, content, credits_minor, debits_minor
):
    (tmp_path / "m.toml").write_text(mapping)
    (tmp_path / "f.csv").write_bytes(content)
    source = f"printed-{request.node.callspec.id}"
    done = crm(
        *("ingest", "--format", "csv", "--mapping", tmp_path / "m.toml"),
        *("--source", source, tmp_path / "f.csv", "--json"),
    )
    told = json.loads(done.stdout)
    assert (told["records"], told["posted"], told["quarantined"]) == (2, 2, 0), done.stderr
    assert (told["credits_minor"], told["debits_minor"]) == (credits_minor, debits_minor)


def test_files_of_a_folder_that_are_left_out_are_reported(crm, folder):
    (folder / "trans.asc.bak").write_text(HEADER + ROWS)
    (folder / "more").mkdir()
    (folder / "more" / "trans.asc").write_text(HEADER + "9;12;930103;PRIJEM;VKLAD;5.00;5.00;;;\r\n")
    (folder / "out").symlink_to("/etc/hostname")
    done = crm("ingest", "--format", "berka", "--source", "left", folder, "--json")
    told = json.loads(done.stdout)
    assert told["records"] == 5
    assert told["files"] == {
        "taken": ["more/trans.asc", "trans.asc"],
        "taken_total": 2,
        "left": [
            {"file": "out", "reason": "link-leads-out"},
            {"file": "trans.asc.bak", "reason": "leftover"},
        ],
        "left_total": 2,
    }
    assert "left out 'out': refused" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "gbk"])
def test_the_name_of_a_file_is_told_in_json_whatever_its_bytes_and_the_output_are(crm, folder, encoding):
    names = [os.fsdecode(b"\xd5\xc5\xce\xb0.asc"), "\U00020bb7.asc"]
    for number, name in enumerate(names):
        (folder / name).write_text(HEADER + f"{number};{14 + number};930103;PRIJEM;VKLAD;5.00;5.00;;;\r\n")
    (folder / "trans.asc").unlink()
    source = f"named {encoding}"
    done = crm("ingest", "--format", "berka", "--source", source, folder, "--json", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"]["taken"] == names


def test_a_lost_secret_of_ids_is_reported_and_nothing_is_booked_under_another_one(crm, environment, folder):
    first = crm("ingest", "--format", "berka", "--source", "secret", folder, "--json")
    assert first.returncode == 0, first.stderr
    with psycopg.connect(environment["CRM_KEYS_URL"], autocommit=True) as keys:
        kept = keys.execute("delete from secrets returning purpose, wrapped").fetchone()
        head = _head(environment)
        (folder / "trans.asc").write_text(HEADER + ROWS.replace("5.00", "6.00"))
        for arguments in (
            ("ingest", "--format", "berka", "--source", "secret", folder, "--json"),
            ("certificate", "--source", "secret"),
            ("quarantine", "list"),
            ("panorama", "--reference", "secret:1"),
        ):
            refused = crm(*arguments)
            assert (refused.returncode, refused.stdout) == (2, "")
            reason = refused.stderr.strip().splitlines()[-1]
            assert "'outside-ids' is not in the key database" in reason
            assert "Traceback" not in refused.stderr
        assert keys.execute("select count(*) from secrets").fetchone() == (0,)
        assert _head(environment) == head
        keys.execute("insert into secrets (purpose, wrapped) values (%s, %s)", kept)
    again = crm("ingest", "--format", "berka", "--source", "secret", folder, "--json")
    assert again.returncode == 0, again.stderr


def _head(environment):
    with psycopg.connect(environment["POSTGRES_URL"]) as connection:
        return connection.execute("select max(position) from store_ingest.events").fetchone()
