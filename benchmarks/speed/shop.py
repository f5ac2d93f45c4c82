"""The shop that is measured: simulated events of a year, split into a history, one more day, and late rows."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
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
EVENTS_PER_USER = 25
"""As shops have them: most users sparse, a few heavy, in sessions."""

SIMULATED_PER_USER = 63.7
"""Of the simulator's preset `shop` in a year; whole sessions are left out until EVENTS_PER_USER remain."""

SHARD_USERS = 150_000
"""Users that are simulated at once: 4.5 GB of memory."""

OWN_IDS = {
    "events": ("event_id", "user_id", "session_id", "order_id"),
    "users": ("user_id",),
    "campaign_touches": ("user_id",),
    "support_tickets": ("ticket_id", "user_id"),
    "identities": ("anonymous_id", "user_id"),
}
MADE = "made_of"
BUILT_BY = ("models", "macros", "seeds", "dbt_project.yml", "python_ml/lcm_ml/sources", "python_ml/lcm_ml/warehouse")
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
    events_per_user: int = EVENTS_PER_USER

    @cached_property
    def files(self) -> Path:
        """The folder of the Parquet files: the tables, and events as history, day and late."""
        folder = self.folder / "files"
        shape = (self.events, self.events_per_user, SIMULATED_PER_USER, SHARD_USERS, DAYS, LATE_DAY, SPLIT)
        made_of = _fingerprint(ROOT / "python_ml" / "lcm_ml" / "sources" / "simulate.py") + repr(shape)
        if not is_made(folder, made_of):
            folder.mkdir()
            users = round(self.events / self.events_per_user)
            starts = range(0, users, SHARD_USERS)
            shards = [self._simulate(start // SHARD_USERS, min(SHARD_USERS, users - start)) for start in starts]
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
            (folder / MADE).write_text(made_of, encoding="utf-8")
        return folder

    @property
    def made_of(self) -> str:
        """Changes with whatever the history is made of."""
        return (self.history.parent / MADE).read_text(encoding="utf-8")

    def _simulate(self, number: int, users: int) -> Path:
        """One part of a shop that is too large to simulate at once: users of its own, the same products."""
        out = self.folder / f"shard-{number}"
        size = ("--users", str(users), "--days", str(DAYS), "--seed", str(5 + number))
        run("lcm-ml", "simulate", *size, "--out", str(out))
        shutil.rmtree(out / "truth")
        events, whole = out / "events.parquet", out / "whole.parquet"
        events.rename(whole)
        kept = round(10_000 * self.events_per_user / SIMULATED_PER_USER)
        with duckdb.connect() as con:
            con.execute("set memory_limit = '4GB'; set enable_progress_bar = false")
            own = f"hash(coalesce(session_id, event_id)) % 10000 < {kept}"
            con.execute(f"copy (select * from '{whole}' where {own}) to '{events}'")
        whole.unlink()
        return out

    def load(self, warehouse: Path, events: str, *, first: bool = False) -> None:
        """Load one part of the events: the first with all other tables."""
        run("lcm-ml", "load", "files", *self.files_of(events, first=first), warehouse=warehouse)

    def files_of(self, events: str, *, first: bool = False) -> list[str]:
        """The options of a load of one part of the events: the first with all other tables."""
        files = ["--events", str(self.files / f"{events}.parquet")]
        if not first:
            return [*files, "--append"]
        for table in TABLES:
            files += [f"--{table.replace('_', '-')}", str(self.files / f"{table}.parquet")]
        return files

    def build(self, warehouse: Path, *words: str) -> dict[str, float]:
        """`dbt run`, one model at a time: a model's seconds are then its own.

        Returns:
            Seconds by model.
        """
        target = self.folder / "target"
        command = ["dbt", "run", "--threads", "1", "--target-path", str(target), "--log-path", str(target), *words]
        run(*command, warehouse=warehouse)
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
        run("dbt", "compile", "-q", "-s", *models, *words, warehouse=self.history)

    @cached_property
    def history(self) -> Path:
        """The warehouse of the history, built; its models' seconds are in `built.json` beside it."""
        folder = self.folder / "history"
        path = folder / "lcm.duckdb"
        made_of = _fingerprint(self.files / MADE, *(ROOT / name for name in BUILT_BY))
        if not is_made(folder, made_of):
            folder.mkdir()
            self.load(path, "history", first=True)
            run("dbt", "seed", "-q", "--target-path", str(self.folder / "target"), warehouse=path)
            built = self.build(path)
            (folder / "built.json").write_text(json.dumps(built, indent=1), encoding="utf-8")
            (folder / MADE).write_text(made_of, encoding="utf-8")
        return path

    @property
    def built(self) -> dict[str, float]:
        """Seconds by model of the history's build."""
        seconds: dict[str, float] = json.loads((self.history.parent / "built.json").read_text(encoding="utf-8"))
        return seconds

    def copy(self, warehouse: Path) -> Path:
        """A copy that may be changed; the caller removes its folder."""
        path = Path(tempfile.mkdtemp(prefix="copy-", dir=self.folder)) / "lcm.duckdb"
        shutil.copy(warehouse, path)
        return path


def _fingerprint(*sources: Path) -> str:
    """A hash of files, and of all files in folders: what was made of them is made anew when it differs."""
    files = [file for source in sources for file in (sorted(source.rglob("*")) if source.is_dir() else [source])]
    told = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            told.update(f"{file.name}\0".encode() + file.read_bytes())
    return told.hexdigest()


def is_made(folder: Path, made_of: str) -> bool:
    """Whether a folder was made of just this; if not, it is cleared away."""
    mark = folder / MADE
    if mark.exists() and mark.read_text(encoding="utf-8") == made_of:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _of_all(shards: list[Path], table: str) -> str:
    """SQL of a table of all shards, their ids told apart; what has no users is that of the first."""
    own = [f"select * from '{shards[0] / table}.parquet'"]
    for number, shard in enumerate(shards[1:] if table in OWN_IDS else [], start=1):
        ids = ", ".join(f"{column} || '.{number}' as {column}" for column in OWN_IDS[table])
        own.append(f"select * replace ({ids}) from '{shard / table}.parquet'")
    return " union all ".join(own)


def program(name: str) -> Path:
    """A program of this environment; a path is one already."""
    return Path(sys.executable).with_name(name) if "/" not in name else Path(name)


def environment(warehouse: Path | None) -> dict[str, str]:
    """What the commands need to know."""
    return os.environ | {"DBT_PROFILES_DIR": str(ROOT)} | ({"LCM_WAREHOUSE": str(warehouse)} if warehouse else {})


def run(*command: str, warehouse: Path | None = None) -> str:
    """Run a command of the project, which must succeed; what it printed."""
    words = [str(program(command[0])), *command[1:]]
    done = subprocess.run(words, env=environment(warehouse), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def connect(path: Path, *, read_only: bool = False) -> Any:
    """A connection as the project's own, two threads."""
    con = duckdb.connect(str(path), read_only=read_only, config={"threads": 2})
    con.execute("set timezone = 'UTC'")
    return con
