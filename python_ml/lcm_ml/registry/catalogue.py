"""Looking at saved models, and changing which one serves."""

import shutil
from typing import Any

import duckdb
import polars as pl

from lcm_ml import project
from lcm_ml.churn.metrics import figure
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import training_frame
from lcm_ml.registry import artefacts
from lcm_ml.registry.promotion import (
    compare_contenders,
    current_champion,
    judge,
    load_contender,
    previous_champion,
    promotion_row,
)
from lcm_ml.registry.versions import find_version, with_status
from lcm_ml.warehouse import writer
from lcm_ml.warehouse.connection import Notify, connect, rows, table_exists, transaction, writer_lock
from lcm_ml.warehouse.contracts import tables


def list_versions(con: duckdb.DuckDBPyConnection, everything: bool) -> list[dict[str, Any]]:
    """Versions, newest first, with the test figures of the version that stands for each."""
    if not table_exists(con, "ml", "model_versions"):
        return []
    return rows(
        con,
        f"""
        with test_metrics as (
            select
                model_version,
                max(as_of_date) as test_date,
                max(value) filter (where metric = 'auc') as auc,
                max(value) filter (where metric = 'log_loss') as log_loss
            from ml.model_metrics
            where split = 'test'
            group by model_version
        )

        select
            v.model_version, v.model_name, v.status, v.trained_from, v.trained_to, v.n_features, v.created_at,
            m.test_date, m.auc, m.log_loss
        from ml.model_versions as v
        left join test_metrics as m on m.model_version = coalesce(v.evaluated_version, v.model_version)
        {"" if everything else "where v.status in ('champion', 'challenger')"}
        order by v.created_at desc, v.model_version
        """,
    )


def describe_version(con: duckdb.DuckDBPyConnection, version: str) -> dict[str, Any]:
    """A version's row, manifest and decisions.

    Raises:
        LcmError: when there is no such version, or its files are gone.
    """
    row = find_version(con, version)
    manifest = artefacts.read_manifest(row["artefact"], row["artefact_hash"])
    decisions = rows(con, "select * from ml.model_promotions where model_version = ? order by promotion_id", [version])
    return {**row, "manifest": manifest, "decisions": decisions}


def compare_versions(con: duckdb.DuckDBPyConnection, first: str, second: str) -> dict[str, Any]:
    """The paired difference in log loss of two versions, and what the rule says of it.

    Raises:
        LcmError: when one does not exist or cannot be loaded.
    """
    mine, theirs = (load_contender(con, find_version(con, version)) for version in (first, second))
    verdict = compare_contenders(mine, theirs, training_frame(con))
    return {
        "first": first,
        "second": second,
        "verdict": verdict.reason,
        "would_be_promoted": verdict.promote,
        "log_loss_difference": figure(verdict.difference),
    }


def promote_version(version: str, why: str | None, notify: Notify) -> dict[str, Any]:
    """Make a version the champion, by the rule or because of `why`.

    Raises:
        LcmError: when the rule refuses; the refusal is recorded.
    """
    with writer_lock("lcm-ml models promote", notify), connect(notify=notify) as con:
        writer.ensure(con, tables("ml"))
        candidate = load_contender(con, find_version(con, version))
        champion = current_champion(con)
        before = champion["model_version"] if champion else None
        if before == version:
            raise LcmError(f"{version} is the champion already", "see `lcm-ml models list`")
        if why is None:
            verdict = judge(con, candidate, training_frame(con))
            reason, difference, allowed = verdict.reason, verdict.difference, verdict.promote
        else:
            reason, difference, allowed = why, None, True
        decision = promotion_row(
            "promote" if allowed else "refuse", version, before, reason, forced=why is not None, difference=difference
        )
        _decide(con, decision, version if allowed else None, before)
        if not allowed:
            raise LcmError(f"{version} was not promoted: {reason}", "overrule the rule with --force --why 'the reason'")
    return decision.row(0, named=True)


def roll_back(notify: Notify) -> dict[str, Any]:
    """Make the champion before the present one the champion again.

    Raises:
        LcmError: when there is none, or its files are gone.
    """
    with writer_lock("lcm-ml models rollback", notify), connect(notify=notify) as con:
        writer.ensure(con, tables("ml"))
        version, before = previous_champion(con), find_version(con)["model_version"]
        load_contender(con, find_version(con, version))
        decision = promotion_row("rollback", version, before, f"rolled back from {before}")
        _decide(con, decision, version, before)
    return decision.row(0, named=True)


def delete_version(version: str, notify: Notify) -> dict[str, Any]:
    """Remove a version's files; the row says so.

    Raises:
        LcmError: for the champion, the version whose test stands for it, or one that was deleted before.
    """
    with writer_lock("lcm-ml models delete", notify), connect(notify=notify) as con:
        writer.ensure(con, tables("ml"))
        row = find_version(con, version)
        champion = current_champion(con)
        if champion and version in (champion["model_version"], champion["evaluated_version"]):
            raise LcmError(f"{version} is the champion, or stands for it", "promote another one first")
        if row["status"] == "deleted":
            raise LcmError(f"{version} was deleted before", "see `lcm-ml models list --all`")
        decision = promotion_row("delete", version, champion["model_version"] if champion else None, "asked for")
        # The row first: a row without files harms nobody once it says that they are gone.
        with transaction(con):
            writer.write(con, tables("ml")["model_versions"], with_status(con, {version: "deleted"}))
            writer.write(con, tables("ml")["model_promotions"], decision)
        shutil.rmtree(project.beside_warehouse("artefacts") / row["artefact"], ignore_errors=True)
    return decision.row(0, named=True)


def _decide(con: duckdb.DuckDBPyConnection, decision: pl.DataFrame, champion: str | None, before: str | None) -> None:
    with transaction(con):
        writer.write(con, tables("ml")["model_promotions"], decision)
        if champion:
            changes = {champion: "champion", **({before: "archived"} if before else {})}
            writer.write(con, tables("ml")["model_versions"], with_status(con, changes))
