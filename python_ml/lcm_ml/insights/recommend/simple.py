"""Lists that need no learning: what is popular, what the user buys most, what the user looked at last."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.recommend.history import CODE, History, best, of_users

POPULAR_HALF_LIFE_DAYS = 14.0
MOST_POPULAR = 300
"""Popular products that are looked through where a user's own are not allowed."""


@dataclass(frozen=True)
class Popularity:
    """Days of purchase by anybody, fading; in the user's own segment where that has enough buyers.

    A segment is the country and acquisition channel, else the country, else the channel, else everybody.
    """

    history: History
    name: str = "popularity"

    @cached_property
    def overall(self) -> npt.NDArray[np.float64]:
        """(products,): days of purchase, one of age POPULAR_HALF_LIFE_DAYS counting half."""
        days = self.history.days
        fading = 0.5 ** (days["age"].to_numpy() / POPULAR_HALF_LIFE_DAYS)
        counts = np.bincount(days["product"].to_numpy(), fading, minlength=self.history.n_products)
        return counts.astype(np.float64)

    @cached_property
    def segment_of(self) -> pl.DataFrame:
        """A row per user: user, segment (an Enum of words; empty for everybody)."""
        columns = ("country", "acquisition_channel")
        buyers = np.zeros(self.history.n_users, dtype=bool)
        buyers[self.history.days["user"].to_numpy()] = True
        users = self.history.users.select(*columns).with_row_index("user").with_columns(pl.col("user").cast(CODE))
        users = users.with_columns(bought=pl.Series(buyers))
        big = self.history.settings.smallest_segment
        levels = [list(columns), *([name] for name in columns)]
        choices = [
            pl.when(pl.all_horizontal(pl.col(level).is_not_null()) & (pl.col("bought").sum().over(level) >= big)).then(
                pl.concat_str(level, separator=", ")
            )
            for level in levels
        ]
        segments = users.select("user", segment=pl.coalesce(*choices, pl.lit("")))
        # A number of a few bits for each user, and for each of its days.
        words = sorted({"", *segments["segment"].unique()})
        return segments.with_columns(pl.col("segment").cast(pl.Enum(words)))

    @cached_property
    def by_segment(self) -> pl.DataFrame:
        """The most popular products of each segment: segment, product, score, buyers (within the stock days)."""
        history = self.history
        segments = self.segment_of["segment"]
        days = history.days.select("user", "product", "age").filter(
            pl.Series(history.servable[history.days["product"].to_numpy()])
        )
        days = days.with_columns(segment=segments.gather(days["user"]))
        recent = days.filter(pl.col("age") <= history.settings.in_stock_days).unique(["user", "product"])

        def counted(*keys: str) -> pl.DataFrame:
            fading = 0.5 ** (pl.col("age") / POPULAR_HALF_LIFE_DAYS)
            scores = days.group_by(keys).agg(score=fading.sum().cast(pl.Float32))
            buyers = recent.group_by(keys).agg(buyers=pl.len())
            return scores.join(buyers, on=keys, how="left").with_columns(pl.col("buyers").fill_null(0))

        everybody = counted("product").select(pl.lit("", segments.dtype).alias("segment"), pl.all())
        own = counted("segment", "product").filter(pl.col("segment") != "")
        ordered = pl.concat([everybody, own]).sort("segment", "score", "product", descending=[False, True, False])
        return ordered.filter(pl.int_range(pl.len()).over("segment") < MOST_POPULAR)

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The n best products of users `first` to `end` - 1: user, product, score, rank."""
        most = n if history.settings.allow_repeats else MOST_POPULAR
        place = pl.int_range(pl.len()).over("segment")
        popular = self.by_segment.filter(place < most)
        users = self.segment_of.slice(first, end - first)
        rows = users.join(popular, on="segment").select("user", "product", "score")
        return best(history.permitted(rows), n)


@dataclass(frozen=True)
class OwnList:
    """The user's own products, by days on which they were purchased; among equals the latest first."""

    name: str = "own_most_bought"

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The n best products of users `first` to `end` - 1: user, product, score, rank."""
        score = (pl.col("n_days") + 1 / (1 + pl.col("last_age"))).cast(pl.Float32)
        rows = of_users(history.pairs, first, end).select("user", "product", score=score)
        return best(history.permitted(rows), n)


@dataclass(frozen=True)
class OwnRecent:
    """The user's own products by days of purchase, fading: what it buys now."""

    name: str = "own_recent"

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The n best products of users `first` to `end` - 1: user, product, score, rank."""
        rows = of_users(history.pairs, first, end).select("user", "product", score=pl.col("faded").cast(pl.Float32))
        return best(history.permitted(rows), n)


@dataclass(frozen=True)
class Viewed:
    """What the user looked at, put in the cart or wished for, the latest and strongest first."""

    name: str = "viewed"

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The n best products of users `first` to `end` - 1: user, product, score, rank."""
        rows = of_users(history.seen, first, end).select(
            "user", "product", score=pl.col("seen_weight").cast(pl.Float32)
        )
        return best(history.permitted(rows), n)
