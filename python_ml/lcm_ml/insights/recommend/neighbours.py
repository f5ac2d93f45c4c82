"""Products that are near to each other, and lists made from a user's own products and their neighbours."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from lcm_ml.insights.recommend.history import History, best

MIN_BUYERS = 3
SHRINKAGE = 10.0
ROWS_AT_ONCE = 1000
MOST_PER_USER = 100
"""Products of one user that take part in pairs: the cost grows with their square."""


@dataclass(frozen=True)
class NeighbourModel:
    """Scores a product by how near it is to what the user bought or looked at.

    Attributes:
        name: of the model.
        near: (products, products): from a product of the user to a product to recommend, 0 and more; few a row.
    """

    name: str
    near: sparse.csr_array

    def lists(self, history: History, first: int, end: int, n: int) -> pl.DataFrame:
        """The n best products of users `first` to `end` - 1: user, product, score, rank."""
        scores = (history.profile[first:end] @ self.near).tocoo()
        rows = pl.DataFrame(
            {
                "user": scores.coords[0].astype(np.int32) + np.int32(first),
                "product": scores.coords[1].astype(np.int32),
                "score": scores.data.astype(np.float32),
            }
        )
        return best(history.permitted(rows.filter(pl.col("score") > 0)), n)

    def because(self, history: History, rows: pl.DataFrame) -> npt.NDArray[np.int64]:
        """For each row (user, product) the user's own product that adds most to its score; -1 where none does."""
        own = history.profile[rows["user"].to_numpy()]
        near = self.near.T.tocsr()[rows["product"].to_numpy()]
        shares = (own * near).tocsr()
        shares.sort_indices()
        filled = np.diff(shares.indptr) > 0
        found = np.full(rows.height, -1, dtype=np.int64)
        if filled.any():
            most = np.maximum.reduceat(shares.data, shares.indptr[:-1][filled])
            row_of = np.repeat(np.arange(int(filled.sum())), np.diff(shares.indptr)[filled])
            first = np.full(len(most), len(shares.data))
            np.minimum.at(
                first,
                row_of,
                np.where(shares.data == most[row_of], np.arange(len(shares.data)), len(first) + len(shares.data)),
            )
            found[filled] = shares.indices[first]
        return found


def item_item(history: History, neighbours: int = 50, source: int | None = None) -> NeighbourModel:
    """Item-item collaborative filtering: cosine of the users of two products, shrunk where few users share them.

    Deshpande and Karypis 2004, "Item-based top-N recommendation algorithms", TOIS 22(1); shrinkage as in Bell and
    Koren 2007. A pair that only one user has in common is chance and has no similarity.
    """
    users = history.signals(MOST_PER_USER)
    users.data[:] = 1.0
    buyers = np.asarray(users.sum(axis=0)).ravel()
    targets = np.flatnonzero((buyers >= MIN_BUYERS) & history.servable)
    asked = np.unique(history.profile.indices) if source is None else np.array([source])
    sources = asked[buyers[asked] >= MIN_BUYERS]
    by_product, by_target = users.T.tocsr(), users[:, targets].tocsr()
    del users
    norm = np.sqrt(np.maximum(buyers, 1.0))
    parts = []
    for start in range(0, len(sources), ROWS_AT_ONCE):
        chunk = sources[start : start + ROWS_AT_ONCE]
        common = (by_product[chunk] @ by_target).tocsr()
        at = np.repeat(chunk, np.diff(common.indptr))
        to = targets[common.indices]
        shrunk = common.data / (norm[at] * norm[to]) * (common.data / (common.data + SHRINKAGE))
        common.data = np.where((common.data >= 2) & (at != to), shrunk, 0.0).astype(np.float32)
        common.eliminate_zeros()
        parts.append(strongest(common, neighbours))
    return NeighbourModel("item_item", spread(parts, sources, targets, history.n_products))


def strongest(matrix: sparse.csr_array, n: int) -> sparse.csr_array:
    """The n largest values of each row."""
    keep = [
        start + (np.argpartition(-matrix.data[start:end], n - 1)[:n] if end - start > n else np.arange(end - start))
        for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    ]
    lengths = np.array([len(part) for part in keep], dtype=np.int64)
    chosen = np.concatenate(keep) if keep else np.empty(0, dtype=np.int64)
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_array((matrix.data[chosen], matrix.indices[chosen], pointers), shape=matrix.shape)


def spread(
    parts: list[sparse.csr_array], sources: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], size: int
) -> sparse.csr_array:
    """Rows of similarities over chosen products, put into a matrix over all products."""
    if not parts:
        return sparse.csr_array((size, size), dtype=np.float32)
    joined = sparse.vstack(parts).tocoo()
    return sparse.csr_array(
        (joined.data, (sources[joined.coords[0]], targets[joined.coords[1]])), shape=(size, size), dtype=np.float32
    )
