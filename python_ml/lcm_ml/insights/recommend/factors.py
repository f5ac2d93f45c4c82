"""Matrix factorisation for implicit feedback (Hu, Koren and Volinsky 2008), by the library implicit."""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from lcm_ml.insights.recommend.history import CODE, History, best

FACTORS = 24
ITERATIONS = 8
REGULARIZATION = 0.05
CONFIDENCE = 2.0
MOST_PER_USER = 150
"""Signals of a user that count: the heaviest."""
MOST_USERS = 200_000
"""Users that the factors of products are learnt from; the others' are solved for given those."""
MIN_USERS = 20


def is_installed() -> bool:
    """Whether the library is there."""
    from importlib.util import find_spec

    return find_spec("implicit") is not None


@dataclass(frozen=True)
class Factors:
    """Scores a product by the inner product of its factors and the user's.

    Attributes:
        model: implicit's, fitted.
        items: (servable products,), ascending.
    """

    model: Any
    items: npt.NDArray[np.int32]
    name: str = "als"

    def user_factors(self, history: History, first: int, end: int) -> npt.NDArray[np.float32]:
        """(users, factors) of users `first` to `end` - 1, solved for given the products'."""
        found: npt.NDArray[np.float32] = self.model.recalculate_user(
            np.arange(end - first), _confidence(history, first, end)
        )
        return found

    def product_factors(self) -> npt.NDArray[np.float32]:
        """(products, factors)."""
        found: npt.NDArray[np.float32] = self.model.item_factors
        return found

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The n best products of users `first` to `end` - 1: user, product, score, rank."""
        liked = _confidence(history, first, end)
        # Where a user's own products may not be listed, they must not use up the places.
        most = min(n if history.settings.allow_repeats else 5 * n, len(self.items))
        products, scores = self.model.recommend(
            np.arange(end - first),
            liked,
            N=most,
            filter_already_liked_items=False,
            recalculate_user=True,
            items=self.items,
        )
        # A user without a signal has factors of 0: no score says anything about it.
        known = np.diff(liked.indptr) > 0
        rows = pl.DataFrame(
            {
                "user": np.repeat(np.arange(first, end, dtype=np.int32)[known], most),
                "product": products[known].ravel().astype(np.int32),
                "score": scores[known].ravel(),
            },
            schema_overrides={"user": CODE, "product": CODE},
        )
        return best(history.permitted(rows.filter(pl.col("product") >= 0)), n)


def als(history: History, seed: int) -> Factors | None:
    """Fit by alternating least squares; None where fewer than MIN_USERS users or no product have signals."""
    from implicit.cpu.als import AlternatingLeastSquares

    liked = _confidence(history, 0, history.n_users)
    users = np.flatnonzero(np.diff(liked.indptr))
    items = np.flatnonzero(history.servable).astype(np.int32)
    if len(users) < MIN_USERS or not len(items):
        return None
    if len(users) > MOST_USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, MOST_USERS, replace=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # BLAS threads are a matter of the caller's environment
        model = AlternatingLeastSquares(
            factors=FACTORS,
            iterations=ITERATIONS,
            regularization=REGULARIZATION,
            random_state=seed,
            num_threads=int(os.environ.get("LCM_THREADS", 0)),
        )
    model.fit(liked[users], show_progress=False)
    return Factors(model, items)


def _confidence(history: History, first: int, end: int) -> Any:
    """implicit's matrix: 1 + the logarithm of a signal's weight, so that a hundred purchases do not drown the rest."""
    found = sparse.csr_matrix(history.signals(MOST_PER_USER, first, end))
    found.data = (CONFIDENCE * np.log1p(found.data) + 1).astype(np.float32)
    return found
