"""A fault that was in the ledger once is found again by hostile deliveries."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.faults import FAULTS, ROOT, Fault

SEEDS_UNTIL_FOUND_MAX = 400
SECONDS_MAX = 240


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(postgres_url: str, tmp_path: Path, fault: Fault) -> None:
    fault.plant(tmp_path)
    seeds = str(fault.seed), str(fault.seed + SEEDS_UNTIL_FOUND_MAX)
    played = subprocess.run(
        [sys.executable, "-m", "tests.hostile.run", *seeds, postgres_url, "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert "seed " in played.stdout, f"{fault.name} was not found\n{played.stdout}\n{played.stderr}"
    assert played.returncode == 1
