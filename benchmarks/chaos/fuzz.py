"""Mutated CSV, JSON Lines and Parquet files against `lcm-ml load files`, one warehouse for all of them.

Each must be loaded whole or refused with one message, and after all of them `dbt build` must pass and account for every
row: rows in = kept + duplicates + quarantined. A fault is told with its number; `--first N --files 1` makes it again.

    .venv/bin/python benchmarks/chaos/fuzz.py --files 2000 --seed 0
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "python"))

from fuzzing import Outcome, accounts_add_up, fuzz
from lifecycle import ROOT, build

RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
VERDICTS = ("loaded", "skipped", "refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("LCM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="lcm-fuzz-"))
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    numbers = range(given.first, given.first + given.files)
    for outcome in fuzz(numbers, given.seed, folder / "files", folder / "lcm.duckdb"):
        outcomes.append(outcome)
        for fault in outcome.faults:
            print(
                f"file {outcome.file.number} ({outcome.file.table}, {', '.join(outcome.file.done)}): {fault}",
                flush=True,
            )
        shutil.rmtree(folder / "files" / str(outcome.file.number))
        if len(outcomes) % 100 == 0:
            print(f"{len(outcomes)} files, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    rows_in = accounted = 0
    built = any(outcome.file.table == "events" and outcome.rows_loaded for outcome in outcomes)
    if built:
        build(folder / "lcm.duckdb")
        rows_in, accounted = accounts_add_up(folder / "lcm.duckdb")
    result = {
        "files": given.files,
        "seed": given.seed,
        "seconds": round(seconds),
        "by_format": {
            name: dict(Counter(outcome.verdict for outcome in outcomes if outcome.file.format == name))
            for name in ("csv", "json", "parquet")
        },
        "rows_loaded": sum(outcome.rows_loaded for outcome in outcomes),
        "rows_rejected": sum(outcome.rows_rejected for outcome in outcomes),
        "loaded_and_counted_anew": sum(
            outcome.verdict == "loaded" and outcome.rows is not None for outcome in outcomes
        ),
        "events_in": rows_in,
        "events_accounted_for": accounted,
        "faults": sum(bool(outcome.faults) for outcome in outcomes),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2), encoding="utf-8")
    print(f"{'':<10}" + "".join(f"{verdict:>10}" for verdict in VERDICTS))
    for name, counts in result["by_format"].items():
        print(f"{name:<10}" + "".join(f"{counts.get(verdict, 0):>10,}" for verdict in VERDICTS))
    print(json.dumps({name: value for name, value in result.items() if name != "by_format"}, indent=2))
    shutil.rmtree(folder)
    sys.exit(1 if result["faults"] or rows_in != accounted else 0)


if __name__ == "__main__":
    main()
