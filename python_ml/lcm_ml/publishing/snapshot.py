"""Publish the serving relations as one immutable snapshot that readers switch to in one step."""

import secrets
import shutil
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

import lcm_ml
from lcm_ml.errors import LcmError
from lcm_ml.frames.decisions import parts_of_users
from lcm_ml.frames.frame import scoring_date
from lcm_ml.publishing import catalogue, manifest, views
from lcm_ml.warehouse import contracts, state
from lcm_ml.warehouse.connection import first_row
from lcm_ml.warehouse.sql import literal

Advance = Callable[[str, float], None]
USERS_AT_ONCE = 250_000
"""Users whose profiles are put together at once."""
RELATIONS = (
    "user_profiles",
    "user_stage_history",
    "user_interests",
    "user_contacts",
    "churn_scores_latest",
    "churn_scores_history",
    "churn_reasons_latest",
    "churn_hints_latest",
    "churn_scores_now",
    "churn_reasons_now",
    "lifecycle_current",
    "lifecycle_now",
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
    "kb_articles",
    "support_facts_latest",
    "data_quality",
    "association_rules_latest",
    "session_funnels_latest",
    "frequent_paths_latest",
    "path_transitions_latest",
    "sequence_lifts_latest",
    "recommendations_latest",
    "response_scores_latest",
    "uplift_scores_latest",
    "budget_policies_latest",
    "budget_allocations_latest",
    "strategy_effects_latest",
    "strategy_proposals_latest",
    "next_best_actions_latest",
    "actions_sent",
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
        "kb_articles",
    ),
    "marts",
)
LIVE = ("churn_scores_now", "churn_reasons_now", "lifecycle_now", "alerts_latest")
"""Relations that every cycle of `lcm-ml watch` writes."""

SNAPSHOT_ID = "The published snapshot. Relations that are joined must agree on it: a publish may come in between."


def publish(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    keep: int | None,
    advance: Advance,
    changed: Collection[str] | None = None,
) -> dict[str, Any]:
    """Write every serving relation to a new snapshot folder, then point `current` at it.

    A reader that goes through `current` sees the old snapshot or the new one, never a part: the folder is
    complete before the link is swapped, and the swap is one rename.

    Args:
        con: an open connection to a built warehouse.
        folder: of what is published, as `publishing_lock` yields it.
        keep: how many snapshots stay; None: the var kept_snapshots.
        advance: told what is under way.
        changed: the relations that differ from the snapshot that is current; the files of the others are taken over
            from it, where `may_take_over` allows it. None: all are written.

    Returns:
        The manifest: snapshot_id, relations with rows and SHA-256, folder, and the views file.

    Raises:
        LcmError: when nothing is built, or a file cannot be written.
    """
    state.require_built(con)
    kept = keep or state.settings(con)["kept_snapshots"]
    snapshots = folder / "snapshots"
    snapshots.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    snapshot_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
    unfinished = snapshots / f".{snapshot_id}.unfinished"
    unfinished.mkdir(mode=0o700)
    before = catalogue.current_folder(folder) if changed is not None else None
    try:
        written = _export(con, unfinished, snapshot_id, advance, before, changed or ())
        unfinished.replace(snapshots / snapshot_id)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    catalogue.activate(folder, snapshot_id, written["relations"])
    catalogue.prune(folder, kept)
    return written | {"folder": folder / "current", "views": folder / views.NAME}


