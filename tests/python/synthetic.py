"""A churn frame in memory whose truth is known."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from lcm_ml.frames.frame import Frame, make_frame

STEP = 28
LAST = date(2018, 1, 1)


def churn_data(dates: int = 6, users: int = 300, seed: int = 0) -> pl.DataFrame:
    """Users at several dates: recency, counts with gaps, a flag, a category, a constant, and noise."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(dates):
        recency = rng.gamma(1.5, 12, users)
        orders = rng.poisson(6, users).astype(float)
        uses_app = rng.random(users) < 0.4
        z = -2.4 + 0.06 * recency - 0.12 * orders + 0.6 * uses_app
        churned = rng.random(users) < 1 / (1 + np.exp(-z))
        frames.append(
            pl.DataFrame(
                {
                    "user_id": [f"u{i:05d}" for i in range(users)],
                    "as_of_date": [LAST - timedelta(days=STEP * (dates - 1 - k))] * users,
                    "is_churned": churned,
                    "days_since_last_purchase": recency,
                    "orders": pl.Series(np.where(rng.random(users) < 0.1, np.nan, orders)).fill_nan(None),
                    "uses_app": uses_app,
                    "channel": np.where(uses_app, "app", rng.choice(["web", "shop"], users)),
                    "same": 1,
                    "noise": rng.normal(size=users),
                }
            )
        )
    return pl.concat(frames)


def churn_frame(dates: int = 6, users: int = 300, seed: int = 0) -> Frame:
    """churn_data as a Frame with a horizon of 28 days."""
    return make_frame(churn_data(dates, users, seed), STEP)
