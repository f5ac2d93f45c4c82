"""What became of the scores that were really served, once their horizon is over."""

from dataclasses import dataclass
from datetime import date

import duckdb
import polars as pl

from lcm_ml.churn.metrics import Measured, Outcome, Resamples, measure_outcome
from lcm_ml.frames.frame import read

REALISED_METRICS = ("auc", "average_precision", "log_loss", "ece", "calibration_slope", "top_decile_lift", "base_rate")
MIN_USERS = 50


@dataclass(frozen=True)
class Realised:
    """The served scores of one date and version: their figures, and the churn they expected."""

    as_of_date: date
    model_version: str
    users: int
    expected_rate: float
    figures: dict[str, Measured]


def realised_scores(con: duckdb.DuckDBPyConnection, until: date, resamples: int = 300) -> list[Realised]:
    """Figures of every date that was served out of time and whose horizon ended by `until`, newest first.

    The outcome is what marts.purchase_days says of [as_of_date, as_of_date + horizon), on the grid or off it.
    """
    rows = read(
        con,
        """
        with served as (
            select user_id, as_of_date, horizon_days, model_version, churn_probability
            from ml.churn_scores
            where is_served and not is_in_training_data and as_of_date + horizon_days <= $until
        ),

        dates as (
            select distinct as_of_date, as_of_date + horizon_days as horizon_ends_on
            from served
        ),

        -- As in user_churn_labels: told with the links that were known when the horizon ended.
        purchasers as (
            select distinct
                dates.as_of_date,
                case
                    when days.linked_date < dates.horizon_ends_on then days.linked_user_id else days.user_id
                end as user_id
            from dates
            inner join marts.purchase_days as days
                on days.purchase_date >= dates.as_of_date and days.purchase_date < dates.horizon_ends_on
        )

        select
            served.user_id,
            served.as_of_date,
            served.model_version,
            served.churn_probability,
            purchasers.user_id is null as is_churned
        from served
        left join purchasers
            on purchasers.user_id = served.user_id and purchasers.as_of_date = served.as_of_date
        order by served.as_of_date desc, served.user_id
        """,
        {"until": until},
    )
    found = []
    for (day, version), part in rows.group_by("as_of_date", "model_version", maintain_order=True):
        y = part.get_column("is_churned").cast(pl.Float64).to_numpy()
        if len(y) < MIN_USERS or not 0 < y.sum() < len(y):
            continue
        p = part.get_column("churn_probability").to_numpy()
        outcome = Outcome(part.get_column("user_id").to_numpy(), y, p, p)
        figures = measure_outcome(outcome, Resamples([outcome.users], 0, resamples))
        kept = {name: figures[name] for name in REALISED_METRICS}
        found.append(Realised(day, str(version), len(y), float(p.mean()), kept))
    return found
