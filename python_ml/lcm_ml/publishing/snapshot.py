"""Publish the serving relations as one immutable snapshot that readers switch to in one step."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

import lcm_ml
from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.warehouse import state
from lcm_ml.warehouse.connection import first_row

Advance = Callable[[str, float], None]
RELATIONS = (
    "user_profiles",
    "user_stage_history",
    "user_interests",
    "user_contacts",
    "churn_scores_latest",
    "churn_scores_history",
    "churn_reasons_latest",
    "churn_hints_latest",
    "lifecycle_current",
    "lifecycle_transitions",
    "cohort_retention",
    "survival_curves_latest",
    "purchase_hazards_latest",
    "user_segments_latest",
    "segment_profiles_latest",
    "model_performance",
    "alerts_latest",
    "forecasts_latest",
    "user_values_latest",
    "text_topics_latest",
    "product_sentiments_latest",
    "ticket_triage_latest",
    "data_quality",
    "association_rules_latest",
    "session_funnels_latest",
    "frequent_paths_latest",
    "path_transitions_latest",
    "sequence_lifts_latest",
    "recommendations_latest",
    "response_scores_latest",
    "uplift_scores_latest",
    "experiments_latest",
    "experiment_results_latest",
    "experiment_assignments",
)
SCHEMA_OF = dict.fromkeys(
    (
        "user_stage_history",
        "user_interests",
        "user_contacts",
        "lifecycle_transitions",
        "cohort_retention",
        "data_quality",
    ),
    "marts",
)
KEPT_SNAPSHOTS = 5


def publish(con: duckdb.DuckDBPyConnection, advance: Advance) -> dict[str, Any]:
    """Write every serving relation to a new snapshot folder, then point `current` at it.

    A reader that goes through `current` sees the old snapshot or the new one, never a part: the folder is
    complete before the link is swapped, and the swap is one rename.

    Returns:
        The manifest: snapshot_id, relations with rows and SHA-256, folder, and the views file.

    Raises:
        LcmError: when nothing is built, or a file cannot be written.
    """
    state.require_built(con)
    folder = project.beside_warehouse("published")
    snapshots = folder / "snapshots"
    snapshots.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    snapshot_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    unfinished = snapshots / f".{snapshot_id}.unfinished"
    unfinished.mkdir(mode=0o700)
    try:
        manifest = _export(con, unfinished, snapshot_id, advance)
        unfinished.replace(snapshots / snapshot_id)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _point_current_at(folder, snapshot_id)
    _write_views(folder, manifest["relations"])
    _prune(snapshots, keep=snapshot_id)
    return manifest | {"folder": folder / "current", "views": folder / "lcm_published.duckdb"}


def _export(con: duckdb.DuckDBPyConnection, folder: Path, snapshot_id: str, advance: Advance) -> dict[str, Any]:
    relations: dict[str, Any] = {}
    # One transaction: all relations come from the same state of the warehouse.
    con.execute("begin transaction")
    try:
        scored = first_row(con, "select max(as_of_date) from serving.churn_scores_latest")
        for done, name in enumerate(RELATIONS):
            advance(name, done / len(RELATIONS))
            relations[name] = _export_relation(con, name, folder, snapshot_id)
    finally:
        con.execute("rollback")
    manifest = {
        "snapshot_id": snapshot_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores_as_of_date": scored[0].isoformat() if scored and scored[0] else None,
        "lcm_version": lcm_ml.__version__,
        "duckdb_version": duckdb.__version__,
        "relations": relations,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    return manifest


def _export_relation(con: duckdb.DuckDBPyConnection, name: str, folder: Path, snapshot_id: str) -> dict[str, Any]:
    path = folder / f"{name}.parquet"
    source = f"{SCHEMA_OF.get(name, 'serving')}.{name}"
    escaped = str(path).replace("'", "''")
    con.execute(f"copy (select *, '{snapshot_id}' as snapshot_id from {source}) to '{escaped}' (format parquet)")
    path.chmod(0o600)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    row = first_row(con, f"select count(*) from {source}")
    columns = [column[0] for column in con.execute(f"select * from {source} limit 0").description or []]
    return {"rows": row[0] if row else 0, "sha256": digest, "columns": [*columns, "snapshot_id"]}


def _point_current_at(folder: Path, snapshot_id: str) -> None:
    link = folder / f".current.{snapshot_id}"
    link.symlink_to(Path("snapshots") / snapshot_id)
    link.replace(folder / "current")


def _write_views(folder: Path, relations: dict[str, Any]) -> None:
    """Write the file that BI opens: views with explicit columns over `current`, by absolute path.

    It changes only when the columns do, so that open connections are left alone.
    """
    path = folder / "lcm_published.duckdb"
    current = str((folder / "current").absolute()).replace("'", "''")
    views = [
        f"create view {name} as select {', '.join(relation['columns'])} from read_parquet('{current}/{name}.parquet')"
        for name, relation in relations.items()
    ]
    wanted = hashlib.sha256("\n".join(views).encode()).hexdigest()
    stamp = folder / ".views.sha256"
    if path.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    fresh = folder / ".lcm_published.fresh.duckdb"
    fresh.unlink(missing_ok=True)
    with duckdb.connect(str(fresh)) as con:
        for view in views:
            con.execute(view)
    fresh.chmod(0o600)
    fresh.replace(path)
    stamp.write_text(wanted, encoding="utf-8")


def _prune(snapshots: Path, keep: str) -> None:
    complete = sorted(path for path in snapshots.iterdir() if not path.name.startswith("."))
    for path in complete[:-KEPT_SNAPSHOTS]:
        if path.name != keep:
            shutil.rmtree(path, ignore_errors=True)
    # What a killed publish left behind.
    for path in snapshots.glob(".*.unfinished"):
        shutil.rmtree(path, ignore_errors=True)


def current_manifest() -> dict[str, Any] | None:
    """The manifest of the snapshot that readers see, or None before the first publish.

    Raises:
        LcmError: when it cannot be read.
    """
    path = project.beside_warehouse("published") / "current" / "manifest.json"
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise LcmError(f"{path} is not a manifest", "publish again with `lcm-ml run`") from None
    return manifest
