"""What happened before a date, with users and products as numbers, so that every step works on small integers."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from lcm_ml.insights.recommend.settings import Settings

PROFILE = 50
"""Products that stand for a user's taste where a step grows with their number: the heaviest signals."""

AGE = pl.Int32
CODE = pl.Int32


@dataclass(frozen=True)
class History:
    """Everything that recommendations at `as_of` rest on; nothing in it is of that day or later.

    A user or product is the number of its row in `users` or `products`. Ages are whole days before `as_of`, 1 or more.

    Attributes:
        as_of: the date.
        settings: what a list may hold.
        users: user_id, country, acquisition_channel.
        products: product_id, department, category, brand, title, price; category_code; is_servable (in stock, or new)
            and is_new (never sold, but looked at within the time that a product may stay unsold).
        days: user, product, age, quantity, amount, discount: a row per day on which a user purchased a product,
            sorted by user, product, age, the oldest first.
        seen: user, product, seen_weight (fading), seen_age: what users looked at, carted and the like.
        taste: user, product, weight: all signals of both kinds, fading, heaviest first within a user.
    """

    as_of: date
    settings: Settings
    users: pl.DataFrame
    products: pl.DataFrame
    days: pl.DataFrame
    seen: pl.DataFrame
    taste: pl.DataFrame

    @property
    def n_users(self) -> int:
        """Users known by then."""
        return self.users.height

    @property
    def n_products(self) -> int:
        """Products known by then."""
        return self.products.height

    @cached_property
    def servable(self) -> npt.NDArray[np.bool_]:
        """(products,): whether a list may hold it."""
        return self.products["is_servable"].to_numpy()

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """A row per user and product that it purchased, sorted.

        Columns: user, product, n_days, first_age, last_age, gap (median days between two purchases of it, null with
        one), faded (days of purchase, a day of age half_life_days counting half), recent (days within the horizon),
        quantity, discounted (share of its days with a discount).
        """
        half_life, horizon = self.settings.half_life_days, self.settings.horizon_days
        same = (pl.col("user") == pl.col("user").shift(1)) & (pl.col("product") == pl.col("product").shift(1))
        key = ["user", "product"]
        ages = self.days.select(*key, pl.when(same).then(pl.col("age").shift(1) - pl.col("age")).alias("gap"))
        # Most pairs have one day: a median over all of them would take most of the time.
        gaps = ages.drop_nulls().group_by(key).agg(gap=pl.col("gap").cast(pl.Float64).median())
        return (
            self.days.with_columns(fade=0.5 ** (pl.col("age") / half_life))
            .group_by(key)
            .agg(
                n_days=pl.len().cast(AGE),
                first_age=pl.col("age").max(),
                last_age=pl.col("age").min(),
                faded=pl.col("fade").sum(),
                recent=(pl.col("age") <= horizon).sum().cast(AGE),
                quantity=pl.col("quantity").sum(),
                discounted=(pl.col("discount") > 0).mean(),
            )
            .join(gaps, on=key, how="left")
            .sort(key)
        )

    @cached_property
    def profile(self) -> sparse.csr_array:
        """(users, products): the heaviest PROFILE signals of each user."""
        rank = pl.int_range(pl.len()).over("user")
        return self.matrix(self.taste.filter(rank < PROFILE))

    def matrix(self, rows: pl.DataFrame) -> sparse.csr_array:
        """Rows of user, product, weight as a (users, products) matrix."""
        weight = rows["weight"].cast(pl.Float32).to_numpy()
        where = (rows["user"].to_numpy(), rows["product"].to_numpy())
        return sparse.csr_array((weight, where), shape=(self.n_users, self.n_products))

    def permitted(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows (user, product ...) that a list may hold: servable, and not bought before where that is a rule."""
        kept = rows.filter(pl.Series(self.servable[rows["product"].to_numpy()]))
        if self.settings.allow_repeats or kept.is_empty():
            return kept
        users = kept["user"]
        bought = of_users(self.pairs, int(users.min()), int(users.max()) + 1)  # type: ignore[arg-type]
        return kept.join(bought, on=["user", "product"], how="anti")


def make_history(
    interactions: pl.DataFrame, products: pl.DataFrame, users: pl.DataFrame, as_of: date, settings: Settings
) -> History:
    """Number users and products, and bring events to ages.

    Args:
        interactions: user_id, product_id, event_date, event_type, quantity, amount, discount; rows at or after `as_of`
            are left out.
        products: product_id, department, category, brand, title, price, first_sold_date; products of `interactions`
            that are missing are added without attributes.
        users: user_id, country, acquisition_channel; users of `interactions` that are missing are added.
        as_of: the date.
        settings: what a list may hold.
    """
    before = interactions.filter(pl.col("event_date") < as_of)
    everybody = _complete(users.select("user_id", "country", "acquisition_channel"), before, "user_id")
    catalogue = _complete(products.drop("first_sold_date", strict=False), before, "product_id")
    coded = before.select(
        user=_code(before["user_id"], everybody["user_id"]),
        product=_code(before["product_id"], catalogue["product_id"]),
        age=(pl.lit(as_of) - pl.col("event_date")).dt.total_days().cast(AGE),
        event_type="event_type",
        quantity=pl.col("quantity").cast(pl.Float32),
        amount=pl.col("amount").cast(pl.Float32),
        discount=pl.col("discount").cast(pl.Float32),
    )
    del before
    is_purchase = pl.col("event_type") == "purchase"
    fading = 0.5 ** (pl.col("age") / settings.half_life_days)
    weight = pl.col("event_type").replace_strict(dict(settings.weights), default=0.0, return_dtype=pl.Float64) * fading
    days = coded.filter(is_purchase).drop("event_type").sort("user", "product", "age", descending=[False, False, True])
    seen = (
        coded.filter(~is_purchase)
        .group_by("user", "product")
        .agg(seen_weight=weight.sum(), seen_age=pl.col("age").min())
        .filter(pl.col("seen_weight") > 0)
        .sort("user", "product")
    )
    taste = (
        coded.group_by("user", "product")
        .agg(weight=weight.sum())
        .filter(pl.col("weight") > 0)
        .sort("user", "weight", "product", descending=[False, True, False])
    )
    return History(as_of, settings, everybody, _with_stock(catalogue, coded, settings), days, seen, taste)


def _with_stock(catalogue: pl.DataFrame, coded: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    rows = np.arange(catalogue.height)
    is_purchase = pl.col("event_type") == "purchase"
    recent = coded.filter(pl.col("age") <= settings.in_stock_days)

    def holds(part: pl.DataFrame) -> npt.NDArray[np.bool_]:
        return np.isin(rows, part["product"].unique().to_numpy())

    is_new = holds(recent) & ~holds(coded.filter(is_purchase))
    category = pl.coalesce("category", "department").fill_null("")
    return catalogue.with_columns(
        category_code=category.rank("dense").cast(CODE) - 1,
        is_servable=pl.Series(holds(recent.filter(is_purchase)) | is_new),
        is_new=pl.Series(is_new),
    )


def _complete(known: pl.DataFrame, events: pl.DataFrame, key: str) -> pl.DataFrame:
    missing = events.select(pl.col(key).unique()).join(known, on=key, how="anti")
    return pl.concat([known, missing], how="diagonal").sort(key)


def _code(ids: pl.Series, sorted_ids: pl.Series) -> pl.Series:
    return ids.cast(pl.Enum(sorted_ids)).to_physical().cast(CODE)


def of_users(rows: pl.DataFrame, first: int, end: int) -> pl.DataFrame:
    """The rows of users `first` to `end` - 1, in a frame sorted by user: a slice, without a look at the rest."""
    low, high = rows["user"].search_sorted(pl.Series([first, end], dtype=CODE), side="left")
    return rows.slice(low, high - low)


def best(rows: pl.DataFrame, n: int) -> pl.DataFrame:
    """The n rows of each user with the highest score, with their rank from 1; equal scores in the order of products."""
    ordered = rows.sort("user", "score", "product", descending=[False, True, False])
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=CODE).over("user")).filter(pl.col("rank") <= n)
