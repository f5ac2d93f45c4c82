"""What happened before a date, with users and products as numbers, so that every step works on small integers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from lcm_ml.frames.interactions import interacting_products, numbered
from lcm_ml.insights.recommend.settings import Settings

PROFILE = 50
"""Products that stand for a user's taste where a step grows with their number: the heaviest signals."""

USERS_AT_ONCE = 250_000
"""Users whose rows are grouped at a time: all of a large shop's groups would take more than their rows."""

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
    def recent_buyers(self) -> npt.NDArray[np.int64]:
        """(products,): users who purchased it within in_stock_days."""
        recent = self.days.filter(pl.col("age") <= self.settings.in_stock_days).select("user", "product").unique()
        return np.bincount(recent["product"].to_numpy(), minlength=self.n_products)

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """A row per user and product that it purchased, sorted.

        Columns: user, product, n_days, first_age, last_age, gap (median days between two purchases of it, null with
        one), faded (days of purchase, a day of age half_life_days counting half), recent (days within the horizon),
        quantity, discounted (share of its days with a discount).
        """
        return by_users(self.days, self.n_users, self._pairs)

    def _pairs(self, days: pl.DataFrame) -> pl.DataFrame:
        half_life, horizon = self.settings.half_life_days, self.settings.horizon_days
        same = (pl.col("user") == pl.col("user").shift(1)) & (pl.col("product") == pl.col("product").shift(1))
        key = ["user", "product"]
        ages = days.select(*key, pl.when(same).then(pl.col("age").shift(1) - pl.col("age")).alias("gap"))
        # Most pairs have one day: a median over all of them would take most of the time.
        gaps = ages.drop_nulls().group_by(key).agg(gap=pl.col("gap").cast(pl.Float64).median())
        return (
            days.with_columns(fade=0.5 ** (pl.col("age") / half_life))
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
        return self.signals(PROFILE)

    def signals(self, most: int, first: int = 0, end: int | None = None) -> sparse.csr_array:
        """The weights of the `most` heaviest signals of each of the users `first` to `end` - 1: (users, products)."""
        end = self.n_users if end is None else end
        rows = of_users(self.taste, first, end)
        # Straight from the sorted rows: by coordinates it would be made twice over.
        starts = np.searchsorted(rows["user"].to_numpy(), np.arange(first, end + 1, dtype=np.int32))
        lengths = np.diff(starts)
        lighter = np.maximum(lengths - most, 0)
        last = np.cumsum(lighter)
        kept = np.ones(rows.height, dtype=bool)
        kept[np.repeat(starts[1:] - last, lighter) + np.arange(lighter.sum())] = False
        ends = np.concatenate([[0], np.cumsum(lengths - lighter)])
        weights, products = rows["weight"].to_numpy()[kept], rows["product"].to_numpy()[kept]
        found = sparse.csr_array((weights, products, ends), shape=(end - first, self.n_products))
        found.sort_indices()
        return found

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
    con: duckdb.DuckDBPyConnection,
    interactions: str,
    products: pl.DataFrame,
    users: pl.DataFrame,
    as_of: date,
    settings: Settings,
) -> History:
    """Number users and products, and bring events to ages.

    Args:
        con: where `interactions` can be read.
        interactions: a query or the name of a table, with the columns of `interactions_before`; rows at or after
            `as_of` are left out.
        products: product_id, department, category, brand, title, price, first_sold_date; products of `interactions`
            that are missing are added without attributes.
        users: user_id, country, acquisition_channel; what others did is left out.
        as_of: the date.
        settings: what a list may hold.
    """
    everybody = users.select("user_id", "country", "acquisition_channel").sort("user_id")
    missing = interacting_products(con, interactions, as_of).join(products, on="product_id", how="anti")
    catalogue = pl.concat([products.drop("first_sold_date", strict=False), missing], how="diagonal").sort("product_id")
    found = numbered(
        con,
        interactions,
        as_of,
        everybody["user_id"],
        catalogue["product_id"],
        settings.weights,
        settings.half_life_days,
    )
    return History(
        as_of,
        settings,
        everybody,
        _with_stock(catalogue, found.products, settings),
        found.days,
        found.seen,
        found.taste,
    )


def _with_stock(catalogue: pl.DataFrame, ages: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The catalogue with category_code, is_servable and is_new, from products' last_age and sold_age."""
    known = catalogue.with_row_index("product").with_columns(pl.col("product").cast(CODE))
    is_recent = (pl.col("last_age") <= settings.in_stock_days).fill_null(False)
    is_new = is_recent & pl.col("sold_age").is_null()
    category = pl.coalesce("category", "department").fill_null("")
    return (
        known.join(ages, on="product", how="left", maintain_order="left")
        .with_columns(
            category_code=category.rank("dense").cast(CODE) - 1,
            is_servable=(pl.col("sold_age") <= settings.in_stock_days).fill_null(False) | is_new,
            is_new=is_new,
        )
        .drop("product", "last_age", "sold_age")
    )


def of_users(rows: pl.DataFrame, first: int, end: int) -> pl.DataFrame:
    """The rows of users `first` to `end` - 1, in a frame sorted by user: a slice, without a look at the rest."""
    low, high = rows["user"].search_sorted(pl.Series([first, end], dtype=CODE), side="left")
    return rows.slice(low, high - low)


def chunks(n_users: int, size: int) -> Iterator[tuple[int, int]]:
    """All users in parts: the first one of each, and the one behind its last."""
    for start in range(0, n_users, size):
        yield start, min(start + size, n_users)


def by_users(rows: pl.DataFrame, n_users: int, grouped: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """What `grouped` makes of rows sorted by user, told for some users at a time."""
    return pl.concat([grouped(of_users(rows, *part)) for part in chunks(max(n_users, 1), USERS_AT_ONCE)])


def best(rows: pl.DataFrame, n: int) -> pl.DataFrame:
    """The n rows of each user with the highest score, with their rank from 1; equal scores in the order of products."""
    ordered = rows.sort("user", "score", "product", descending=[False, True, False])
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=CODE).over("user")).filter(pl.col("rank") <= n)
