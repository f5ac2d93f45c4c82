"""Silences between purchases: how likely the next purchase is, by the days since the last one."""

from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.intervals import wilson

FloatArray = npt.NDArray[np.float64]

DAILY, WEEKLY = 28, 84
"""Days of silence up to which the hazard is told by day, and by week; beyond, by four weeks."""
SAMPLED_USERS, DRAWS = 20_000, 200
HAZARDS = {
    "days_since_last_purchase": pl.Int32,
    "days_to": pl.Int32,
    "at_risk": pl.Int64,
    "exposure_days": pl.Int64,
    "purchases": pl.Int64,
    "hazard": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "probability_back": pl.Float64,
    "back_ci_low": pl.Float64,
    "back_ci_high": pl.Float64,
}


def silences(purchases: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """The silence after each day of purchase.

    Args:
        purchases: user_id, purchase_date, sorted by both, each once, all before `as_of`.
        as_of: the silences that last are known up to the day before.

    Returns:
        The same rows with days (to the next day of purchase, or to `as_of`) and is_over (there is a next one).
    """
    same = pl.col("user_id") == pl.col("user_id").shift(-1)
    following = pl.when(same).then(pl.col("purchase_date").shift(-1))
    return purchases.with_columns(
        days=(following.fill_null(as_of) - pl.col("purchase_date")).dt.total_days().cast(pl.Int32),
        is_over=following.is_not_null(),
    )


def hazards(quiet: pl.DataFrame, horizon_days: int, smallest: int = 1, seed: int = 0) -> pl.DataFrame:
    """The chance of a purchase on a day, of the silences that have reached it.

    A discrete hazard (Singer and Willett 1993, Journal of Educational Statistics 18): purchases on day k over silences
    with no purchase on the days 1 to k - 1 after the last one. `probability_back` is of a purchase on the days k to
    k + horizon_days - 1, by the product of the daily hazards: what days_since_last_purchase alone says about coming
    back. A silence that lasts is watched up to the day before as_of_date.

    Intervals are Wilson's. Several silences of one user are not independent, so that their number is divided by the
    design effect (Kish 1965), which a bootstrap over users measures; in a large shop on SAMPLED_USERS of them.

    Args:
        quiet: of `silences`.
        horizon_days: days in which to come back.
        smallest: days that fewer silences reached are left out.
        seed: of the bootstrap.

    Returns:
        HAZARDS: one row per day, and bins of days further on; shares are per day. probability_back is null where the
        horizon reaches beyond what was seen.
    """
    days, over = quiet["days"].to_numpy(), quiet["is_over"].to_numpy()
    purchases, reached = _by_day(days, over)
    last = int(np.flatnonzero(reached >= max(smallest, 1))[-1]) if (reached[1:] >= max(smallest, 1)).any() else 0
    if not last:
        return pl.DataFrame(schema=HAZARDS)
    starts = _bin_starts(last)
    ends = np.r_[starts[1:] - 1, last]
    hazard, back = _rates(purchases, reached, starts, ends, horizon_days)
    of_hazard, of_back = _effective(quiet, starts, ends, horizon_days, seed)
    exposure = _sums(reached, starts, ends)
    return (
        pl.DataFrame(
            {
                "days_since_last_purchase": starts,
                "days_to": ends,
                "at_risk": reached[starts],
                "exposure_days": exposure,
                "purchases": _sums(purchases, starts, ends),
                "hazard": hazard,
                "probability_back": back,
                "n_hazard": exposure * of_hazard,
                "n_back": reached[starts] * of_back,
            },
            nan_to_null=True,
        )
        .with_columns(
            **dict(zip(("ci_low", "ci_high"), wilson(pl.col("hazard"), pl.col("n_hazard")), strict=True)),
            **dict(
                zip(("back_ci_low", "back_ci_high"), wilson(pl.col("probability_back"), pl.col("n_back")), strict=True)
            ),
        )
        .select(pl.col(name).cast(kind) for name, kind in HAZARDS.items())
    )


def _by_day(days: npt.NDArray[np.int32], over: npt.NDArray[np.bool_], weights: FloatArray | None = None) -> FloatArray:
    """Purchases on each day after the last one, and silences that reached it; day 0 is empty. Shape (2, days + 1)."""
    size = int(days.max(initial=0)) + 1
    purchases = np.bincount(days[over], None if weights is None else weights[over], size).astype(float)
    watched = np.bincount(days - ~over, weights, size).astype(float)
    reached = watched[::-1].cumsum()[::-1]
    reached[0] = 0.0
    return np.stack([purchases, reached])


def _bin_starts(last: int) -> npt.NDArray[np.int64]:
    starts = np.r_[1 : DAILY + 1, DAILY + 1 : WEEKLY + 1 : 7, WEEKLY + 1 : max(last, WEEKLY) + 1 : 28]
    return np.asarray(starts[starts <= last], dtype=np.int64)


def _sums(by_day: FloatArray, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> FloatArray:
    total = np.r_[0.0, by_day.cumsum()]
    return np.asarray(total[ends + 1] - total[starts])


def _rates(
    purchases: FloatArray,
    reached: FloatArray,
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    horizon_days: int,
) -> tuple[FloatArray, FloatArray]:
    """Hazard of each bin, and the probability of a purchase in the horizon from its first day on; NaN: not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = _sums(purchases, starts, ends) / _sums(reached, starts, ends)
        stays = np.log1p(-np.where(reached > 0, purchases / reached, np.nan))
        stays[0] = 0.0
        # The days that are known go on until nobody is left to be watched; a silence that surely ends has log 0.
        known = np.where(np.isnan(stays), np.nan, np.maximum(stays, -50.0)).cumsum()
        until = starts + horizon_days - 1
        after = np.where(until < len(known), known[np.minimum(until, len(known) - 1)], np.nan)
        back = np.abs(np.expm1(after - known[starts - 1]))
    return hazard, back


def _effective(
    quiet: pl.DataFrame, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], horizon_days: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Independent silences that one silence is worth, at most 1, for the hazards and for the probabilities."""
    rng = np.random.default_rng(seed)
    number = quiet["user_id"].rle_id().to_numpy().astype(np.int64)
    users = int(number.max(initial=-1)) + 1
    if users > SAMPLED_USERS:
        taken = np.zeros(users, dtype=bool)
        taken[rng.choice(users, SAMPLED_USERS, replace=False)] = True
        rows = taken[number]
        number, quiet = number[rows], quiet.filter(pl.Series(rows))
    days, over = quiet["days"].to_numpy(), quiet["is_over"].to_numpy()
    size = max(int(ends[-1]) + horizon_days, int(days.max())) + 1

    def padded(weights: FloatArray | None) -> FloatArray:
        found = _by_day(days, over, weights)
        return np.pad(found, ((0, 0), (0, size - found.shape[1])))

    purchases, reached = padded(None)
    point = _rates(purchases, reached, starts, ends, horizon_days)
    drawn = []
    for _ in range(DRAWS):
        bought, left = padded(rng.poisson(1.0, users)[number].astype(float))
        drawn.append(_rates(bought, left, starts, ends, horizon_days))
    share = []
    for place, base in enumerate((_sums(reached, starts, ends), reached[starts])):
        rate = point[place]
        values = np.stack([draw[place] for draw in drawn])
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.var(np.where(np.isfinite(values), values, rate), axis=0)
            worth = rate * (1 - rate) / variance / base
        share.append(np.where(np.isfinite(worth), np.minimum(worth, 1.0), 1.0))
    return share[0], share[1]
