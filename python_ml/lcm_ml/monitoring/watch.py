"""One round of monitoring: read, measure, diagnose, as rows of ml.drift_metrics and ml.alerts."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import duckdb
import polars as pl

from lcm_ml.churn.model import ChurnModel
from lcm_ml.frames.frame import Frame, scoring_date, scoring_frame, training_frame
from lcm_ml.monitoring.diagnosis import Alert, diagnose
from lcm_ml.monitoring.drift import Drift, drift_of, feature_drift
from lcm_ml.monitoring.realised import Realised, realised_scores
from lcm_ml.monitoring.signs import DataLimits, DataSign, Sign, vital_signs
from lcm_ml.monitoring.unusual import unusual_values
from lcm_ml.registry import artefacts
from lcm_ml.registry.promotion import current_champion
from lcm_ml.registry.staleness import why_stale
from lcm_ml.warehouse.connection import first_row, rows
from lcm_ml.warehouse.state import settings

IMPORTANT = 10


@dataclass(frozen=True)
class Watched:
    """What a round of monitoring found."""

    as_of_date: date
    model_version: str | None
    signs: list[Sign]
    drifts: list[Drift]
    score: Drift | None
    realised: list[Realised]
    alerts: list[Alert]
    retrain: str | None
    data: list[DataSign]


def watch(con: duckdb.DuckDBPyConnection, as_of: date | None, now: datetime) -> Watched:
    """Look at the shop and the champion at a date (default: the end of the data), from what was known then.

    Args:
        con: an open connection to a built warehouse.
        as_of: one of marts.as_of_dates.
        now: UTC; only the age of the newest load is counted to it.

    Raises:
        LcmError: when the marts are not built, or the date is none of theirs.
    """
    day = as_of or scoring_date(con)
    current = scoring_frame(con, day)
    signs = vital_signs(con, day)
    champion = current_champion(con)
    drifts: list[Drift] = []
    score: Drift | None = None
    test: dict[str, tuple[float, float]] = {}
    important: list[str] = []
    if champion:
        model, manifest = artefacts.load(champion["artefact"], champion["artefact_hash"])
        model.encoding.check(current.data.schema)
        reference = training_frame(con)
        reference = reference.at(*[known for known in reference.dates() if known in model.trained_on and known < day])
        if reference.data.height:
            names = tuple(column.name for column in model.encoding.columns)
            drifts = feature_drift(reference, current.data, names)
            score = _score_drift(model, reference, current)
        test = {
            name: (figures["ci_low"], figures["ci_high"])
            for name, figures in manifest["test_metrics"].items()
            if figures["ci_low"] is not None
        }
        important = _important(con, champion)
    realised = realised_scores(con, day)
    data = data_state(con, day, DataLimits.from_settings(settings(con)), now)
    alerts = diagnose(day, signs, drifts, score, realised, test, important, data, unusual_values(con, day))
    retrain = why_stale(con)
    if retrain is None and any(a.cause == "performance" and a.severity == "critical" for a in alerts):
        retrain = "the served scores do worse than the champion did on its test date"
    if retrain:
        alerts.append(Alert("info", "retrain", "champion", retrain, day))
    version = champion["model_version"] if champion else None
    return Watched(day, version, signs, drifts, score, realised, alerts, retrain, data)


def _score_drift(model: ChurnModel, reference: Frame, now: Frame) -> Drift:
    before = reference.data.select("as_of_date").with_columns(score=pl.Series(model.predict(reference.data)))
    return drift_of("churn_probability", before, pl.Series(model.predict(now.data)))


def _important(con: duckdb.DuckDBPyConnection, champion: dict[str, Any]) -> list[str]:
    found = rows(
        con,
        "select feature from ml.feature_importance where run_id = ? and model_name = ? and method = 'permutation' "
        "order by rank limit ?",
        [champion["run_id"], champion["model_name"], IMPORTANT],
    )
    return [row["feature"] for row in found]


def data_state(con: duckdb.DuckDBPyConnection, day: date, limits: DataLimits, now: datetime) -> list[DataSign]:
    """How old and how clean the data is at the watched date; the age of the load is counted to `now`, UTC."""
    last = first_row(con, "select max(event_date) from intermediate.int_events where event_date < ?", [day])
    signs = []
    if last and last[0]:
        signs.append(DataSign("freshness", "events", "days_without_events", float((day - last[0]).days - 1)))
    loaded = first_row(con, "select max(loaded_at) from raw.loads where source != 'act'")
    if loaded and loaded[0]:
        hours = (now - loaded[0]).total_seconds() / 3600
        signs.append(DataSign("freshness", "load", "hours_since_load", hours, limits.stale_after_hours))
    quality = first_row(
        con,
        """
        with newest as (
            select max(load_id) as load_id from marts.data_quality where kind = 'rows_in'
        )

        select
            sum(quality.row_count) filter (where quality.kind = 'rows_in'),
            sum(quality.row_count) filter (where quality.kind = 'quarantined')
        from marts.data_quality as quality
        inner join newest on quality.load_id = newest.load_id
        """,
    )
    if quality and quality[0]:
        share = float(quality[1] or 0) / float(quality[0])
        signs.append(DataSign("quality", "newest load", "quarantined_share", share, limits.max_quarantined_share))
    return signs


def drift_rows(run_id: str, found: Watched) -> pl.DataFrame:
    """Rows of ml.drift_metrics."""
    collected: list[dict[str, Any]] = []

    def add(
        kind: str, subject: str, metric: str, value: float, reference: float | None, limit: float | None, alert: bool
    ) -> None:
        collected.append(
            {
                "run_id": run_id,
                "as_of_date": found.as_of_date,
                "model_version": found.model_version,
                "kind": kind,
                "subject": subject,
                "metric": metric,
                "value": value,
                "reference": reference,
                "threshold": limit,
                "is_alert": alert,
            }
        )

    for kind, drifts in (("feature", found.drifts), ("score", [found.score] if found.score else [])):
        for drift in drifts:
            add(kind, drift.subject, "psi", drift.psi, drift.past, drift.threshold, drift.severity is not None)
            add(kind, drift.subject, "jensen_shannon", drift.jensen_shannon, None, None, False)
            add(kind, drift.subject, "missing_share", drift.missing_now, drift.missing_before, None, False)
    for sign in found.signs:
        add("volume", sign.subject, sign.name, sign.value, sign.usual, None, sign.severity is not None)
    for served in found.realised[:1]:
        add("performance", str(served.as_of_date), "expected_churn_rate", served.expected_rate, None, None, False)
        for metric, measured in served.figures.items():
            add("performance", str(served.as_of_date), metric, measured.value, None, None, False)
    for state in found.data:
        add(state.kind, state.subject, state.metric, state.value, None, state.limit, state.is_alert)
    return pl.DataFrame(
        collected, schema_overrides={"model_version": pl.String, "reference": pl.Float64, "threshold": pl.Float64}
    )


def alert_rows(run_id: str, found: Watched, raised_at: datetime) -> pl.DataFrame:
    """Rows of ml.alerts."""
    return pl.DataFrame(
        [alert.row(run_id, found.model_version, raised_at) for alert in found.alerts],
        schema_overrides={"model_version": pl.String},
    )
