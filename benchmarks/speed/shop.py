"""The shop that is measured: simulated events of a year, split into a history, one more day, and late rows."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "20k": 20_000,
    "100k": 100_000,
    "1m": 1_000_000,
    "3m": 3_000_000,
    "10m": 10_000_000,
    "30m": 30_000_000,
    "100m": 100_000_000,
}
EVENTS_PER_USER = 63.7
"""Of the simulator's preset `shop` in a year: most users sparse, a few heavy, in sessions."""

SHARD = 10_000_000
"""Events that are simulated at once: 4.6 GB of memory."""

OWN_IDS = {
    "events": ("event_id", "user_id", "session_id", "order_id"),
    "users": ("user_id",),
    "campaign_touches": ("user_id",),
    "support_tickets": ("ticket_id", "user_id"),
    "identities": ("anonymous_id", "user_id"),
}
DAYS, LATE_DAY, LAST_DAY = 365, "2025-11-01", "2025-12-31"
TABLES = (
    "users", "products", "campaigns", "campaign_touches", "support_tickets", "kb_articles", "identities",
    "currency_rates",
)  # fmt: skip
SPLIT = {
    "late": "event_id in (from late)",
    "day": f"event_time >= '{LAST_DAY}' and event_id not in (from late)",
    "history": f"(event_time < '{LAST_DAY}' or event_time is null) and event_id not in (from late)",
}


