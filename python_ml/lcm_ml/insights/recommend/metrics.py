"""How good lists are against what was purchased afterwards."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.intervals import mean_interval

KS = (5, 10, 20)
GROUPS = 20
"""Of users, for the jackknife of coverage."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Served:
    """Lists of one model for users who purchased something afterwards.

    Attributes:
        products: (users, places), numbers of products, -1 where a list has ended.
        hits: (users, places), whether the user purchased it.
        relevant: (users,), products that the user purchased, 1 or more.
    """

    products: npt.NDArray[np.int64]
    hits: npt.NDArray[np.bool_]
    relevant: npt.NDArray[np.int64]


def served(lists: pl.DataFrame, purchased: pl.DataFrame, places: int) -> Served:
    """Lists beside what came.

    Args:
        lists: user, product, rank from 1; of other users too.
        purchased: user, product, each once: what the measured users purchased.
        places: length of the lists that are measured.
    """
    truth = purchased.group_by("user").agg(relevant=pl.len()).sort("user")
    row = pl.DataFrame({"user": truth["user"], "row": np.arange(truth.height)})
    found = (
        lists.filter(pl.col("rank") <= places)
        .join(row, on="user")
        .join(purchased.with_columns(hit=pl.lit(True)), on=["user", "product"], how="left")
        .select("row", "rank", "product", pl.col("hit").fill_null(False))
    )
    products = np.full((truth.height, places), -1, dtype=np.int64)
    hits = np.zeros((truth.height, places), dtype=bool)
    where = (found["row"].to_numpy(), found["rank"].to_numpy() - 1)
    products[where], hits[where] = found["product"].to_numpy(), found["hit"].to_numpy()
    return Served(products, hits, truth["relevant"].to_numpy().astype(np.int64))


def recall(lists: Served, k: int) -> FloatArray:
    """(users,), the share of what was purchased that is among the first k."""
    shares: FloatArray = lists.hits[:, :k].sum(axis=1) / lists.relevant
    return shares


def ndcg(lists: Served, k: int) -> FloatArray:
    """(users,), discounted gain of hits over that of the best possible list (Jaervelin and Kekaelaeinen 2002)."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(lists.relevant, k) - 1]
    gained: FloatArray = (lists.hits[:, :k] @ discount) / ideal
    return gained


def average_precision(lists: Served, k: int) -> FloatArray:
    """(users,), mean of the precision at each hit, over the hits that k places can hold."""
    hits = lists.hits[:, :k]
    precision = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    found: FloatArray = (precision * hits).sum(axis=1) / np.minimum(lists.relevant, k)
    return found


def novelty(lists: Served, k: int, buyers: npt.NDArray[np.int64], n_buyers: int) -> FloatArray:
    """(users,), mean of -log2 of the share of buyers who had bought each product; NaN for an empty list.

    Zhou and others 2010, "Solving the apparent diversity-accuracy dilemma", PNAS 107(10). A product without a buyer
    counts as having one.
    """
    listed = lists.products[:, :k] >= 0
    share = np.maximum(buyers, 1) / max(n_buyers, 1)
    bits = np.where(listed, -np.log2(share[np.maximum(lists.products[:, :k], 0)]), 0.0)
    count = listed.sum(axis=1)
    found: FloatArray = np.where(count > 0, bits.sum(axis=1) / np.maximum(count, 1), np.nan)
    return found


def coverage(lists: Served, k: int, catalogue: int) -> tuple[float, float, float]:
    """The share of servable products in anybody's list, with a 95 % interval by a jackknife over GROUPS of users.

    It is no mean over users, and a bootstrap, which leaves users out, would be biased downwards.
    """
    first = lists.products[:, :k]

    def share(rows: npt.NDArray[np.int64]) -> float:
        return len(np.unique(rows[rows >= 0])) / max(catalogue, 1)

    whole = share(first)
    groups = np.arange(len(first)) % GROUPS
    n = min(GROUPS, len(first))
    if n < 2:
        return whole, float("nan"), float("nan")
    left = np.array([share(first[groups != group]) for group in range(n)])
    error = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
    return whole, max(whole - 1.96 * error, 0.0), min(whole + 1.96 * error, 1.0)


PER_USER = {"recall": recall, "ndcg": ndcg, "map": average_precision}


def measured(
    models: dict[str, Served], buyers: npt.NDArray[np.int64], n_buyers: int, catalogue: int, seed: int
) -> pl.DataFrame:
    """Every figure of every model with its interval.

    Args:
        models: name to lists, all of the same users.
        buyers: (products,), users who had bought each.
        n_buyers: users who had bought anything.
        catalogue: servable products.
        seed: of the bootstrap.

    Returns:
        model_name, reference_name (null), metric, k, value, ci_low, ci_high, n_users.
    """
    rows = []
    for name, lists in models.items():
        n_users = len(lists.relevant)
        for k in KS:
            figures = {metric: mean_interval(of(lists, k), seed=seed) for metric, of in PER_USER.items()}
            figures["coverage"] = coverage(lists, k, catalogue)
            bits = novelty(lists, k, buyers, n_buyers)
            figures["novelty"] = mean_interval(bits[~np.isnan(bits)], seed=seed)
            rows += [row(name, None, metric, k, figure, n_users) for metric, figure in figures.items()]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def differences(models: dict[str, Served], name: str, references: Iterable[str], seed: int) -> pl.DataFrame:
    """Paired differences of per-user figures, `name` less each reference, in the columns of `measured`."""
    rows = [
        row(name, reference, metric, k, mean_interval(of(models[name], k) - of(models[reference], k), seed=seed), n)
        for reference in references
        if (n := len(models[name].relevant))
        for metric, of in PER_USER.items()
        for k in KS
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


SCHEMA = {
    "model_name": pl.String,
    "reference_name": pl.String,
    "metric": pl.String,
    "k": pl.Int32,
    "value": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n_users": pl.Int64,
}


def row(
    name: str, reference: str | None, metric: str, k: int, figure: tuple[float, float, float], n_users: int
) -> tuple[object, ...]:
    """A row of SCHEMA; what cannot be told is null."""
    return (name, reference, metric, k, *(None if np.isnan(end) else float(end) for end in figure), n_users)
