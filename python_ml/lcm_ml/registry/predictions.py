"""The champion's predictions of its test date, as `fit` stored them."""

from dataclasses import dataclass
from datetime import date

import duckdb
import polars as pl

from lcm_ml.churn.metrics import Outcome
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import read
from lcm_ml.registry.versions import FIT, find_version


@dataclass(frozen=True)
class Tested:
    """What a version said about its test date, and what happened."""

    model_version: str
    as_of_date: date
    outcome: Outcome


def champion_test(con: duckdb.DuckDBPyConnection) -> Tested:
    """Of the version whose test stands for the champion.

    Raises:
        LcmError: when there is no champion, or its predictions are gone.
    """
    champion = find_version(con)
    evaluated = champion["evaluated_version"] or champion["model_version"]
    rows = read(
        con,
        """
        select user_id, as_of_date, churn_probability, is_churned
        from ml.evaluation_predictions
        where model_version = $version
        order by user_id
        """,
        {"version": evaluated},
    )
    if rows.is_empty():
        raise LcmError(f"ml.evaluation_predictions has no rows of {evaluated}", FIT)
    probability = rows.get_column("churn_probability").to_numpy()
    y = rows.get_column("is_churned").cast(pl.Float64).to_numpy()
    outcome = Outcome(rows.get_column("user_id").to_numpy(), y, probability, probability)
    return Tested(evaluated, rows.item(0, "as_of_date"), outcome)
