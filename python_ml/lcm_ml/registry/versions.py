"""ml.model_versions: which saved model serves, and which were evaluated."""

from typing import Any

import duckdb
import polars as pl

from lcm_ml.churn.model import ChurnModel
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import read
from lcm_ml.registry.artefacts import Saved
from lcm_ml.registry.runs import Run, utc_now
from lcm_ml.warehouse.connection import table_exists

FIT = "run `lcm-ml fit`"


def find_version(con: duckdb.DuckDBPyConnection, version: str | None = None) -> dict[str, Any]:
    """The row of this version, or of the champion.

    Raises:
        LcmError: when there is none.
    """
    known: list[tuple[str, str]] = []
    if table_exists(con, "ml", "model_versions"):
        known = con.execute("select model_version, status from ml.model_versions order by created_at desc").fetchall()
    if version is None:
        champions = [name for name, status in known if status == "champion"]
        if not champions:
            raise LcmError("there is no champion yet: nothing was trained in this warehouse", FIT)
        version = champions[0]
    elif version not in [name for name, _ in known]:
        listed = ", ".join(name for name, _ in known[:10]) or "none"
        raise LcmError(
            f"there is no model version {version!r}; the newest are: {listed}", f"take one of these, or {FIT}"
        )
    found = read(con, "select * from ml.model_versions where model_version = $version", {"version": version})
    return dict(found.row(0, named=True))


def version_row(
    model: ChurnModel, version: str, saved: Saved, run: Run, status: str, evaluated_version: str | None = None
) -> dict[str, Any]:
    """A saved model as a row of ml.model_versions."""
    return {
        "model_version": version,
        "model_name": model.name,
        "run_id": run.run_id,
        "status": status,
        "evaluated_version": evaluated_version,
        "trained_from": model.trained_on[0],
        "trained_to": model.trained_on[-1],
        "horizon_days": model.horizon_days,
        "n_features": len(model.encoding.columns),
        "artefact": saved.artefact,
        "artefact_hash": saved.artefact_hash,
        "created_at": utc_now(),
    }


def succeeded_by(con: duckdb.DuckDBPyConnection, new: list[dict[str, Any]]) -> pl.DataFrame:
    """The new versions, and as archived the challengers before them, and the champion where there is a new one."""
    replaced = ["challenger", *(["champion"] if any(row["status"] == "champion" for row in new) else [])]
    before = read(con, "select * from ml.model_versions where status in $replaced", {"replaced": replaced})
    archived = before.with_columns(status=pl.lit("archived"))
    rows = pl.DataFrame(new, schema_overrides={"evaluated_version": pl.String})
    return pl.concat([archived, rows.select(archived.columns)], how="vertical_relaxed") if archived.height else rows


def with_status(con: duckdb.DuckDBPyConnection, changes: dict[str, str]) -> pl.DataFrame:
    """The rows of these versions with their new status."""
    rows = read(con, "select * from ml.model_versions where model_version in $names", {"names": list(changes)})
    return rows.with_columns(status=pl.col("model_version").replace_strict(changes, return_dtype=pl.String))
