"""From what users purchased to the rows of the value tables: which dates train, calibrate and evaluate what."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

import polars as pl

from lcm_ml.frames.purchase_history import PurchaseReader
from lcm_ml.frames.splits import observed_before
from lcm_ml.insights import purchase_model, spend_trees, value
from lcm_ml.insights.purchase_model import PurchaseModel, fit_purchase_model
from lcm_ml.insights.value_evaluation import by_decile, evaluate, served_model
from lcm_ml.warehouse.packed import Packed, Rows

TABLES = ("user_values", "user_lifetime_values", "value_metrics", "value_deciles")
PAST_DATES = 6
"""As_of_dates that trees are trained on: more would be older without being new users."""
MAX_TRAINING_ROWS, MAX_EVALUATED_USERS = 100_000, 100_000
"""In a large shop a share of the users trains and is evaluated; all are given values."""


@dataclass(frozen=True)
class Judged:
    """One horizon: what was found out of time, and who serves.

    Attributes:
        expected_purchases, expected_amount: of all users together, by what serves; 0 until everybody has a value.
    """

    horizon_days: int
    evaluated_at: date | None
    figures: pl.DataFrame
    deciles: pl.DataFrame
    served: str
    notes: tuple[str, ...] = ()
    expected_purchases: float = 0.0
    expected_amount: float = 0.0


@dataclass(frozen=True)
class Values:
    """Everything a run of `lcm-ml value` finds. `model` is None where there is too little to fit it to.

    Attributes:
        values: rows of ml.user_values, by horizon and user.
    """

    as_of: date
    users: pl.DataFrame
    model: PurchaseModel | None
    judged: tuple[Judged, ...]
    values: Packed
    lifetime: pl.DataFrame
    discount_rate: float
    refunded_share: float
    notes: tuple[str, ...] = ()


def find_values(
    reader: PurchaseReader, moment: date, discount_rate: float, seed: int, advance: Callable[[str, float], None]
) -> Values:
    """Fit, evaluate at the last date whose horizon is over, and give everybody a value.

    Args:
        reader: gives the frames of a date.
        moment: the as_of_date.
        discount_rate: a year's, of the lifetime value.
        seed: of trees, simulations and resamples.
        advance: told how far it is.
    """
    advance("reading", 0.0)
    refunded = reader.refunded_share(moment)
    users = reader.summaries([moment])
    if not purchase_model.is_enough(users):
        empty = pl.DataFrame()
        return Values(
            moment, users, None, (), Packed(), empty, discount_rate, refunded, (f"{purchase_model.TOO_FEW}.",)
        )
    advance("fitting", 0.1)
    model = fit_purchase_model(users, seed)
    quantiles = model.quantiles(users, value.HORIZONS, seed)
    judged, values = [], Packed(("horizon_days", "user_id"))
    for place, days in enumerate(value.HORIZONS):
        advance(f"{days} days, out of time", 0.2 + 0.2 * place)
        found = _judged(reader, moment, days, users.height, seed)
        advance(f"{days} days", 0.3 + 0.2 * place)
        past = _past(reader, moment, days, users.height) if found.evaluated_at else None
        tried = spend_trees.NAME in found.figures["model_name"]
        features = reader.features_at(moment, users.height)
        forecast = value.forecast(users, features, model, quantiles, past, days, seed, use_trees=tried)
        rows = value.value_rows(forecast, days, found.served)
        values.add(rows)
        served = rows.filter("is_served").select(pl.sum("expected_purchases", "expected_amount")).row(0, named=True)
        judged.append(replace(found, **served))
    return Values(
        moment,
        users,
        model,
        tuple(judged),
        values,
        model.lifetime(users, discount_rate),
        discount_rate,
        refunded,
    )


def _past(reader: PurchaseReader, moment: date, days: int, buyers: int) -> value.Past | None:
    """What of the horizon was known at `moment`."""
    dates = observed_before(reader.dates, moment, days)[-PAST_DATES:]
    if not dates:
        return None
    share = min(1.0, MAX_TRAINING_ROWS / max(1, buyers * len(dates)))
    return value.Past(
        reader.summaries(dates, share), reader.features(dates, share), reader.outcomes(dates, days, share)
    )


def _judged(reader: PurchaseReader, moment: date, days: int, buyers: int, seed: int) -> Judged:
    """Forecast the last date whose horizon is over from what was known then, and compare."""
    empty = evaluate({}, pl.DataFrame())
    known = observed_before(reader.dates, moment, days)
    alone = Judged(days, None, empty, pl.DataFrame(), purchase_model.NAME)
    if not known:
        note = f"{days} days: no as_of_date has {days} observed days after it; BG/NBD serves, not validated here"
        return _with_note(alone, note)
    at = known[-1]
    before = reader.buyers_before(at)
    share = min(1.0, MAX_EVALUATED_USERS / max(1, before))
    users = reader.summaries([at], share)
    if not purchase_model.is_enough(users):
        return _with_note(alone, f"{days} days: too few users purchased before {at} to validate; BG/NBD serves")
    model = fit_purchase_model(users, seed)
    past = _past(reader, at, days, buyers)
    quantiles = model.quantiles(users, [days], seed)
    features = reader.features_at(at, users.height, share)
    forecasts = value.forecast(users, features, model, quantiles, past, days, seed)
    outcome = value.with_outcomes(users.select(value.KEYS), reader.outcomes([at], days, share))
    compared = value.compared(forecasts, users, days)
    figures = evaluate(compared, outcome, seed)
    notes = []
    if past is None:
        notes.append(f"{days} days: no earlier date's horizon was over at {at}, so the intervals are not calibrated")
    if forecasts.trees is None:
        notes.append(f"{days} days: too little was known at {at} to train trees; BG/NBD serves")
    elif forecasts.trees.calibrated_by == "user":
        notes.append(
            f"{days} days: too few dates were known at {at} to calibrate the trees' intervals on a later one: users "
            "set aside calibrate them"
        )
    return Judged(days, at, figures, by_decile(compared, outcome), served_model(figures), tuple(notes))


def _with_note(judged: Judged, note: str) -> Judged:
    return Judged(judged.horizon_days, judged.evaluated_at, judged.figures, judged.deciles, judged.served, (note,))


def value_tables(found: Values) -> dict[str, Rows]:
    """The rows of ml.user_values, user_lifetime_values, value_metrics and value_deciles, without their run_id."""
    if found.model is None:
        return {name: pl.DataFrame() for name in TABLES}
    constants = {"discount_rate": found.discount_rate, "horizon_months": purchase_model.LIFETIME_MONTHS}
    return {
        "user_values": found.values,
        "user_lifetime_values": found.lifetime.with_columns(
            pl.lit(constant).alias(name) for name, constant in constants.items()
        ),
        "value_metrics": _dated([(judged, judged.figures) for judged in found.judged]),
        "value_deciles": _dated([(judged, judged.deciles) for judged in found.judged]),
    }


def _dated(parts: list[tuple[Judged, pl.DataFrame]]) -> pl.DataFrame:
    return pl.concat(
        [
            rows.with_columns(
                pl.lit(judged.evaluated_at, pl.Date).alias("as_of_date"),
                pl.lit(judged.horizon_days, pl.Int32).alias("horizon_days"),
            )
            for judged, rows in parts
            if rows.height
        ]
        or [pl.DataFrame()]
    )
