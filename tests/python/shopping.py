"""Purchases in memory whose structure is known: two tastes, a pair bought together, a strict rhythm."""

from datetime import date

import duckdb
import numpy as np
import polars as pl

from lcm_ml.insights.recommend.history import History, make_history
from lcm_ml.insights.recommend.settings import Settings

AS_OF = date(2025, 7, 1)
PER_TASTE = 20
RHYTHM_USER, RHYTHM_PRODUCT = "rhythm", "coffee"
PAIR = ("hammer", "nails")
DAYS = 180


def catalogue() -> pl.DataFrame:
    """40 products of two tastes in four categories, the pair, the coffee, and one that nobody ever bought."""
    tastes = [
        (f"{taste}{i:02d}", taste, f"{taste} {'odd' if i % 2 else 'even'}", f"{taste} thing {i}")
        for taste in ("red", "blue")
        for i in range(PER_TASTE)
    ]
    others = [
        *((product, "tools", "tools", f"{product} of iron") for product in PAIR),
        (RHYTHM_PRODUCT, "food", "food", "coffee beans"),
        ("rednew", "red", "red odd", "red thing new"),
    ]
    return pl.DataFrame(
        [*tastes, *others], schema=["product_id", "department", "category", "title"], orient="row"
    ).with_columns(brand=pl.lit(None, pl.String), price=pl.lit(2.0))


def purchases(users: int = 120, seed: int = 0) -> pl.DataFrame:
    """Users with an even number like red things, the others blue ones; every sixth buys the pair on one day."""
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(users):
        taste = "red" if u % 2 == 0 else "blue"
        for _ in range(12):
            age = int(rng.integers(1, DAYS))
            rows.append((f"u{u:03d}", f"{taste}{int(rng.integers(PER_TASTE)):02d}", age))
        if u % 6 < 2:
            age = int(rng.integers(1, DAYS))
            rows += [(f"u{u:03d}", product, age) for product in PAIR]
    rows += [(RHYTHM_USER, RHYTHM_PRODUCT, 13 + 14 * k) for k in range(11)]
    rows += [(RHYTHM_USER, f"red{k:02d}", 20 + k) for k in range(8)]
    rows += [(f"u{u:03d}", RHYTHM_PRODUCT, 1 + u % 13 + 14 * k) for u in range(0, users, 5) for k in range(12)]
    return events(rows)


def events(rows: list[tuple[str, str, int]], kind: str = "purchase") -> pl.DataFrame:
    """Interactions of one kind from user, product and age in days before AS_OF; one a user, product and day."""
    found = pl.DataFrame(rows, schema=["user_id", "product_id", "age"], orient="row").unique()
    return found.sort("user_id", "product_id", "age").select(
        "user_id",
        "product_id",
        event_date=pl.lit(AS_OF) - pl.duration(days="age"),
        event_type=pl.lit(kind),
        quantity=pl.lit(1.0),
        amount=pl.lit(2.0),
        discount=pl.lit(0.0),
    )


def no_accounts() -> pl.DataFrame:
    """A shop without a table of users."""
    return accounts([])


def accounts(rows: list[tuple[str, str | None, str | None]]) -> pl.DataFrame:
    """Users with country and acquisition channel."""
    names = ("user_id", "country", "acquisition_channel")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def history(
    interactions: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    as_of: date = AS_OF,
    **settings: object,
) -> History:
    """A history of the shop at a date."""
    known = purchases() if interactions is None else interactions
    return made_of(known, catalogue(), no_accounts() if users is None else users, as_of, Settings(**settings))  # type: ignore[arg-type]


def made_of(
    interactions: pl.DataFrame, products: pl.DataFrame, users: pl.DataFrame, as_of: date, settings: Settings
) -> History:
    """A history of frames; everybody who had done anything is a user."""
    before = interactions.filter(pl.col("event_date") < as_of)
    others = before.select(pl.col("user_id").unique()).join(users, on="user_id", how="anti")
    with duckdb.connect() as con:
        con.register("interactions", interactions.to_arrow())
        everybody = pl.concat([users, others], how="diagonal")
        return make_history(con, "from interactions", products, everybody, as_of, settings)
