"""Kill a stage at a random moment, again and again: the next run succeeds by itself, and nothing was lost or doubled.

Two shops get the same events, cycle by cycle. In one of them every stage of a cycle (load, build, fit, score, publish,
watch) is killed at a random moment of its time and then run again, without any manual step. After each kill the
published snapshots must be whole, and a reader that queries all the while must see one snapshot in each query. In the
end the tables of both shops are equal, row by row, but for ids and times of runs.

    .venv/bin/python benchmarks/chaos/kills.py [--kills 20] [--seed 0]
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
from readers import read
from shop import Shop

STAGES = ("load", "build", "fit", "score", "publish", "watch")
# What names a run, a load, a file or a moment differs between two shops that hold the same: `options` of a load has its
# files, `original` the whole row as it was quarantined, whose values stand in columns of their own.
OWN = (
    *("run_id", "load_id", "loaded_at", "source_file", "options", "original"),
    *("scored_at", "model_version", "created_at", "built_at", "input_hash"),
)
COMPARED = ("raw", "staging", "intermediate", "marts")
SCORES = {
    "ml.churn_scores": "select * from ml.churn_scores where is_served",
    "ml.current_churn_scores": "select * from ml.current_churn_scores",
    "ml.current_churn_reasons": "select * from ml.current_churn_reasons",
}


def killed(shop: Shop, stage: str, seconds: float, chance: random.Random) -> tuple[float, bool]:
    """Start a stage and kill its whole group; when, and whether it was still at work."""
    process = shop.start(*shop.command(stage))
    moment = chance.uniform(0, 0.95 * seconds)
    time.sleep(moment)
    at_work = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return moment, at_work


def undisturbed(shop: Shop, cycle: int) -> None:
    """All stages of a cycle."""
    for stage in STAGES:
        shop.give(stage, cycle)
        shop.call(stage)


def disturbed(shop: Shop, cycle: int, usual: dict[str, float], chance: random.Random) -> Iterator[dict[str, Any]]:
    """All stages of a cycle, each killed once; `usual` has their seconds, and gets the new ones."""
    for stage in STAGES:
        shop.give(stage, cycle)
        moment, at_work = killed(shop, stage, usual.get(stage, 3.0), chance)
        shop.run("lcm-ml", "snapshots", "verify")
        began = time.monotonic()
        shop.call(stage)
        usual[stage] = time.monotonic() - began
        yield {"stage": stage, "after": round(moment, 2), "at_work": at_work}


def tables(warehouse: Path) -> dict[str, Any]:
    """Rows and a hash of each table, without the columns that are a run's own."""
    with duckdb.connect(str(warehouse), read_only=True) as con:
        names = con.execute(
            "select schema_name || '.' || table_name from duckdb_tables() "
            "where list_contains(?, schema_name) order by 1",
            [list(COMPARED)],
        ).fetchall()
        queries = {name: f"select * from {name}" for (name,) in names} | SCORES
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
    parser.add_argument("--kills", type=int, default=20, help="rounded up to whole cycles of six stages")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cycles = -(-options.kills // len(STAGES))
    chance = random.Random(options.seed)
    kills: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lcm-kills-") as name, ThreadPoolExecutor() as beside:
        shops = [Shop(Path(name) / which) for which in ("calm", "killed")]
        usual: dict[str, float] = {}
        list(beside.map(Shop.make, shops))
        calm, hit = shops
        stop, found = multiprocessing.Event(), multiprocessing.Queue()
        views = str(hit.published / "lcm_published.duckdb")
        reader = multiprocessing.Process(target=read, args=(views, True, stop, found))
        reader.start()
        for cycle in range(cycles):
            left_alone = beside.submit(undisturbed, calm, cycle)
            for kill in disturbed(hit, cycle, usual, chance):
                kills.append(kill)
                print(
                    f"kill {len(kills)} of {cycles * len(STAGES)}: {kill['stage']} after {kill['after']} s",
                    file=sys.stderr,
                )
            left_alone.result()
        stop.set()
        seen = found.get()
        reader.join()
        left, right = tables(calm.warehouse), tables(hit.warehouse)
    different = [table for table in left if left[table] != right.get(table)]
    result = {
        "kills": {stage: _told([kill for kill in kills if kill["stage"] == stage]) for stage in STAGES},
        "tables": len(left),
        "rows": sum(rows for rows, *_ in left.values()),
        "different": different,
        "queries_meanwhile": seen["queries"],
        "errors_of_the_reader": seen["errors"][:3],
        "torn": sum(snapshots != 1 for _, _, _, snapshots, _ in seen["seen"]),
    }
    print(json.dumps(result, indent=2))
    if different or result["errors_of_the_reader"] or result["torn"]:
        sys.exit(1)


def _told(kills: list[dict[str, Any]]) -> dict[str, Any]:
    moments = [kill["after"] for kill in kills]
    return {
        "killed": len(kills),
        "at_work": sum(kill["at_work"] for kill in kills),
        "after_seconds": [min(moments), round(statistics.median(moments), 2), max(moments)],
    }


if __name__ == "__main__":
    main()
