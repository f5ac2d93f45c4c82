"""The report: one HTML file that works from disk, with no script and no request to anywhere."""

from pathlib import Path
from typing import Any

import duckdb
import jinja2
import polars as pl

import lcm_ml
from lcm_ml import project
from lcm_ml.reporting import charts
from lcm_ml.warehouse import status

METRICS = (
    ("auc", "AUC"),
    ("average_precision", "average precision"),
    ("log_loss", "log loss"),
    ("brier", "Brier score"),
    ("top_decile_lift", "lift, top decile"),
)


def _frame(con: duckdb.DuckDBPyConnection, sql: str) -> pl.DataFrame:
    frame: pl.DataFrame = con.sql(sql).pl()
    return frame


def write_report(con: duckdb.DuckDBPyConnection, manifest: dict[str, Any]) -> Path:
    """Write report.html beside the snapshots, replacing the one before in one step.

    Args:
        con: an open connection to a built warehouse.
        manifest: of the snapshot that the report belongs to.

    Returns:
        The file.
    """
    found = status.collect(con)
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("lcm_ml.reporting"), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("report.html.j2")
    text = template.render(
        found=found,
        metrics=METRICS,
        models=_models(found["metrics"]),
        charts=_charts(con),
        totals={kind: _total(found["rows"], kind) for kind in ("rows_in", "kept", "duplicate", "quarantined")},
        transitions=_transitions(con),
        manifest=manifest,
        version=lcm_ml.__version__,
    )
    path = project.beside_warehouse("published") / "report.html"
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o600)
    return fresh.replace(path)


def _total(rows: list[dict[str, Any]], kind: str) -> int:
    return sum(row["row_count"] for row in rows if row["kind"] == kind)


def _models(metrics: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    models: dict[str, dict[str, dict[str, Any]]] = {}
    for row in metrics:
        models.setdefault(row["model_name"], {})[row["metric"]] = row
    return models


def _transitions(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _frame(
        con,
        """
        select from_stage, to_stage, users
        from marts.lifecycle_transitions
        where
            as_of_date = (select max(as_of_date) from marts.lifecycle_transitions)
            and from_stage != to_stage
        order by users desc, from_stage, to_stage
        limit 12
        """,
    ).to_dicts()


def _charts(con: duckdb.DuckDBPyConnection) -> list[dict[str, str]]:
    """Each chart with its heading and the sentence that says what it shows, for readers who cannot see it."""
    drawn = []
    weekly = _frame(con, "select as_of_date, stage, users from marts.lifecycle_weekly order by 1, 2")
    if weekly.height:
        drawn.append(
            {
                "title": "Lifecycle stages over time",
                "text": "Share of all users seen so far in each stage, week by week.",
                "svg": charts.stage_mix(weekly),
            }
        )
    scores = _frame(
        con,
        """
        select
            least(floor(churn_probability / 0.05) * 0.05, 0.95) as low,
            risk_band,
            count(*) as users
        from serving.churn_scores_latest
        group by 1, 2
        """,
    )
    if scores.height:
        drawn.append(
            {
                "title": "Churn probability of the users scored last",
                "text": "How many users have which probability of no purchase within the horizon.",
                "svg": charts.score_distribution(scores),
            }
        )
    latest = "run_id = (select max(run_id) from ml.model_runs where command = 'fit' and status = 'ok')"
    bins = _frame(
        con, f"select model_name, mean_probability, churn_rate from ml.calibration_bins where {latest} order by bin"
    )
    if bins.height:
        drawn.append(
            {
                "title": "Calibration on the test date",
                "text": "Predicted against realised churn in ten bins of equal size; the dashed line is perfect.",
                "svg": charts.calibration(bins),
            }
        )
    lifts = _frame(con, f"select model_name, decile, lift from ml.lift_bins where {latest} order by decile")
    if lifts.height:
        drawn.append(
            {
                "title": "Lift on the test date",
                "text": "How many times more often than average the users of each decile of risk churned.",
                "svg": charts.lift(lifts),
            }
        )
    return drawn
