"""The hybrid: candidates of all models, put in order by boosted trees that learnt from an earlier date."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.recommend.features import Facts, features
from lcm_ml.insights.recommend.models import candidates

MOST_ROWS = 160_000
"""Candidates that a ranker learns from: users are drawn until they are reached."""
MIN_USERS = 30
"""Users with a hit that a ranker needs."""
TREES = 50
PARAMETERS = {
    "objective": "rank:ndcg",
    "lambdarank_pair_method": "topk",
    "lambdarank_num_pair_per_sample": 10,
    "tree_method": "hist",
    "max_bin": 128,
    "learning_rate": 0.15,
    "max_depth": 5,
    "min_child_weight": 5.0,
    "subsample": 0.8,
    "colsample_bynode": 0.5,
    "reg_lambda": 5.0,
}


@dataclass(frozen=True)
class Ranker:
    """Boosted trees over features of candidates.

    Attributes:
        booster: XGBoost's.
        names: the features, in order.
        n_users: users with a hit that it learnt from.
    """

    booster: Any
    names: tuple[str, ...]
    n_users: int

    def scores(self, table: pl.DataFrame) -> npt.NDArray[np.float32]:
        """(rows,), higher is better; only comparable within a user."""
        # Polars gives columns; XGBoost reads rows, and jumps through memory unless they are laid out so.
        matrix = np.ascontiguousarray(table.select(self.names).to_numpy())
        found: npt.NDArray[np.float32] = self.booster.inplace_predict(matrix)
        return found


def blocks(n_users: int, seed: int, size: int = 500) -> list[tuple[int, int]]:
    """All users in parts, in an order drawn by chance: the first ones are a sample."""
    order = np.random.default_rng(seed).permutation(-(-n_users // size)) * size
    return [(int(first), min(int(first) + size, n_users)) for first in order]


@dataclass(frozen=True)
class Lesson:
    """Candidates of an earlier date with what came of them.

    Attributes:
        table: features.
        hit: (rows,), 1.0 where the user purchased the product in the window.
        group: (rows,), the user, ascending.
    """

    table: pl.DataFrame
    hit: npt.NDArray[np.float32]
    group: npt.NDArray[np.int64]


def lesson(facts: Facts, purchased: pl.DataFrame, seed: int) -> Lesson:
    """Candidates at facts' date, and which of them were purchased afterwards.

    Args:
        facts: of the earlier date.
        purchased: user_id and product_id of the window that follows.
        seed: of the draw, where there are more users with a hit than are needed.
    """
    history = facts.models.history
    hits = coded(facts, purchased)
    parts, labels, rows = [], [], 0
    for first, end in blocks(history.n_users, seed):
        inside = hits.filter(pl.col("user").is_between(first, end, closed="left")).with_columns(
            hit=pl.lit(1.0, pl.Float32)
        )
        if inside.is_empty():
            continue
        found = candidates(facts.models, first, end).join(inside.select("user").unique(), on="user", how="semi")
        found = found.sort("user", "product")
        marked = found.join(inside, on=["user", "product"], how="left", maintain_order="left")
        parts.append(features(facts, found).with_columns(found["user"]))
        labels.append(marked["hit"].fill_null(0.0).to_numpy())
        rows += found.height
        if rows >= MOST_ROWS:
            break
    if not parts:
        return Lesson(pl.DataFrame(), np.empty(0, np.float32), np.empty(0, np.int64))
    table, hit = pl.concat(parts), np.concatenate(labels)
    group = table["user"].to_numpy().astype(np.int64)
    # Users without a hit among the candidates teach a ranking nothing.
    teaches = np.isin(group, np.unique(group[hit > 0]))
    keep = pl.Series(teaches)
    return Lesson(table.drop("user").filter(keep), hit[teaches], group[teaches])


def coded(facts: Facts, purchased: pl.DataFrame) -> pl.DataFrame:
    """user and product of the rows (user_id, product_id) that were known at the date, and that a list may hold."""
    history = facts.models.history
    users = history.users.select("user_id").with_row_index("user").with_columns(pl.col("user").cast(pl.Int32))
    products = (
        history.products.select("product_id").with_row_index("product").with_columns(pl.col("product").cast(pl.Int32))
    )
    rows = purchased.join(users, on="user_id").join(products, on="product_id").select("user", "product")
    return rows.unique().sort("user", "product")


def fit_ranker(lessons: Sequence[Lesson], seed: int) -> Ranker | None:
    """Learn to rank, a user of a date being one list; None where fewer than MIN_USERS had a hit."""
    import xgboost as xgb

    useful = [one for one in lessons if len(one.hit)]
    n_users = sum(len(np.unique(one.group)) for one in useful)
    if n_users < MIN_USERS:
        return None
    names = tuple(useful[0].table.columns)
    shared = [name for name in names if all(name in one.table.columns for one in useful)]
    matrix = np.vstack([one.table.select(shared).to_numpy() for one in useful])
    offsets = np.cumsum([0] + [int(one.group.max()) + 1 for one in useful[:-1]])
    group = np.concatenate([one.group + offset for one, offset in zip(useful, offsets, strict=True)])
    order = np.argsort(group, kind="stable")
    data = xgb.QuantileDMatrix(
        matrix[order],
        label=np.concatenate([one.hit for one in useful])[order],
        qid=group[order],
        max_bin=PARAMETERS["max_bin"],
    )
    threads = os.environ.get("LCM_THREADS")
    fixed = {"seed": seed, **({"nthread": int(threads)} if threads else {})}
    return Ranker(xgb.train(PARAMETERS | fixed, data, TREES), tuple(shared), n_users)
