"""Which groups of features made in Python help out of time."""

from typing import Any

import duckdb
import polars as pl

from lcm_ml.reporting import charts
from lcm_ml.reporting.section import Figure, MakeSection, Section, Table, listed, plural, rows_of

ENRICH = "lcm-ml enrich"
SPLITS = {"choice": "dates that decide", "last_date": "last date"}
COMPARISONS = {"alone": "added", "removed": "in the mart", "beside_kept": "beside the others"}


def ablation(con: duckdb.DuckDBPyConnection) -> Section:
    """Log loss with each group less without it, on the dates that decide and on the one that had no say."""
    title = "Do more features help?"
    text = (
        "The same model with a group of features and without it, predicting the same users from earlier dates alone: "
        "log loss with it less without it, so that what lies left of 0 helps. A group is kept when its whole interval "
        "on the dates that decide lies there. The last labelled date had no say."
    )
    rows = rows_of(
        con,
        "ml.feature_ablation",
        """
        select * from ml.feature_ablation
        where run_id = (select max(run_id) from ml.feature_ablation)
        order by comparison = 'removed', comparison = 'beside_kept', feature_group, model_name, split, metric
        """,
    ).to_dicts()
    if not rows:
        return Section("ablation", title, text, filled_by=ENRICH)
    own = [row for row in rows if row["is_deciding"] and row["metric"] == "log_loss"]
    points = pl.DataFrame(
        [
            {
                "label": f"{row['feature_group']}, {COMPARISONS[row['comparison']]}",
                "name": SPLITS[row["split"]],
                "value": row["difference"],
                "ci_low": row["ci_low"],
                "ci_high": row["ci_high"],
            }
            for row in own
        ]
    )
    kept = sorted({row["feature_group"] for row in own if row["is_kept"] and row["comparison"] == "alone"})
    tried = sorted({row["feature_group"] for row in own if row["is_kept"] is not None and row["comparison"] == "alone"})
    choice = next((row["n_dates"] for row in own if row["split"] == "choice"), 0)
    says = (
        f"{own[0]['model_name']} over {plural(choice, 'date')}: of {plural(len(tried), 'candidate group')} "
        f"{listed(kept) + (' is' if len(kept) == 1 else ' are') if kept else 'none is'} kept."
    )
    auc = {_key(row): row for row in rows if row["metric"] == "auc"}
    table = Table(
        "With the group less without it",
        ("group", "measured", "model", "on", "features", "log loss", "AUC", "kept"),
        tuple(
            (
                row["feature_group"],
                COMPARISONS[row["comparison"]],
                row["model_name"],
                SPLITS[row["split"]],
                str(row["n_features"]),
                _change(row),
                _change(auc[_key(row)]),
                {True: "yes", False: "no", None: "-"}[row["is_kept"]],
            )
            for row in rows
            if row["metric"] == "log_loss"
        ),
        labels=4,
    )
    drawing = charts.dots(points, "log loss with the group less without it", "+.4f", list(SPLITS.values()), line=34)
    return Section("ablation", title, text, (Figure(drawing, says, table),))


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["feature_group"], row["comparison"], row["model_name"], row["split"]


def _change(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return "-"
    text = f"{row['difference']:+.4f}"
    return text if row["ci_low"] is None else f"{text}\n{row['ci_low']:+.4f} to {row['ci_high']:+.4f}"


SECTIONS: tuple[MakeSection, ...] = (ablation,)
