"""Readers of the published file while it is rebuilt: no error, no mixture that goes unnoticed, nothing stale.

Eight processes query the views, half of them over one connection that stays open, half over a fresh one each time,
while cycles of load, build, score and publish run; with --watch, while `lcm-ml watch` publishes parts. Every query
joins four relations on user_id and snapshot_id and compares its counts with the manifest of the snapshot it names.

    .venv/bin/python benchmarks/chaos/readers.py [--cycles 20] [--readers 8] [--watch]
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import duckdb
from shop import Shop

QUERY = """
    select
        (select any_value(snapshot_id) from user_profiles) as named,
        count(*) as joined,
        count(distinct profiles.snapshot_id) as snapshots,
        any_value(profiles.snapshot_id) as seen
    from user_profiles as profiles
    inner join churn_scores_latest as scores using (user_id, snapshot_id)
    inner join lifecycle_current as stages using (user_id, snapshot_id)
    inner join churn_scores_now as newer using (user_id, snapshot_id)
"""
PAUSE = 0.05
"""Seconds between two queries of a reader, so that eight of them leave the two cores room for the writer."""


def read(views: str, stays_open: bool, stop: Event, found: "multiprocessing.Queue[dict[str, Any]]") -> None:
    """Query until told to stop; report what was seen."""
    told: dict[str, Any] = {"queries": 0, "errors": [], "mixtures": 0, "seen": []}
    con = duckdb.connect(views, read_only=True) if stays_open else None
    while not stop.is_set():
        began = time.time()
        try:
            if con is not None:
                row = con.execute(QUERY).fetchone()
            else:
                with duckdb.connect(views, read_only=True) as fresh:
                    row = fresh.execute(QUERY).fetchone()
        except duckdb.Error as error:
            told["errors"].append(str(error)[:300])
            continue
        told["queries"] += 1
        assert row is not None
        named, joined, snapshots, seen = row
        time.sleep(PAUSE)
        # A swap between opening the files: the join on snapshot_id has no rows, which tells the client to ask again.
        if not joined:
            told["mixtures"] += 1
            continue
        told["seen"].append((began, named, seen, snapshots, joined))
    found.put(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--watch", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lcm-readers-") as name:
        shop = Shop(Path(name))
        shop.make()
        expected, swapped = {}, []

        def note() -> None:
            manifest = json.loads((shop.published / "current" / "manifest.json").read_text(encoding="utf-8"))
            expected[manifest["snapshot_id"]] = manifest["relations"]["churn_scores_latest"]["rows"]
            swapped.append((time.time(), manifest["snapshot_id"]))

        note()
        stop, found = multiprocessing.Event(), multiprocessing.Queue()
        views = str(shop.published / "lcm_published.duckdb")
        readers = [
            multiprocessing.Process(target=read, args=(views, place % 2 == 0, stop, found))
            for place in range(options.readers)
        ]
        for reader in readers:
            reader.start()
        for cycle in watch_cycles(shop, options.cycles) if options.watch else job_cycles(shop, options.cycles):
            note()
            print(f"cycle {cycle + 1} of {options.cycles}", file=sys.stderr)
        time.sleep(1)
        stop.set()
        told = [found.get() for _ in readers]
        for reader in readers:
            reader.join()
    result = judged(told, expected, swapped)
    print(json.dumps(result, indent=2))
    if result["errors"] or result["torn"] or result["stale"]:
        sys.exit(1)


def job_cycles(shop: Shop, cycles: int) -> Iterator[int]:
    """The stages of a job, one after another."""
    for cycle in range(cycles):
        shop.late_events(cycle)
        for stage in ("load", "build", "score", "publish"):
            shop.call(stage)
        yield cycle


def watch_cycles(shop: Shop, cycles: int) -> Iterator[int]:
    """A watch that finds a file every time it looks."""
    inbox = shop.inbox
    process = shop.start("lcm-ml", "watch", "--inbox", str(inbox), "--every", "500ms", "--json")
    assert process.stdout is not None
    while not (inbox / "done").is_dir() and process.poll() is None:
        time.sleep(0.1)
    shop.late_events(0)
    for cycle in range(cycles):
        late = shop.late.with_name(f"late-{cycle}.parquet")
        with duckdb.connect() as con:
            # Other ids are other events.
            con.execute(
                f"copy (select * replace ('{cycle}-' || event_id as event_id) from '{shop.late}') "
                f"to '{late}' (format parquet)"
            )
        late.replace(inbox / f"events-{cycle}.parquet")
        line = process.stdout.readline()
        if not line.startswith("{") or "number" not in line:
            sys.exit(f"the watch says: {line}{process.stdout.read()}")
        yield cycle
    process.terminate()
    process.communicate()


def judged(told: list[dict[str, Any]], expected: dict[str, int], swapped: list[tuple[float, str]]) -> dict[str, Any]:
    """Figures of all readers together."""
    stale, apart, torn = 0, 0, []
    order = [snapshot for _, snapshot in swapped]
    for reader in told:
        for began, named, seen, snapshots, joined in reader["seen"]:
            # Read beside the join, not in it: a swap in between shows, as the ids differ.
            apart += named != seen
            if snapshots != 1 or joined != expected.get(seen, -1):
                torn.append({"seen": seen, "snapshots": snapshots, "rows": [joined, expected.get(seen)]})
            newest = max((place for place, (when, _) in enumerate(swapped) if when < began), default=0)
            stale += seen not in order or order.index(seen) < newest
    errors = [error for reader in told for error in reader["errors"]]
    return {
        "readers": len(told),
        "snapshots": len(order),
        "queries": sum(reader["queries"] for reader in told),
        "errors": len(errors),
        "first_errors": errors[:3],
        "mixtures_that_the_join_told": sum(reader["mixtures"] for reader in told),
        "subqueries_whose_ids_told": apart,
        "torn": len(torn),
        "first_torn": torn[:3],
        "stale": stale,
    }


if __name__ == "__main__":
    main()
