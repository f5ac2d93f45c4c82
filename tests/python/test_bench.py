"""The measures of speed measure what they say: the reference has the product's values, and the guard guards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.long]


def bench(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--size", "20k", "--rounds", "1", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_features_and_increments_are_those_of_the_references_and_the_guard_fails_when_slower(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    kept = bench("--only", "features,increments", "--folder", str(tmp_path), "--summary", str(summary), "--keep")
    assert kept.returncode == 0, kept.stderr[-2000:]
    assert "columns whose values differ: none" in kept.stdout
    assert "tables that differ from a full refresh: none" in kept.stdout
    ratios = json.loads(summary.read_text(encoding="utf-8"))["20k"]
    assert {"features, plain SQL", "features, floor", "one more day", "late rows"} <= ratios.keys()

    # Ten times better than it can be.
    for known in ratios.values():
        known["ratio"] /= 10
    summary.write_text(json.dumps({"20k": ratios}), encoding="utf-8")
    checked = bench("--only", "help", "--folder", str(tmp_path), "--summary", str(summary), "--check")
    assert checked.returncode == 0, "help is not in the summary"
    checked = bench("--only", "increments", "--folder", str(tmp_path), "--summary", str(summary), "--check")
    assert checked.returncode == 1
    assert "one more day" in checked.stdout
    assert "worse" in checked.stdout
