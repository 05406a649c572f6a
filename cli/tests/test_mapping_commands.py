"""`crm mapping` on files as banks print them, with no server anywhere."""

import json
import os
import subprocess
import sys

import pytest

MAPPING = """
separator = ";"
account = "6222021234566789"
currency = "EUR"
date_format = "%d.%m.%Y"
decimal_mark = ","
group_mark = "."
[columns]
booked_on = "Datum"
amount = "Betrag"
text = "Text"
[control]
rows = ["Summe"]
credits = "Betrag"
"""
GOOD = "Datum;Betrag;Text\n28.12.2018;-1.000,00 €;Miete Herr Geheim\n29.12.2018;12,50;Lohn\nSumme;12,50;\n"


@pytest.fixture
def crm(tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "crm_cli.main", "mapping", *map(str, arguments)],
            env={
                **os.environ,
                "POSTGRES_URL": "postgresql://127.0.0.1:1/x",
                "CRM_DATA": str(tmp_path / "data"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def mapping(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text(MAPPING)
    return path


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(GOOD)
    return path


def test_a_mapping_is_tried_and_what_would_be_read_is_shown_without_names(crm, mapping, file, tmp_path):
    shown = crm("try", mapping, file)
    assert shown.returncode == 0, shown.stderr
    assert "2018-12-28" in shown.stdout
    assert "-1000.00 EUR" in shown.stdout
    assert "2 rows would be read, 0 refused; nothing is booked" in shown.stdout
    assert "622202******6789" in shown.stdout
    assert "6222021234566789" not in shown.stdout + shown.stderr
    assert "Geheim" not in shown.stdout + shown.stderr
    assert not (tmp_path / "data").exists()


def test_a_mapping_is_tried_and_shown_as_one_object(crm, mapping, file):
    shown = json.loads(crm("try", mapping, file, "--json").stdout)
    assert {
        name: shown[name] for name in ("records", "readable", "refused", "credits_minor", "debits_minor")
    } == {
        "records": 2,
        "readable": 2,
        "refused": 0,
        "credits_minor": {"EUR": 1_250},
        "debits_minor": {"EUR": 100_000},
    }
    assert [(row["line"], row["booked_on"], row["amount_minor"]) for row in shown["rows"]] == [
        (2, "2018-12-28", -100_000),
        (3, "2018-12-29", 1_250),
    ]
    assert [(control["line"], control["credits_minor"]) for control in shown["controls"]] == [(4, 1_250)]


def test_a_refusal_has_its_place_and_its_reason_and_the_exit_code_says_so(crm, mapping, file):
    file.write_text(GOOD.replace("12,50;Lohn", "12.50;Herr Geheim"))
    shown = crm("try", mapping, file)
    assert shown.returncode == 1
    assert "REFUSED line 3, column Betrag: amount-malformed" in shown.stdout
    assert "Geheim" not in shown.stdout + shown.stderr
    refused = json.loads(crm("try", mapping, file, "--json").stdout)["refusals"]
    assert [(each["line"], each["column"], each["reason"]) for each in refused] == [
        (3, "Betrag", "amount-malformed")
    ]


def test_a_mapping_that_cannot_be_tried_is_reported_on_stderr_alone(crm, mapping, file, tmp_path):
    mapping.write_text(MAPPING + "x =")
    for arguments in (("try", mapping, file), ("try", tmp_path / "none", file), ("guess", tmp_path / "none")):
        failed = crm(*arguments)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert "Traceback" not in failed.stderr


def test_a_mapping_is_proposed_and_reads_all_rows(crm, file, tmp_path):
    proposed = crm("guess", file)
    assert proposed.returncode == 0, proposed.stderr
    assert "# NOT SURE" in proposed.stdout
    path = tmp_path / "proposed.toml"
    path.write_text(proposed.stdout)
    assert json.loads(crm("try", path, file, "--json").stdout)["debits_minor"] == {"EUR": 100_000}


def test_no_mapping_is_proposed_for_a_file_without_a_table(crm, file):
    file.write_bytes(b"PK\x03\x04" + bytes(300))
    refused = crm("guess", file)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "file-compressed" in refused.stderr
