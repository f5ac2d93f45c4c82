"""The candidate models of one date, fitted together."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.recommend import factors
from lcm_ml.insights.recommend.content import content
from lcm_ml.insights.recommend.history import History
from lcm_ml.insights.recommend.neighbours import NeighbourModel, item_item
from lcm_ml.insights.recommend.simple import OwnList, OwnRecent, Popularity, Viewed

DEPTHS = {
    "popularity": 20,
    "own_most_bought": 50,
    "own_recent": 100,
    "viewed": 30,
    "item_item": 30,
    "content": 20,
    "als": 30,
}
"""Candidates that a model brings to the hybrid, for each user."""

MOST_CANDIDATES = 80
"""Candidates of a user that are worth their features: the best ones by the models' ranks, where own products lead."""

RANK_OFFSET = 60
"""Of reciprocal rank fusion: how little the first rank stands out (Cormack, Clarke and Buettcher 2009 take 60)."""

OWN_ACTS, OWN_WEIGHT = ("own_most_bought", "own_recent", "viewed"), 5.0

NO_ALS = "the library implicit is not installed: ALS is left out (pip install 'lcm-ml[insights]')"


class Model(Protocol):
    """A model that lists products for users."""

    @property
    def name(self) -> str:
        """Of the model."""

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The n best products of users `first` to `end` - 1: user, product, score, rank, sorted."""


@dataclass(frozen=True)
class Models:
    """The candidate models fitted to a history.

    Attributes:
        history: what they were fitted to.
        popularity: also knows the popularity of every product.
        item_item: neighbours by users in common.
        content: neighbours by attributes.
        als: factors; None where the library or the data for it is missing.
        notes: what was left out, and why.
    """

    history: History
    popularity: Popularity
    item_item: NeighbourModel
    content: NeighbourModel
    als: factors.Factors | None
    notes: tuple[str, ...] = ()

    def all(self) -> tuple[Model, ...]:
        """Every model, the simple ones first."""
        simple: tuple[Model, ...] = (self.popularity, OwnList(), OwnRecent(), Viewed())
        return (*simple, self.item_item, self.content, *((self.als,) if self.als else ()))


def fit_models(history: History, seed: int) -> Models:
    """Fit every candidate model to what happened before history.as_of."""
    popularity = Popularity(history)
    found = factors.als(history, seed) if factors.is_installed() else None
    notes = () if factors.is_installed() else (NO_ALS,)
    return Models(history, popularity, item_item(history), content(history, popularity.overall), found, notes)


def candidates(models: Models, first: int, end: int) -> pl.DataFrame:
    """The products that the models propose to users `first` to `end` - 1, once, with each model's score and rank.

    Of a user's, the MOST_CANDIDATES that the models together rank best, and every new product that content proposes.

    Returns:
        user, product, and for each model <name>_score and <name>_rank (null where it did not propose the product),
        sorted by user and product.
    """
    size = models.history.n_products
    key = (pl.col("user").cast(pl.Int64) * size + pl.col("product")).alias("key")
    lists = {
        model.name: model.lists(models.history, first, end, DEPTHS[model.name]).select(
            key, pl.col("score").alias(f"{model.name}_score"), pl.col("rank").alias(f"{model.name}_rank")
        )
        for model in models.all()
    }
    found = pl.concat([rows.select("key") for rows in lists.values()]).unique().sort("key")
    for rows in lists.values():
        found = found.join(rows, on="key", how="left", maintain_order="left")
    numbers = found["key"].to_numpy()
    users, products = np.divmod(numbers, max(size, 1))
    rows = found.select(
        pl.Series("user", users.astype(np.int32)), pl.Series("product", products.astype(np.int32)), pl.exclude("key")
    )
    is_new = models.history.products["is_new"].gather(rows["product"]) & rows["content_rank"].is_not_null()
    place = pl.Series("score", fused(rows, models)).to_frame().with_columns(rows["user"], at=pl.int_range(rows.height))
    best = place.sort("user", "score", "at", descending=[False, True, False]).filter(
        pl.int_range(pl.len()).over("user") < MOST_CANDIDATES
    )
    kept = np.asarray(is_new.to_numpy(), dtype=bool).copy()
    kept[best["at"].to_numpy()] = True
    return rows.filter(pl.Series(kept))


def fused(rows: pl.DataFrame, models: Models) -> npt.NDArray[np.float32]:
    """Reciprocal rank fusion: the sum of weight / (RANK_OFFSET + rank) over the models that propose a product, (rows,).

    What the user did with the product itself weighs OWN_WEIGHT; else the many models that only guess would drown it.
    """
    total = pl.sum_horizontal(
        (OWN_WEIGHT if model.name in OWN_ACTS else 1.0) / (RANK_OFFSET + pl.col(f"{model.name}_rank").cast(pl.Float32))
        for model in models.all()
    )
    score: npt.NDArray[np.float32] = rows.select(total.alias("score"))["score"].cast(pl.Float32).to_numpy()
    return score.copy()
