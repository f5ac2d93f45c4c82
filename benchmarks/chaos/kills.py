"""Kill a stage at a random moment, again and again: the next run succeeds by itself, and nothing was lost or doubled.

Two shops get the same late events, cycle by cycle. In one of them a stage of each cycle (load, build, fit, score,
publish, in turn) is killed at a random moment and then run again, without any manual step. In the end the tables of
both are equal, row by row, but for ids and times of runs. After each kill the published snapshot must be whole.

    .venv/bin/python benchmarks/chaos/kills.py [--kills 20] [--seed 0]
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
from shop import Shop

STAGES = ("load", "build", "fit", "score", "publish")
# What names a run, a load, a file or a moment differs between two shops that hold the same: `options` of a load has its
# files, `original` the whole row as it was quarantined, whose values stand in columns of their own.
OWN = (
    *("run_id", "load_id", "loaded_at", "source_file", "options", "original"),
    *("scored_at", "model_version", "created_at", "built_at", "input_hash"),
)
COMPARED = ("raw", "staging", "intermediate", "marts")
SCORES = "select * from ml.churn_scores where is_served"


def killed(shop: Shop, stage: str, seconds: float, chance: random.Random) -> float:
    """Start a stage, kill its whole group before it usually ends, and run it again."""
    process = shop.start(*shop.command(stage))
    moment = chance.uniform(0, seconds)
    time.sleep(moment)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    shop.run("lcm-ml", "snapshots", "verify")
    shop.call(stage)
    return moment


def tables(warehouse: Path) -> dict[str, Any]:
    """Rows and a hash of each table, without the columns that are a run's own."""
    with duckdb.connect(str(warehouse), read_only=True) as con:
        names = con.execute(
            "select schema_name || '.' || table_name from duckdb_tables() "
            "where list_contains(?, schema_name) order by 1",
            [list(COMPARED)],
        ).fetchall()
        queries = {name: f"select * from {name}" for (name,) in names} | {"ml.churn_scores": SCORES}
        found = {}
        for name, query in queries.items():
            columns = [row[0] for row in con.execute(f"describe {query}").fetchall() if row[0] not in OWN]
            row = con.execute(
                f"select count(*), bit_xor(hash(t)), sum(cast(hash(t) as hugeint)) from "
                f"(select {', '.join(columns)} from ({query})) as t"
            ).fetchone()
            found[name] = row
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="lcm-kills-") as name:
        shops = []
        for which in ("calm", "killed"):
            folder = Path(name) / which
            folder.mkdir()
            shops.append(Shop(folder))
            shops[-1].make()
        calm, hit = shops
        moments = []
        for kill in range(options.kills):
            target = STAGES[kill % len(STAGES)]
            for shop in shops:
                shop.late_events(kill)
            for stage in STAGES:
                if stage == "fit" and target != "fit":
                    continue
                began = time.monotonic()
                calm.call(stage)
                if stage == target:
                    moments.append((stage, round(killed(hit, stage, time.monotonic() - began, chance), 2)))
                else:
                    hit.call(stage)
            print(f"kill {kill + 1} of {options.kills}: {moments[-1][0]} after {moments[-1][1]} s", file=sys.stderr)
        left, right = tables(calm.warehouse), tables(hit.warehouse)
    different = [table for table in left if left[table] != right.get(table)]
    print(json.dumps({"kills": moments, "tables": len(left), "different": different}, indent=2))
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
