"""From scored candidates to the list that a user gets: the best ones, not too many of a kind, a place for the new."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from lcm_ml.insights.recommend.features import Facts, features
from lcm_ml.insights.recommend.history import CODE, History, of_users
from lcm_ml.insights.recommend.models import candidates, fused
from lcm_ml.insights.recommend.ranker import Ranker

HYBRID = "hybrid"


@dataclass(frozen=True)
class Hybrid:
    """Candidates of all models in the order of the ranker; by their ranks alone where there is none, or no purchase.

    Attributes:
        facts: of the date that lists are made at.
        ranker: None where there was too little to learn from.
        name: of the model.
    """

    facts: Facts
    ranker: Ranker | None
    name: str = HYBRID

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The list of each of the users `first` to `end` - 1, n places at most.

        Returns:
            user, product, score, rank, is_cold (the user has purchased nothing yet) and each model's score and rank.
        """
        found = candidates(self.facts.models, first, end)
        buyers = np.zeros(end - first, dtype=bool)
        buyers[of_users(history.pairs, first, end)["user"].to_numpy() - first] = True
        warm = buyers[found["user"].to_numpy() - first]
        score = fused(found, self.facts.models)
        if self.ranker is not None and warm.any():
            score[warm] = self.ranker.scores(features(self.facts, found.filter(pl.Series(warm))))
        rows = found.with_columns(score=pl.Series(score, dtype=pl.Float32), is_cold=pl.Series(~warm))
        return arranged(history, rows, n)


def arranged(history: History, rows: pl.DataFrame, n: int) -> pl.DataFrame:
    """The n best rows of each user with at most `max_per_category` of a category, and their rank from 1.

    The new product that is nearest by content takes the last place of a list that has no new one: what nobody can have
    bought yet would hardly get there by its score.

    Args:
        history: knows the products' categories, and which ones are new.
        rows: user, product, score, content_rank (null where not proposed by content) and more, which stay.
        n: places.
    """
    known = rows.with_columns(
        category_code=history.products["category_code"].gather(rows["product"]),
        is_new=history.products["is_new"].gather(rows["product"]),
    )
    natural = _best(known, n, history.settings.max_per_category)
    fresh = known.filter(pl.col("is_new") & pl.col("content_rank").is_not_null()).join(
        natural.filter("is_new"), on="user", how="anti"
    )
    if fresh.is_empty():
        return natural.drop("category_code", "is_new")
    forced = fresh.sort("user", "content_rank").unique("user", keep="first", maintain_order=True)
    forced = forced.select("user", "product", is_forced=pl.lit(True))
    again = known.join(forced.select("user"), on="user", how="semi").join(forced, on=["user", "product"], how="left")
    again = _best(again.with_columns(pl.col("is_forced").fill_null(False)), n, history.settings.max_per_category)
    others = natural.join(forced, on="user", how="anti")
    return pl.concat([others, again.select(others.columns)]).sort("user", "rank").drop("category_code", "is_new")


def _best(rows: pl.DataFrame, n: int, per_category: int | None) -> pl.DataFrame:
    """The forced row of a user (where the column is there) is counted first and placed last."""
    forced = pl.col("is_forced") if "is_forced" in rows.columns else pl.lit(False)
    first = rows.with_columns(turn=~forced).sort(
        "user", "turn", "score", "product", descending=[False, False, True, False]
    )
    if per_category is not None:
        first = first.filter(pl.int_range(pl.len()).over("user", "category_code") < per_category)
    chosen = first.filter(pl.int_range(pl.len()).over("user") < n)
    ordered = chosen.sort("user", "turn", "score", "product", descending=[False, True, True, False]).drop("turn")
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=CODE).over("user"))
