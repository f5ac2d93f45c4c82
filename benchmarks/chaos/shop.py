"""A small loaded shop, and the commands of a cycle on it as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("events", "users", "products", "campaigns", "campaign_touches")
WITHOUT_TESTS = ("--exclude-resource-type", "test", "unit_test")
LATE = """
    copy (
        select 'cycle' || '{cycle}' || '-' || row_number() over () as event_id, user_id,
            (select max(event_time) from staging.stg_events) as event_time, 'view' as event_type
        from (select distinct user_id from staging.stg_events order by user_id limit 100)
    ) to '{path}' (format parquet)
"""


class Shop:
    """A warehouse in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.warehouse = folder / "lcm.duckdb"
        self.published = folder / "lcm.published"
        self.late = folder / "late.parquet"
        self.inbox = folder / "inbox"

    def make(self, users: int = 400, days: int = 250) -> None:
        """Simulate, load, build, fit, score and publish."""
        data = self.folder / "data"
        size = ("--users", str(users), "--days", str(days), "--seed", "5", "--out", str(data))
        self.run("lcm-ml", "simulate", *size)
        files = [part for name in TABLES for part in (f"--{name.replace('_', '-')}", str(data / f"{name}.parquet"))]
        self.run("lcm-ml", "load", "files", *files)
        for stage in ("build", "fit", "score", "publish"):
            self.call(stage)

    def late_events(self, cycle: int | str) -> None:
        """A file of a hundred more events, for the next load."""
        with duckdb.connect(str(self.warehouse), read_only=True) as con:
            con.execute(LATE.format(cycle=cycle, path=self.late))

    def give(self, stage: str, cycle: int) -> None:
        """What a stage takes in: a load its file, a watch one in its inbox."""
        if stage == "load":
            self.late_events(cycle)
        elif stage == "watch":
            self.late_events(f"watch{cycle}")
            self.inbox.mkdir(exist_ok=True)
            self.late.replace(self.inbox / f"events-{cycle}.parquet")

    def command(self, stage: str) -> list[str]:
        """The command of a stage: load, build, fit, score, publish or watch."""
        return {
            "load": ["lcm-ml", "load", "files", "--append", "--events", str(self.late)],
            "build": ["dbt", "build", "-q", *WITHOUT_TESTS, "--target-path", str(self.folder / "target")],
            "fit": ["lcm-ml", "fit"],
            "score": ["lcm-ml", "score"],
            "publish": ["lcm-ml", "publish"],
            "watch": ["lcm-ml", "watch", "--inbox", str(self.inbox), "--once"],
        }[stage]

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """A process in a group of its own."""
        environment = {"LCM_WAREHOUSE": str(self.warehouse), "OMP_NUM_THREADS": "1", "DBT_LOG_PATH": str(self.folder)}
        return subprocess.Popen(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> str:
        """Run to its end; it must succeed."""
        process = self.start(*command)
        told, _ = process.communicate()
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{told}")
        return told

    def call(self, stage: str) -> str:
        """Run a stage to its end."""
        return self.run(*self.command(stage))
