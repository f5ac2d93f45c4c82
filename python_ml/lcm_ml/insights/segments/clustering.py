"""k-means and Ward's hierarchical clustering, and how many clusters there are.

A clustering is known by its centres: whoever was not in the fit goes to the nearest one.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Method = Literal["kmeans", "ward"]

SAMPLE_USERS = 2_000
"""Users that the number of clusters is chosen on, and that a silhouette is taken of."""
STARTS = 10
"""Runs of k-means on the sample from different centres; the best one's centres start the run on everybody."""
TRIAL_STARTS = 3
"""Starts of k-means while the number of clusters is being chosen, which runs it on every half."""
RESAMPLES = 10
RESAMPLE_SHARE = 0.5
STABLE = 0.8
"""Mean adjusted Rand index from which a number of clusters counts as stable."""
STABILITY_MARGIN = 0.1
"""Where no number is stable, how much more so another segment would have to make them."""
EXACT_USERS = 4_000
"""Up to so many users Ward starts from single users, beyond from micro-clusters."""
MICRO_CLUSTERS = 300
MICRO_SAMPLE = 30_000
"""Users that the centres of the micro-clusters are found on."""
START_SAMPLE = 10_000
"""Users that k-means finds its starting centres on."""


@dataclass(frozen=True)
class Choice:
    """A number of clusters that was tried.

    silhouette: mean over the sample (Rousseeuw 1987), -1 to 1.
    stability: mean adjusted Rand index between the sample's clusters and those of half of it, 1 is the same.
    """

    clusters: int
    silhouette: float
    stability: float
    is_chosen: bool


@dataclass(frozen=True)
class Clustering:
    """Clusters 0 to k - 1 of the rows it was fitted on, and their centres (k, features)."""

    labels: Labels
    centres: Array


def cluster(x: Array, clusters: int, method: Method, seed: int, init: Array | None = None) -> Clustering:
    """Cluster all rows of `x`, (n, features), n >= clusters.

    k-means starts from the centres found on a sample (Bradley and Fayyad 1998), so that the pass over everybody is one
    run that is nearly there. Ward merges users, or where there are more than EXACT_USERS, first makes MICRO_CLUSTERS
    by k-means and merges those, weighted by their users; then it is consolidated, as in Husson, Josse and Pages
    (2010): an early merger is never undone, so a run of k-means from the centres moves who ended up on the wrong side.

    `init` are centres (clusters, features) to start k-means from, instead.
    """
    with _threads(len(x)):
        if method == "kmeans":
            return _kmeans(x, clusters, seed) if init is None else _from(x, init, seed)
        if len(x) <= EXACT_USERS:
            labels = ward(x, np.ones(len(x)), [clusters])[clusters]
        else:
            of_user, micro = _micro_clusters(x, seed)
            weights = np.bincount(of_user, minlength=len(micro)).astype(float)
            labels = ward(micro, weights, [clusters])[clusters][of_user]
        return _consolidated(x, labels, clusters, seed)


def _micro_clusters(x: Array, seed: int) -> tuple[Labels, Array]:
    """The micro-cluster of each row, and their centres: found on a sample, then means over everybody."""
    sample = x[sample_rows(len(x), MICRO_SAMPLE, np.random.default_rng(seed))]
    of_user = _renumbered(nearest(x, _lloyd(sample, MICRO_CLUSTERS, seed, starts=1)))
    return of_user, _means(x, of_user, int(of_user.max()) + 1)


def sample_rows(n: int, size: int, rng: np.random.Generator) -> Labels:
    """Rows of a sample without replacement, in order; all where there are no more than `size`."""
    rows = np.arange(n) if n <= size else np.sort(rng.choice(n, size, replace=False))
    return rows.astype(np.int64)