@dataclass(frozen=True)
class Shop:
    """Files, and the warehouse of its history, in a folder that later runs find again."""

    folder: Path
    events: int

    @cached_property
    def files(self) -> Path:
        """The folder of the Parquet files: the tables, and events as history, day and late."""
        folder = self.folder / "files"
        if not (folder / "late.parquet").exists():
            folder.mkdir(exist_ok=True)
            shards = [self._simulate(number) for number in range(max(1, self.events // SHARD))]
            with duckdb.connect() as con:
                con.execute("set memory_limit = '4GB'; set enable_progress_bar = false")
                for table in TABLES:
                    con.execute(f"copy ({_of_all(shards, table)}) to '{folder / table}.parquet'")
                con.execute(f"create view e as {_of_all(shards, 'events')}")
                on_day = f"try_cast(event_time as date) = date '{LATE_DAY}'"
                con.execute(
                    f"create table late as select event_id from e where {on_day} and user_id in "
                    f"(select user_id from e where {on_day} group by 1 order by md5(user_id) limit 100)"
                )
                for name, condition in reversed(SPLIT.items()):
                    con.execute(f"copy (select * from e where {condition}) to '{folder / name}.parquet'")
            for shard in shards:
                shutil.rmtree(shard)
        return folder

    def _simulate(self, number: int) -> Path:
        """One part of a shop that is too large to simulate at once: users of its own, the same products."""
        out = self.folder / f"shard-{number}"
        users = str(round(min(self.events, SHARD) / EVENTS_PER_USER))
        _run("lcm-ml", "simulate", "--users", users, "--days", str(DAYS), "--seed", str(5 + number), "--out", str(out))
        return out

    def load(self, warehouse: Path, events: str, *, first: bool = False) -> None:
        """Load one part of the events: the first with all other tables."""
        files = ["--events", str(self.files / f"{events}.parquet")]
        if first:
            for table in TABLES:
                files += [f"--{table.replace('_', '-')}", str(self.files / f"{table}.parquet")]
        _run("lcm-ml", "load", "files", *files, *([] if first else ["--append"]), warehouse=warehouse)

    def build(self, warehouse: Path, *words: str) -> dict[str, float]:
        """`dbt run`, one model at a time: a model's seconds are then its own.

        Returns:
            Seconds by model.
        """
        target = self.folder / "target"
        command = ["dbt", "run", "--threads", "1", "--target-path", str(target), "--log-path", str(target), *words]
        _run(*command, warehouse=warehouse)
        results = json.loads((target / "run_results.json").read_text(encoding="utf-8"))["results"]
        return {
            result["unique_id"].split(".")[-1]: result["execution_time"]
            for result in results
            if result["unique_id"].startswith("model.")
        }

    def compiled(self, model: str) -> str:
        """The SQL of a model as it is built whole, from `compile_whole`."""
        (path,) = (self.folder / "target" / "compiled" / "lcm" / "models").rglob(f"{model}.sql")
        return path.read_text(encoding="utf-8")

    def compile_whole(self, *models: str) -> None:
        """Compile models as a full refresh builds them."""
        target = self.folder / "target"
        words = ["--full-refresh", "--target-path", str(target), "--log-path", str(target)]
        _run("dbt", "compile", "-q", "-s", *models, *words, warehouse=self.history)

    @cached_property
    def history(self) -> Path:
        """The warehouse of the history, built; its models' seconds are in `built.json` beside it."""
        path = self.folder / "history.duckdb"
        if not (self.folder / "built.json").exists():
            path.unlink(missing_ok=True)
            self.load(path, "history", first=True)
            _run("dbt", "seed", "-q", "--target-path", str(self.folder / "target"), warehouse=path)
            built = self.build(path)
            (self.folder / "built.json").write_text(json.dumps(built, indent=1), encoding="utf-8")
        return path

    def copy(self, warehouse: Path) -> Path:
        """A copy that may be changed; the caller removes its folder."""
        path = Path(tempfile.mkdtemp(prefix="copy-", dir=self.folder)) / "lcm.duckdb"
        shutil.copy(warehouse, path)
        return path


def _of_all(shards: list[Path], table: str) -> str:
    """SQL of a table of all shards, their ids told apart; what has no users is that of the first."""
    own = [f"select * from '{shards[0] / table}.parquet'"]
    for number, shard in enumerate(shards[1:] if table in OWN_IDS else [], start=1):
        ids = ", ".join(f"{column} || '.{number}' as {column}" for column in OWN_IDS[table])
        own.append(f"select * replace ({ids}) from '{shard / table}.parquet'")
    return " union all ".join(own)


def steps_of_a_whole_run(shop: Shop, dates: int) -> Iterator[dict[str, object]]:
    """Load, build, fit, score and publish the history from nothing, each a process of its own.

    Yields:
        step, seconds, and gib: peak resident memory of the largest of its processes.
    """
    path = Path(tempfile.mkdtemp(prefix="whole-", dir=shop.folder)) / "lcm.duckdb"
    files = ["--events", str(shop.files / "history.parquet")]
    for table in TABLES:
        files += [f"--{table.replace('_', '-')}", str(shop.files / f"{table}.parquet")]
    target = str(path.with_name("target"))
    until = [] if dates >= 12 else ["--vars", json.dumps({"min_history_days": 56 + 28 * (12 - dates)})]
    steps = {
        "load": ["lcm-ml", "load", "files", *files],
        "build": ["dbt", "build", "--exclude-resource-type", "test", "unit_test", "--target-path", target, *until],
        "fit": ["lcm-ml", "fit", "--model", "xgboost", "--folds", "1"],
        "score": ["lcm-ml", "score", "--no-hints"],
        "publish": ["lcm-ml", "publish"],
    }
    for step, command in steps.items():
        start = time.perf_counter()
        kibibytes = _peak_of(command, path)
        yield {"step": step, "seconds": round(time.perf_counter() - start, 2), "gib": round(kibibytes / 2**20, 3)}
    shutil.rmtree(path.parent)


PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a command from a small process: the peak of one that is started begins with what its parent held."""


def _peak_of(command: list[str], warehouse: Path) -> int:
    """Run a command; peak resident KiB of its largest process."""
    return int(
        _run(sys.executable, "-c", PEAK, str(_program(command[0])), *command[1:], warehouse=warehouse).split()[-1]
    )


def _program(name: str) -> Path:
    """A program of this environment; a path is one already."""
    return Path(sys.executable).with_name(name) if "/" not in name else Path(name)


def _run(*command: str, warehouse: Path | None = None) -> str:
    """Run a command, which must succeed; what it printed."""
    where = {"LCM_WAREHOUSE": str(warehouse)} if warehouse else {}
    environment = os.environ | {"DBT_PROFILES_DIR": str(ROOT)} | where
    words = [str(_program(command[0])), *command[1:]]
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def connect(path: Path, *, read_only: bool = False) -> Any:
    """A connection as the project's own, two threads."""
    con = duckdb.connect(str(path), read_only=read_only, config={"threads": 2})
    con.execute("set timezone = 'UTC'")
    return con