def _export(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    snapshot_id: str,
    advance: Advance,
    before: Path | None,
    changed: Collection[str],
) -> dict[str, Any]:
    relations: dict[str, Any] = {}
    known: dict[str, Any] = manifest.read(before) if before else {}
    # One transaction: all relations come from the same state of the warehouse.
    con.execute("begin transaction")
    try:
        scored = first_row(con, "select max(as_of_date) from serving.churn_scores_latest")
        for done, name in enumerate(RELATIONS):
            advance(name, done / len(RELATIONS))
            old = known.get("relations", {}).get(name)
            if before and old and "written_in" in old and name not in changed:
                _take_over(before / f"{name}.parquet", folder / f"{name}.parquet")
                relations[name] = old
            else:
                relations[name] = _export_relation(con, name, folder, snapshot_id)
        written_from = state_of(con)
    finally:
        con.execute("rollback")
    written = {
        "snapshot_id": snapshot_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "kind": manifest.PART if before else manifest.WHOLE,
        "scores_as_of_date": scored[0].isoformat() if scored and scored[0] else None,
        "lcm_version": lcm_ml.__version__,
        "duckdb_version": duckdb.__version__,
        "warehouse_state": written_from,
        "relations": relations,
    }
    views.write_stamps(folder, snapshot_id, relations)
    manifest.write(folder, written)
    return written


def _take_over(old: Path, new: Path) -> None:
    """The same file under another name: files of snapshots are never changed, so none has to be copied."""
    try:
        new.hardlink_to(old)
    except OSError:
        shutil.copyfile(old, new)
        new.chmod(0o600)
        manifest.digest(new)


def state_of(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What tells which state of the warehouse a snapshot is of.

    Returns:
        build_id and run_id: the newest build and run, but for those of `lcm-ml watch`, of which `watch` tells.
    """
    build = first_row(con, "select max_by(build_id, started_at) from meta.builds where command != 'watch'")
    run = first_row(con, "select max(run_id) from ml.model_runs where command != 'watch'")
    built = first_row(con, "select max_by(build_id, started_at) from meta.builds where command = 'watch'")
    scored = first_row(con, "select max(finished_at) from ml.model_runs where command = 'watch'")
    return {
        "build_id": build[0] if build else None,
        "run_id": run[0] if run else None,
        "watch": [built[0] if built else None, str(scored[0]) if scored and scored[0] else None],
    }


def may_take_over(con: duckdb.DuckDBPyConnection, folder: Path) -> bool:
    """Whether only `lcm-ml watch` has changed the warehouse since the current snapshot was written."""
    current = catalogue.current_folder(folder)
    if current is None:
        return False
    try:
        known = manifest.read(current)
    except LcmError:
        return False
    before, now = known.get("warehouse_state") or {}, state_of(con)
    return (
        all(before.get(name) == now[name] for name in ("build_id", "run_id"))
        and known.get("lcm_version") == lcm_ml.__version__
        and set(known["relations"]) == set(RELATIONS)
    )


def _in_parts(con: duckdb.DuckDBPyConnection, source: str) -> str:
    """The name of a temporary table with the rows of `source`, put there some users at a time; of few users, `source`.

    Its dozen joins each hold a hash table of all users, which do not fit in memory together.
    """
    parts = parts_of_users(con, scoring_date(con), USERS_AT_ONCE)
    if len(parts) == 1:
        return source
    con.execute(f"create or replace temp table exported as from {source} limit 0")
    for first, last in filter(None, parts):
        # DuckDB hands bounds that are written out down to every scan.
        within = f"user_id between {literal(first)} and {literal(last)}"
        con.execute(f"insert into exported from {source} where {within}")
    return "exported"


def _export_relation(con: duckdb.DuckDBPyConnection, name: str, folder: Path, snapshot_id: str) -> dict[str, Any]:
    path = folder / f"{name}.parquet"
    source = f"{SCHEMA_OF.get(name, 'serving')}.{name}"
    if name == "user_profiles":
        source = _in_parts(con, source)
    row = first_row(
        con, f"copy (select *, '{snapshot_id}' as snapshot_id from {source}) to {literal(str(path))} (format parquet)"
    )
    path.chmod(0o600)
    columns = [(column[0], column[1]) for column in con.execute(f"describe from {literal(str(path))}").fetchall()]
    described = contracts.descriptions()[name]
    return {
        "rows": row[0] if row else 0,
        "sha256": manifest.digest(path),
        "written_in": snapshot_id,
        "schema_file": views.schema_file(name, columns),
        "columns": [column for column, _ in columns],
        "description": described.text,
        "descriptions": described.columns | {"snapshot_id": SNAPSHOT_ID},
    }
