"""What was found wrong, what drifts, and what became of the scores that were served."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts
from lcm_ml.reporting.section import Figure, MakeSection, Section, Table, listed, number, plural, rows_of, share

MONITOR = "lcm-ml monitor"
FEATURES = 15
SEVERITIES = ("critical", "warning", "info")


def alerts(con: duckdb.DuckDBPyConnection) -> Section:
    """The alerts of the newest run of monitor, the most severe first."""
    title = "Alerts"
    text = "What the last run of monitoring found, the most severe first, with what to do next."
    runs = rows_of(
        con,
        "ml.model_runs",
        """
        select max(started_at) as started_at
        from ml.model_runs
        where command = 'monitor' and status = 'ok'
        having max(started_at) is not null
        """,
    )
    if runs.is_empty():
        return Section("alerts", title, text, filled_by=MONITOR)
    when = f"Monitored {runs.item(0, 'started_at'):%Y-%m-%d %H:%M} UTC"
    rows = rows_of(con, "serving.alerts_latest", "select * from serving.alerts_latest order by cause, subject")
    if rows.is_empty():
        return Section("alerts", title, text, notes=(f"{when}: no alerts.",))
    ordered = sorted(rows.to_dicts(), key=lambda row: SEVERITIES.index(row["severity"]))
    counts = [(severity, sum(row["severity"] == severity for row in ordered)) for severity in SEVERITIES]
    table = Table(
        title,
        ("severity", "what", "found", "what to do"),
        tuple((row["severity"], f"{row['cause']}: {row['subject']}", row["message"], row["advice"]) for row in ordered),
        labels=4,
        marked=frozenset(place for place, row in enumerate(ordered) if row["severity"] == "critical"),
    )
    told = listed([f"{n} {severity}" for severity, n in counts if n])
    urgent = counts[0][1]
    return Section(
        "alerts",
        title,
        text,
        table=table,
        notes=(f"{when}, for {rows.item(0, 'as_of_date')}: {told}.",),
        warnings=(f"{plural(urgent, 'alert')} {'is' if urgent == 1 else 'are'} critical.",) if urgent else (),
    )


def _newest(con: duckdb.DuckDBPyConnection, *kinds: str) -> pl.DataFrame:
    return rows_of(
        con,
        "ml.drift_metrics",
        """
        select * from ml.drift_metrics
        where run_id = (select max(run_id) from ml.drift_metrics) and kind in $kinds
        order by kind, subject, metric
        """,
        kinds=list(kinds),
    )


def drift(con: duckdb.DuckDBPyConnection) -> Section:
    """Features and scores that are furthest from what the model was trained on."""
    title = "Drift"
    text = (
        "How far the features and scores are from those of the training dates: the population stability index (PSI) "
        "against its limit, which is higher for what always moved much. Beyond the line an alert is raised."
    )
    rows = _newest(con, "feature", "score")
    psi = rows.filter(pl.col("metric") == "psi", pl.col("threshold") > 0) if rows.height else rows
    if psi.is_empty():
        return Section("drift", title, text, filled_by=MONITOR, once="a model serves")
    psi = psi.with_columns(relative=pl.col("value") / pl.col("threshold")).sort("relative", "subject", descending=True)
    over = psi.filter(pl.col("is_alert"))
    top = psi.row(0, named=True)
    nearest = f"{top['subject']} has PSI {number(top['value'])} of {number(top['threshold'])}"
    named = listed(over["subject"].head(5).to_list()) if over.height else ""
    says = (
        f"{over.height} of {plural(psi.height, 'figure')} are beyond the limit: {named}."
        if over.height
        else f"None of {plural(psi.height, 'figure')} is beyond its limit; the nearest: {nearest}."
    )
    others = {(row["subject"], row["metric"]): row for row in rows.to_dicts()}

    def missing(subject: str) -> str:
        row = others.get((subject, "missing_share"))
        return "-" if row is None else f"{share(row['value'])} ({share(row['reference'])})"

    def distance(subject: str) -> str:
        row = others.get((subject, "jensen_shannon"))
        return "-" if row is None else number(row["value"])

    table = Table(
        "Drift by feature",
        ("feature", "PSI", "limit", "largest in training", "Jensen-Shannon", "missing (in training)"),
        tuple(
            (
                row["subject"],
                number(row["value"]),
                number(row["threshold"]),
                number(row["reference"]),
                distance(row["subject"]),
                missing(row["subject"]),
            )
            for row in psi.to_dicts()
        ),
        marked=frozenset(place for place, row in enumerate(psi.to_dicts()) if row["is_alert"]),
    )
    shown = psi.head(FEATURES).select("value", label="subject", limit="threshold")
    drawing = charts.bars(shown, "PSI against training", ".2f", limit_title="limit")
    return Section("drift", title, text, (Figure(drawing, says, table),))


def vital_signs(con: duckdb.DuckDBPyConnection) -> Section:
    """Volumes, prices and gaps in the data, against what is usual."""
    title = "Vital signs"
    text = (
        "The shop's last 28 days beside what was usual before, and how fresh and clean the data is, whatever model "
        "serves. Bold: far from usual, or beyond its limit."
    )
    rows = _newest(con, "volume", "freshness", "quality")
    if rows.is_empty():
        return Section("signs", title, text, filled_by=MONITOR)
    found = rows.to_dicts()
    table = Table(
        title,
        ("sign", "of", "now", "usually", "change", "limit"),
        tuple(
            (
                row["metric"].replace("_", " "),
                row["subject"],
                _sized(row["value"]),
                _sized(row["reference"]),
                f"{row['value'] / row['reference'] - 1:+.0%}" if row["value"] is not None and row["reference"] else "-",
                _sized(row["threshold"]),
            )
            for row in found
        ),
        labels=2,
        marked=frozenset(place for place, row in enumerate(found) if row["is_alert"]),
    )
    return Section("signs", title, text, table=table)


def _sized(value: float | None) -> str:
    return number(value, 0 if value is not None and abs(value) >= 1000 else 3)


def realised(con: duckdb.DuckDBPyConnection) -> Section:
    """What became of the users behind the newest served scores whose horizon is over."""
    title = "What became of served scores"
    text = "The newest scores that were served out of time and whose horizon is over, against what really happened."
    rows = _newest(con, "performance")
    if rows.is_empty():
        watched = _newest(con, "volume")
        if watched.is_empty():
            return Section("realised", title, text, filled_by=MONITOR)
        return Section("realised", title, text, notes=("No served score's horizon is over yet.",))
    table = Table(
        title,
        ("scores for", "figure", "value"),
        tuple((row["subject"], row["metric"].replace("_", " "), number(row["value"])) for row in rows.to_dicts()),
        labels=2,
    )
    return Section("realised", title, text, table=table)


SECTIONS: tuple[MakeSection, ...] = (alerts, drift, vital_signs, realised)
