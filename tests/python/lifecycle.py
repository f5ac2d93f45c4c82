"""What the end-to-end tests share: a simulated shop, a build of it, and tables compared row by row."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from filelock import FileLock
from polars.testing import assert_frame_equal

ROOT = Path(__file__).resolve().parents[2]

# Where `make test` builds the sample, as it names it: dbt parses anew for another value of LCM_WAREHOUSE.
SAMPLE = Path("target/sample/lcm.duckdb")

# The marts that must be the same however they came about, and the key of each.
MARTS = {
    "user_features": ["user_id", "as_of_date"],
    "lapsed_user_features": ["user_id", "as_of_date"],
    "user_lifecycle": ["user_id", "as_of_date"],
    "user_rfm": ["user_id", "as_of_date"],
    "user_churn_labels": ["user_id", "as_of_date"],
    "lifecycle_weekly": ["as_of_date", "stage"],
    "lifecycle_transitions": ["as_of_date", "from_stage", "to_stage"],
    "cohort_retention": ["acquisition_channel", "cohort_month", "period"],
    "data_quality": ["load_id", "kind", "rule"],
    "as_of_dates": ["as_of_date"],
    "purchase_days": ["user_id", "purchase_date"],
}


# For builds whose rows are looked at, not dbt's own tests of them.
WITHOUT_TESTS = ("--exclude-resource-type", "test", "unit_test")
# The marts above and what they are made of: for builds that nothing is served from.
ONLY_MARTS = (*WITHOUT_TESTS, "--select", *(f"+{name}" for name in MARTS))


@contextmanager
def warehouse_at(path: Path) -> Iterator[None]:
    """Let dbt and lcm-ml use the warehouse at `path` within the block."""
    before = os.environ.get("LCM_WAREHOUSE")
    os.environ["LCM_WAREHOUSE"] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LCM_WAREHOUSE"]
        else:
            os.environ["LCM_WAREHOUSE"] = before


class DbtRun:
    """Outcome of a dbt command: whether it succeeded, and the lines that lcm's macros logged."""

    def __init__(self, success: bool, messages: list[str]) -> None:
        self.success = success
        self.messages = messages

    @property
    def own(self) -> list[str]:
        return [message for message in self.messages if message.startswith("lcm: ")]


HERE = ("--project-dir", str(ROOT), "--profiles-dir", str(ROOT), "--quiet", "--log-level-file", "none")


@cache
def parsed_project(sources: str) -> Any:
    """The project as dbt parses it, once for each process: a parse takes as long as half a build of the sample.

    Args:
        sources: the settings of sources (raw_schema ...) as JSON. Only these are read while parsing (a test looks),
            all others when a model runs.
    """
    from dbt.cli.main import dbtRunner

    if sources != "{}":
        with tempfile.TemporaryDirectory() as target, warehouse_at(SAMPLE):
            result = dbtRunner().invoke(["parse", *HERE, "--target-path", target, "--vars", sources])
    else:
        target = str(ROOT / SAMPLE.parent)
        # dbt keeps what it parsed there; the first process parses, the others read it.
        with FileLock(f"{target}.lock"), warehouse_at(SAMPLE):
            result = dbtRunner().invoke(["parse", *HERE, "--target-path", target])
    assert result.success, result.exception
    return result.result


def dbt(path: Path, *arguments: str, variables: dict[str, Any] | None = None) -> DbtRun:
    """Run a dbt command on the warehouse at `path`, within this process, and give the file's lock back."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    assert path.name == SAMPLE.name, "the name of the file is that of the database, which dbt wrote down as it parsed"
    messages: list[str] = []
    settings = variables or {}
    project = parsed_project(json.dumps({name: settings[name] for name in settings if name.startswith("raw_")}))
    command = [*arguments, *HERE, "--target-path", str(path.parent / "target"), "--vars", json.dumps(settings)]
    with warehouse_at(path):
        try:
            result = dbtRunner(project, [lambda event: messages.append(event.info.msg)]).invoke(command)
        finally:
            DuckDBConnectionManager.close_all_connections()
    return DbtRun(bool(result.success), messages)


def build(path: Path, *arguments: str, variables: dict[str, Any] | None = None) -> DbtRun:
    """`dbt build` that must succeed."""
    run = dbt(path, "build", *arguments, variables=variables)
    assert run.success, "\n".join(run.messages[-60:])
    return run


def lcm(path: Path, *arguments: str) -> dict[str, Any]:
    """Run lcm-ml with --json; it must succeed."""
    from typer.testing import CliRunner

    from lcm_ml.cli.main import app

    with warehouse_at(path):
        result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def query(path: Path, sql: str) -> pl.DataFrame:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.sql(sql).pl()


def change(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as con:
        for statement in statements:
            con.execute(statement)


def mart(path: Path, name: str, where: str = "true") -> pl.DataFrame:
    """A mart's rows in the order of its key, without the provenance columns."""
    frame = query(path, f"select * from marts.{name} where {where}")
    hashes = [column for column in frame.columns if column.endswith("_hash")]
    return frame.drop(hashes).sort(MARTS[name])


def assert_same(left: pl.DataFrame, right: pl.DataFrame, name: str) -> None:
    """Equal rows; floats within 1e-9 of each other, everything else exactly."""
    assert left.height == right.height, f"{name}: {left.height} rows against {right.height}"
    assert_frame_equal(left, right, rel_tol=1e-9, abs_tol=1e-9)
