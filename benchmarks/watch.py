"""How long new events take to reach the published snapshot, and whether any is lost: `lcm-ml watch` under load.

Takes the history of `make bench`, fits, scores and publishes it once; then writes files of new sessions, one a second,
of known users and new ones, after the end of the history, while `lcm-ml watch` runs. The latency of a file is from the
rename into the inbox to the rename out of it, which comes right after the publish. In the end the raw rows are counted,
and features, stages and scores of all touched users compared with a full rebuild.

    .venv/bin/python benchmarks/watch.py --size 1m --rate 1000 --minutes 3
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
from speed.measure import peak_bytes
from speed.shop import MADE, ROOT, SIZES, Shop, environment, is_made, program, run

END = datetime(2026, 1, 1)
NOT_COMPARED = ("user_id", "as_of_ts", "load_id", "previous_stage", "stage_since_date", "days_in_stage")
"""What tells of the moment, and of where a user stood at the last full scoring."""

BY_GAP = ("stage", "typical_gap_days", "at_risk_after_days", "dormant_after_days", "churned_after_days")


def make_shop(shop: Shop, estimator: str) -> Path:
    """A warehouse with the history, built, fitted, scored and published; kept from an earlier call."""
    folder = shop.folder / "watched"
    warehouse = folder / "lcm.duckdb"
    if is_made(folder, shop.made_of):
        return warehouse
    folder.mkdir(parents=True)
    shutil.copy(shop.history, warehouse)
    for step in ("fit", "score", "publish"):
        began = time.monotonic()
        if step == "fit":
            # Few dates are enough for a model that scores as long as any other.
            with duckdb.connect(str(warehouse)) as con:
                con.execute("update meta.settings set value = '6' where name = 'as_of_count'")
            run("lcm-ml", "fit", "--model", estimator, "--folds", "1", "--resamples", "50", warehouse=warehouse)
        else:
            run("lcm-ml", step, warehouse=warehouse)
        print(f"{step}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    (folder / MADE).write_text(shop.made_of, encoding="utf-8")
    return warehouse


class Driver(threading.Thread):
    """Writes one file of new sessions a second.

    Args:
        warehouse: of the history, read once.
        inbox: where the files go.
        rate: events a second.
        seconds: how long.
    """

    def __init__(self, warehouse: Path, inbox: Path, rate: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.inbox, self.rate, self.seconds = inbox, rate, seconds
        self.written: dict[str, int] = {}
        self.late = 0.0
        with duckdb.connect(str(warehouse), read_only=True) as con:
            # As they come: whoever did much will do much.
            self._users = con.sql(
                "select user_id from staging.stg_events using sample 200000 rows (reservoir, 1)"
            ).pl()["user_id"]
            self._products = con.sql("select product_id from staging.stg_products order by 1").pl()["product_id"]
        self._chance = np.random.default_rng(7)
        self._number = 0

    def run(self) -> None:
        began = time.monotonic()
        for second in range(int(self.seconds)):
            frame = self._sessions(second)
            name = f"events-{second:06d}.parquet"
            unfinished = self.inbox / f"{name}.tmp"
            frame.write_parquet(unfinished)
            self.written[name] = frame.height
            due = began + second + 1
            self.late = max(self.late, time.monotonic() - due)
            time.sleep(max(0.0, due - time.monotonic()))
            os.utime(unfinished)
            unfinished.rename(self.inbox / name)

    def _sessions(self, second: int) -> pl.DataFrame:
        """About `rate` events: sessions of views, carts and every third one with a purchase."""
        sizes = self._chance.geometric(1 / 6, size=self.rate // 4 + 1)
        sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), self.rate)) + 1]
        sessions = len(sizes)
        known = self._chance.random(sessions) < 0.95
        drawn = self._users[self._chance.integers(0, len(self._users), sessions)]
        first = self._number
        self._number += sessions
        users = [
            user if old else f"NEW{first + place}" for place, (user, old) in enumerate(zip(drawn, known, strict=True))
        ]
        buys = self._chance.random(sessions) < 0.33
        owner = np.repeat(np.arange(sessions), sizes)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        last = place == np.repeat(sizes - 1, sizes)
        kind = np.where(last & buys[owner], "purchase", np.where(self._chance.random(len(owner)) < 0.2, "cart", "view"))
        moments = [
            END + timedelta(seconds=second, milliseconds=int(ms)) for ms in self._chance.integers(0, 1000, len(owner))
        ]
        return pl.DataFrame(
            {
                "event_id": [f"n{second}-{row}" for row in range(len(owner))],
                "user_id": [users[session] for session in owner],
                "event_time": moments,
                "event_type": kind,
                "session_id": [f"s{first + session}" for session in owner],
                "order_id": [
                    f"o{first + session}" if what == "purchase" else None
                    for session, what in zip(owner, kind, strict=True)
                ],
                "product_id": self._products[self._chance.integers(0, len(self._products), len(owner))],
                "quantity": np.ones(len(owner), dtype=np.int64),
                "unit_price": np.round(self._chance.gamma(2.0, 15.0, len(owner)), 2),
                "channel": ["web"] * len(owner),
                "device": self._chance.choice(["mobile", "desktop"], len(owner)),
            }
        )


def figures(values: list[float]) -> dict[str, float | None]:
    """Median, 95th percentile and maximum."""
    if not values:
        return {"median": None, "p95": None, "max": None}
    found = np.quantile(np.array(values), [0.5, 0.95, 1.0])
    return dict(zip(("median", "p95", "max"), (round(float(value), 2) for value in found), strict=True))


def watched(warehouse: Path, folder: Path, rate: int, minutes: float, every: str) -> dict[str, Any]:
    """Drive a watch, end it, and tell what it did."""
    inbox = folder / "inbox"
    shutil.rmtree(inbox, ignore_errors=True)
    inbox.mkdir()
    driver = Driver(warehouse, inbox, rate, minutes * 60)
    command = [str(program("lcm-ml")), "watch", "--inbox", str(inbox), "--every", every, "--json"]
    log = folder / "watch.jsonl"
    with log.open("w") as out, (folder / "watch.err").open("w") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(warehouse), stdout=out, stderr=err)
        while not (inbox / "done").exists() and process.poll() is None:
            time.sleep(0.2)
        time.sleep(6)
        driver.start()
        backlog = []
        while driver.is_alive():
            backlog.append(sum(1 for path in inbox.glob("events-*.parquet")))
            time.sleep(1)
        ended = time.monotonic()
        deadline = ended + 600
        while any(inbox.glob("events-*.parquet")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        drained = time.monotonic() - ended
        peak = round(peak_bytes(process.pid) / 2**30, 2)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    cycles = [line for line in lines if "number" in line]
    done = {path.name: path.stat() for path in (inbox / "done").glob("events-*.parquet")}
    latencies = [stat.st_ctime - stat.st_mtime for stat in done.values()]
    names = sorted({step for cycle in cycles for step in cycle["seconds"]})
    return {
        "rate": rate,
        "seconds": minutes * 60,
        "every": every,
        "files": len(driver.written),
        "events": sum(driver.written.values()),
        "latency_seconds": figures(latencies),
        "cycles": len(cycles),
        "cycle_seconds": {name: figures([cycle["seconds"].get(name, 0.0) for cycle in cycles]) for name in names},
        "events_a_cycle": figures([cycle["events"] for cycle in cycles]),
        "users_a_cycle": figures([cycle["users"] for cycle in cycles]),
        "backlog_files": figures(backlog),
        "seconds_to_drain": round(drained, 1),
        "driver_late_seconds": round(driver.late, 2),
        "errors": [line for line in lines if "error" in line][:5],
        "exit_code": code,
        "peak_memory_gib": peak,
    }


def counted(warehouse: Path, written: int) -> dict[str, int]:
    """Events that were lost or came twice."""
    with duckdb.connect(str(warehouse), read_only=True) as con:
        rows, ids = con.execute(
            "select count(*), count(distinct event_id) from raw.events where source_file like '%inbox/events-%'"
        ).fetchall()[0]
    return {"events_lost": written - ids, "events_twice": rows - ids}


def compared(warehouse: Path, folder: Path) -> dict[str, Any]:
    """Touched users that differ from a full rebuild of the same raw tables."""
    rebuilt = folder / "rebuilt" / "lcm.duckdb"
    shutil.rmtree(rebuilt.parent, ignore_errors=True)
    rebuilt.parent.mkdir()
    shutil.copyfile(warehouse, rebuilt)
    with duckdb.connect(str(warehouse), read_only=True) as con:
        newest = con.execute("select max(as_of_date) from marts.current_user_features").fetchall()[0][0]
    # As a date of the grid, where everybody is computed, by the whole population.
    variables = json.dumps({"data_end_date": str(newest)})
    run(
        "dbt",
        "run",
        "-q",
        "--full-refresh",
        "--vars",
        variables,
        "--select",
        "+user_features",
        "+user_lifecycle",
        warehouse=rebuilt,
    )
    result: dict[str, Any] = {}
    with duckdb.connect() as con:
        con.execute(f"attach '{warehouse}' as live (read_only)")
        con.execute(f"attach '{rebuilt}' as again (read_only)")
        for name in ("user_features", "user_lifecycle"):
            columns = con.execute(f"describe live.marts.current_{name}").fetchall()
            differs = {
                column: f"(l.{column} is null) != (a.{column} is null) "
                + (
                    f"or abs(l.{column} - a.{column}) > 1e-9 * greatest(1, abs(a.{column}))"
                    if kind == "DOUBLE"
                    else f"or l.{column} != a.{column}"
                )
                for column, kind, *_ in columns
                if column not in NOT_COMPARED
            }
            if name == "user_lifecycle":
                # Who has too few purchases for a gap of its own has the population's, of the last full scoring.
                for column in BY_GAP:
                    differs[f"{column}_of_few"] = f"l.purchase_days <= 3 and ({differs[column]})"
                    differs[column] = f"l.purchase_days > 3 and ({differs[column]})"
            counts = ", ".join(f"count(*) filter (where {differs[c]}) as {c}" for c in differs)
            row = con.sql(
                f"select count(*) as users, count(a.user_id) as found, {counts} from live.marts.current_{name} as l "
                f"left join again.marts.{name} as a on l.user_id = a.user_id and l.as_of_date = a.as_of_date "
                f"where l.as_of_date = '{newest}'"
            ).pl()
            found = row.to_dicts()[0]
            users, there = found.pop("users"), found.pop("found")
            result[name] = {"users": users, "missing": users - there, "differ": {c: n for c, n in found.items() if n}}
    result["scores"] = scores_compared(warehouse, rebuilt)
    shutil.rmtree(rebuilt.parent)
    return result


def scores_compared(warehouse: Path, rebuilt: Path) -> dict[str, Any]:
    """Scores of the live warehouse against those of the rebuilt features, by the same model."""
    script = (
        "import json, sys, os\n"
        "import polars as pl\n"
        "from lcm_ml.churn.current import full_scoring\n"
        "from lcm_ml.frames.frame import make_frame, read\n"
        "from lcm_ml.warehouse import state\n"
        "from lcm_ml.warehouse.connection import connect\n"
        "with connect(read_only=True) as con:\n"
        "    settings = state.settings(con)\n"
        "    full = full_scoring(con, settings)\n"
        "    live = read(con, 'select user_id, churn_probability from ml.current_churn_scores where as_of_date = '\n"
        "                '(select max(as_of_date) from marts.current_user_features)')\n"
        "    con.execute(f\"attach '{sys.argv[1]}' as again (read_only)\")\n"
        "    rows = read(con, 'select * from again.marts.user_features where is_active_buyer '\n"
        "                'and as_of_date = (select max(as_of_date) from marts.current_user_features)')\n"
        "frame = make_frame(rows, full.model.horizon_days, settings['non_model_features'])\n"
        "again = pl.DataFrame({'user_id': frame.data['user_id'], 'again': full.model.predict(frame.data)})\n"
        "both = live.join(again, on='user_id', how='left')\n"
        "apart = (both['churn_probability'] - both['again']).abs()\n"
        "print(json.dumps({'users': both.height, 'missing': both['again'].null_count(), 'largest': apart.max(),\n"
        "                  'differ': int((apart > 1e-6).sum())}))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(rebuilt)],
        cwd=ROOT,
        env=environment(warehouse),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        return {"error": ended.stderr[-500:]}
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="1m", help="events of history")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", default="5s")
    parser.add_argument("--model", default="xgboost")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "bench")
    parser.add_argument("--json", dest="as_json", action="store_true")
    parser.add_argument("--make-only", action="store_true", help="make the history, drive nothing")
    parser.add_argument("--no-compare", action="store_true")
    options = parser.parse_args()
    home = (options.folder / options.size).absolute()
    home.mkdir(parents=True, exist_ok=True)
    made = make_shop(Shop(home, SIZES[options.size]), options.model)
    if options.make_only:
        return
    folder = home / "watch-run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made.parent, folder, symlinks=True, ignore=shutil.ignore_patterns("*.parquet.tmp", "inbox"))
    warehouse = folder / made.name
    result: dict[str, Any] = {"history": SIZES[options.size]} | watched(
        warehouse, folder, options.rate, options.minutes, options.every
    )
    result |= counted(warehouse, result["events"])
    if not options.no_compare:
        result["compared"] = compared(warehouse, folder)
    shutil.rmtree(folder)
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    path = results / f"watch-{options.size}-{options.rate}.json"
    path.write_text(json.dumps(result, indent=2), encoding="utf-8")
    if options.as_json:
        print(json.dumps(result, indent=2))
        return
    latency = result["latency_seconds"]
    print(f"{SIZES[options.size]:,} events of history, {options.rate:,} a second for {options.minutes:g} minutes")
    print(f"latency   median {latency['median']} s, 95th percentile {latency['p95']} s, most {latency['max']} s")
    print(f"cycles    {result['cycles']}; backlog of files: {result['backlog_files']}")
    print(f"steps     {json.dumps(result['cycle_seconds'])}")
    print(f"events    {result['events']:,} written, {result['events_lost']} lost, {result['events_twice']} twice")
    print(f"compared  {json.dumps(result.get('compared'))}")


if __name__ == "__main__":
    main()
