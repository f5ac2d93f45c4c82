"""Experiments: what each showed, and whether its arms were split as planned."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts
from lcm_ml.reporting.section import Figure, MakeSection, Section, Table, count, number, plural, rows_of, share

COMMAND = "lcm-ml experiment analyse"
SRM_LIMIT = 0.001


def experiments(con: duckdb.DuckDBPyConnection) -> Section:
    """The relative effect of every experiment on its primary metric, with its interval and its decision."""
    title = "Experiments"
    text = (
        "Effect of each experiment on its primary metric, relative to control, with the interval that its looks "
        "allow: where the interval holds 0, no difference is shown. Bold: the arms are not as large as planned, and "
        "nothing may be concluded."
    )
    found = rows_of(
        con,
        "serving.experiments_latest",
        "select * from serving.experiments_latest order by starts_on desc, experiment_id",
    )
    if found.is_empty():
        return Section("experiments", title, text, filled_by="lcm-ml experiment design")
    table = Table(
        title,
        ("experiment", "metric", "status", "days", "users", "effect", "interval", "sample ratio p", "decision"),
        tuple(
            (
                row["experiment_id"],
                row["metric"],
                row["status"],
                f"{row['starts_on']} to {row['ends_on']}",
                count(row["n_users"]),
                _signed(row["relative_effect"]),
                "-"
                if row["relative_ci_low"] is None
                else f"{_signed(row['relative_ci_low'])} to {_signed(row['relative_ci_high'])}",
                number(row["srm_p_value"]),
                row["decision"] or "-",
            )
            for row in found.to_dicts()
        ),
        labels=4,
        marked=frozenset(place for place, row in enumerate(found.to_dicts()) if (row["srm_p_value"] or 1) < SRM_LIMIT),
    )
    told = f"{plural(found.height, 'experiment')}, {found.filter(pl.col('status') == 'running').height} running"
    valid = pl.col("relative_ci_low").is_not_null() & (pl.col("srm_p_value") >= SRM_LIMIT)
    shown = found.filter(valid).select(
        label="experiment_id",
        name=pl.lit("relative effect"),
        value="relative_effect",
        ci_low="relative_ci_low",
        ci_high="relative_ci_high",
    )
    if shown.is_empty():
        return Section("experiments", title, text, table=table, notes=(f"{told}; none has an effect to show yet.",))
    drawing = charts.dots(shown, "effect relative to control", "+.0%", ("relative effect",), zero=True)
    apart = shown.filter((pl.col("ci_low") > 0) | (pl.col("ci_high") < 0)).height
    says = f"{told}. {plural(apart, 'interval')} of {shown.height} {'lies' if apart == 1 else 'lie'} apart from 0."
    return Section("experiments", title, text, (Figure(drawing, says, table),))


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{'+' if value >= 0 else ''}{share(value)}"


SECTIONS: tuple[MakeSection, ...] = (experiments,)
