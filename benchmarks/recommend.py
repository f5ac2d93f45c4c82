"""How long recommendations for many users take, and how much memory, on a synthetic shop.

Users have 1 to 30 purchases (10 on average) of 20,000 products, by a taste of their own and by popularity, in 180 days.
Everything but reading the warehouse and writing the table is timed, as `lcm-ml recommend` does it: fit and learn at an
earlier date, fit at the date, list ten products with their reasons for everybody.

    LCM_THREADS=2 .venv/bin/python benchmarks/recommend.py --users 100000 [--seed 0]
"""

import argparse
import json
import resource
import time
from datetime import date, timedelta

import duckdb
import numpy as np
import polars as pl

from lcm_ml.insights.recommend.history import make_history
from lcm_ml.insights.recommend.recommend import dated, recommended, taught
from lcm_ml.insights.recommend.settings import Settings

AS_OF, DAYS, PRODUCTS, CATEGORIES = date(2026, 1, 1), 180, 20_000, 200
HORIZON = timedelta(days=28)


def shop(n_users: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Interactions and products."""
    rng = np.random.default_rng(seed)
    lines = np.repeat(np.arange(n_users), np.clip(rng.geometric(0.1, n_users), 1, 30))
    in_category = PRODUCTS // CATEGORIES
    taste = rng.integers(CATEGORIES, size=(n_users, 3))
    category = np.where(
        rng.random(len(lines)) < 0.7,
        taste[lines, rng.integers(3, size=len(lines))],
        rng.integers(CATEGORIES, size=len(lines)),
    )
    place = np.minimum(rng.zipf(1.3, len(lines)), in_category) - 1
    product = category * in_category + place
    age = rng.integers(1, DAYS, len(lines))
    names = pl.Series([f"P{i:05d}" for i in range(PRODUCTS)])
    users = pl.Series([f"U{i:07d}" for i in range(n_users)])
    interactions = pl.DataFrame(
        {
            "user_id": users.gather(lines),
            "product_id": names.gather(product),
            "event_date": pl.select(pl.lit(AS_OF) - pl.duration(days=pl.Series(age)))["literal"],
            "quantity": 1.0,
            "amount": 10.0,
            "discount": 0.0,
        }
    ).with_columns(event_type=pl.lit("purchase"))
    kind = pl.Series([f"kind {i // in_category}" for i in range(PRODUCTS)])
    products = pl.DataFrame({"product_id": names, "department": kind, "category": kind, "title": names}).with_columns(
        brand=pl.lit(None, pl.String), price=pl.Series(np.round(rng.lognormal(2, 1, PRODUCTS), 2))
    )
    return interactions.unique(["user_id", "product_id", "event_date"]), products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    interactions, products = shop(options.users, options.seed)
    nothing = pl.lit(None, pl.String)
    accounts = interactions.select(pl.col("user_id").unique()).with_columns(
        country=nothing, acquisition_channel=nothing
    )
    con = duckdb.connect()
    con.register("interactions", interactions.to_arrow())
    made_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds: dict[str, float] = {}
    started = last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name], last = round(now - last, 1), now

    before = AS_OF - HORIZON
    window = interactions.filter(pl.col("event_date") >= before).select("user_id", "product_id").unique()
    lesson = dated(make_history(con, "from interactions", products, accounts, before, Settings()), window, options.seed)
    lap("fit, earlier date")
    ranker = taught([lesson], options.seed)
    del lesson
    lap("learn to rank")
    now = dated(make_history(con, "from interactions", products, accounts, AS_OF, Settings()), None, options.seed)
    lap("fit, the date")
    rows = sum(part.height for part in recommended(now, ranker, 10))
    lap("list and explain")
    print(
        json.dumps(
            {
                "users": options.users,
                "lines": interactions.height,
                "rows": rows,
                "seconds": seconds,
                "total_seconds": round(time.perf_counter() - started, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "peak_mb_before": round(made_mb),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
