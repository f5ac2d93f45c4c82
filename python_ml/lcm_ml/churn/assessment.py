"""Everything that is measured on predicted dates, as rows of the ml tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl

from lcm_ml.churn import records
from lcm_ml.churn.evaluation import Fold
from lcm_ml.churn.metrics import Resamples
from lcm_ml.churn.profit import Costs, profit_curve
from lcm_ml.churn.segments import segment_rows
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.groups import user_groups


@dataclass(frozen=True)
class Yardstick:
    """What figures are measured with: the groups of users, the costs of a contact, the smallest group shown."""

    groups: pl.DataFrame
    costs: Costs
    smallest: int


def read_yardstick(con: duckdb.DuckDBPyConnection, frame: Frame, settings: dict[str, Any]) -> Yardstick:
    """From the marts and the settings of the last build."""
    groups = user_groups(con, frame.dates())
    return Yardstick(groups, Costs.from_settings(settings), int(settings["min_group_size"]))


def assessment_tables(
    run_id: str,
    folds: Sequence[Fold],
    draws: Resamples,
    yardstick: Yardstick,
    versions: dict[str, str] | None = None,
) -> dict[str, pl.DataFrame]:
    """Predictions, calibration, lift, figures by group and profit of these dates, table name to rows."""
    segments, profits = [], []
    for fold in folds:
        day = fold.split.test
        segments += segment_rows(
            run_id, fold, yardstick.groups.filter(pl.col("as_of_date") == day), draws, yardstick.smallest
        )
        profits += [
            profit_curve(fold.outcomes[name], yardstick.costs, draws).with_columns(
                run_id=pl.lit(run_id), model_name=pl.lit(name), as_of_date=pl.lit(day)
            )
            for name in fold.fitted
        ]
    return {
        "evaluation_predictions": pl.concat(records.prediction_rows(run_id, fold, versions) for fold in folds),
        "calibration_bins": records.rows_frame(
            [row for fold in folds for row in records.calibration_rows(run_id, fold)]
        ),
        "lift_bins": records.rows_frame([row for fold in folds for row in records.lift_rows(run_id, fold)]),
        "segment_metrics": records.rows_frame(segments),
        "profit_curve": pl.concat(profits),
    }