def nearest(x: Array, centres: Array, block: int = 65_536) -> Labels:
    """The nearest centre of each row."""
    half_norms = (centres**2).sum(axis=1) / 2
    parts = [(x[at : at + block] @ centres.T - half_norms).argmax(axis=1) for at in range(0, len(x), block)]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def distances(x: Array, centres: Array, labels: Labels) -> Array:
    """Of each row to the centre of its cluster."""
    apart: Array = np.sqrt(((x - centres[labels]) ** 2).sum(axis=1))
    return apart


def ward(x: Array, weights: Array, cuts: Sequence[int]) -> dict[int, Labels]:
    """Ward's agglomerative clustering (1963) of weighted points, cut at each number of clusters in `cuts`.

    Two clusters of weights a and b whose centres are d apart cost a b / (a + b) d^2 to merge, the growth of the sum of
    squares within clusters; the cheapest pair is merged first. A point of weight w counts like w points in its place.

    Args:
        x: (n, features).
        weights: (n,), above 0.
        cuts: numbers of clusters, each at most n.

    Returns:
        For each cut the cluster of each point, numbered from 0.
    """
    if (weights == 1).all():
        from scipy.cluster.hierarchy import cut_tree, linkage

        tree = linkage(x, "ward") if len(x) > 1 else np.empty((0, 4))
        return {cut: _renumbered(cut_tree(tree, cut)[:, 0] if len(x) > 1 else np.zeros(1)) for cut in cuts}
    centres, weight = x.astype(float).copy(), weights.astype(float).copy()
    n = len(x)
    member = np.arange(n)
    apart = ((centres[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    cost = weight[:, None] * weight[None, :] / (weight[:, None] + weight[None, :]) * apart
    np.fill_diagonal(cost, np.inf)
    found = {}
    for left in range(n, 0, -1):
        if left in cuts:
            found[left] = _renumbered(member)
        if left <= min(cuts):
            break
        a, b = divmod(int(cost.argmin()), n)
        total = weight[a] + weight[b]
        centres[a] = (weight[a] * centres[a] + weight[b] * centres[b]) / total
        weight[a] = total
        member[member == b] = a
        cost[b, :] = cost[:, b] = np.inf
        row = weight[a] * weight / (weight[a] + weight) * ((centres - centres[a]) ** 2).sum(axis=1)
        row[~np.isin(np.arange(n), member)] = np.inf
        row[a] = np.inf
        cost[a, :] = cost[:, a] = row
    return found


def choose(x: Array, least: int, most: int, method: Method, seed: int) -> list[Choice]:
    """Try every number of clusters from `least` to `most` on a sample of at most SAMPLE_USERS rows.

    The rule: of the numbers that are stable (STABLE or more), the one with the best silhouette. Where none is, the
    smallest within STABILITY_MARGIN of the most stable.

    Stability is that of Ben-Hur, Elisseeff and Guyon (2002): half of the sample is clustered on its own, the sample is
    assigned to the centres found, and that is compared with the clusters of the whole sample by the adjusted Rand index
    (Hubert and Arabie 1985); the mean over RESAMPLES halves.

    Returns:
        What was tried, fewest clusters first; nothing where there are fewer unlike rows than `least` clusters.
    """
    from sklearn.metrics import adjusted_rand_score, pairwise_distances, silhouette_score

    rng = np.random.default_rng(seed)
    sample = x[sample_rows(len(x), SAMPLE_USERS, rng)]
    unlike = len(np.unique(sample, axis=0))
    tried = [k for k in range(least, most + 1) if k < unlike]
    if not tried:
        return []
    with _threads(len(sample)):
        whole = _by_clusters(sample, tried, method, seed)
        halves = []
        for number in range(RESAMPLES):
            size = int(np.ceil(RESAMPLE_SHARE * len(sample)))
            half = sample[np.sort(rng.choice(len(sample), size, replace=False))]
            halves.append(_by_clusters(half, tried, method, seed + 1 + number))
        apart = pairwise_distances(sample)
        figures = {}
        for k in tried:
            agreed = [
                adjusted_rand_score(whole[k].labels, nearest(sample, half[k].centres)) for half in halves if k in half
            ]
            silhouette = silhouette_score(apart, whole[k].labels, metric="precomputed")
            figures[k] = (float(silhouette), float(np.mean(agreed)) if agreed else 0.0)
    chosen = _best(figures)
    return [Choice(k, silhouette, stability, k == chosen) for k, (silhouette, stability) in figures.items()]


def _best(figures: dict[int, tuple[float, float]]) -> int:
    stable = {k: silhouette for k, (silhouette, stability) in figures.items() if stability >= STABLE}
    if stable:
        return max(stable, key=lambda k: stable[k])
    most = max(stability for _, stability in figures.values())
    return min(k for k, (_, stability) in figures.items() if stability >= most - STABILITY_MARGIN)


def silhouettes(x: Array, labels: Labels, seed: int) -> tuple[float, dict[int, float]]:
    """Mean silhouette, of all and of each cluster, on a sample of at most SAMPLE_USERS rows.

    NaN for a cluster of whom nobody is in the sample, and for all where there is but one.
    """
    from sklearn.metrics import silhouette_samples

    rows = sample_rows(len(x), SAMPLE_USERS, np.random.default_rng(seed))
    own = labels[rows]
    present = np.unique(own)
    if not 1 < len(present) < len(rows):
        return float("nan"), dict.fromkeys(range(int(labels.max()) + 1), float("nan"))
    values = silhouette_samples(x[rows], own)
    each = {k: float(values[own == k].mean()) if k in present else float("nan") for k in range(int(labels.max()) + 1)}
    return float(values.mean()), each


def _by_clusters(x: Array, tried: Sequence[int], method: Method, seed: int) -> dict[int, Clustering]:
    possible = [k for k in tried if k <= len(x)]
    if method == "ward":
        cuts = ward(x, np.ones(len(x)), possible) if possible else {}
        return {k: _consolidated(x, labels, k, seed) for k, labels in cuts.items()}
    return {k: _kmeans(x, k, seed, TRIAL_STARTS) for k in possible}


def _kmeans(x: Array, clusters: int, seed: int, starts: int = STARTS) -> Clustering:
    if len(x) > START_SAMPLE:
        sample = x[sample_rows(len(x), START_SAMPLE, np.random.default_rng(seed))]
        with _threads(len(sample)):
            init = _lloyd(sample, clusters, seed, starts)
        return _from(x, init, seed)
    centres = _lloyd(x, clusters, seed, starts)
    return Clustering(nearest(x, centres), centres)


def _from(x: Array, init: Array, seed: int) -> Clustering:
    centres = _lloyd(x, len(init), seed, init=init)
    return Clustering(nearest(x, centres), centres)


def _consolidated(x: Array, labels: Labels, clusters: int, seed: int) -> Clustering:
    return _from(x, _means(x, labels, clusters), seed)


def _lloyd(x: Array, clusters: int, seed: int, starts: int = STARTS, init: Array | None = None) -> Array:
    from sklearn.cluster import KMeans

    how = {"init": "k-means++", "n_init": starts} if init is None else {"init": init, "n_init": 1}
    centres: Array = KMeans(clusters, random_state=seed, **how).fit(x).cluster_centers_
    return centres


def _means(x: Array, labels: Labels, clusters: int) -> Array:
    count = np.bincount(labels, minlength=clusters)
    sums = np.stack([np.bincount(labels, weights=column, minlength=clusters) for column in x.T], axis=1)
    means: Array = sums / count[:, None]
    return means


def _threads(rows: int) -> Any:
    """For few rows one thread: more of them cost more than they bring. Else as many as LCM_THREADS says."""
    from threadpoolctl import threadpool_limits

    threads = os.environ.get("LCM_THREADS")
    return threadpool_limits(1 if rows <= MICRO_SAMPLE else int(threads) if threads else None)


def _renumbered(labels: npt.NDArray[Any]) -> Labels:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
