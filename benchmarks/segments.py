"""Segments of many users beside scikit-learn's bare k-means on the same matrix, one after the other in one run.

Ours is all of `lcm-ml segment` but reading and writing: scaling, choosing the number of segments on a sample,
clustering, silhouettes, profiles, names, and carrying ids on from an earlier segmentation. The bare run is given the
scaled matrix and the number of segments, with as many starts as ours (n_init) and, which is harder, with a single one.

    .venv/bin/python benchmarks/segments.py [--users 1000000] [--rounds 3]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
from sklearn.cluster import KMeans

from lcm_ml.insights.segments.clustering import STARTS, cluster
from lcm_ml.insights.segments.matching import Earlier
from lcm_ml.insights.segments.scaling import fit_scaling
from lcm_ml.insights.segments.segmentation import Options, segment


def shop(n: int, seed: int = 0) -> pl.DataFrame:
    """Users of six kinds whose figures are drawn around their kind's, with the gaps that real ones have."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(6, n, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    rate = np.array([0.4, 1, 3, 8, 0.3, 14])[kind] * rng.gamma(4, 0.25, n)
    orders = rng.poisson(rate)
    value = np.array([30, 40, 35, 45, 160, 25])[kind] * rng.lognormal(0, 0.4, n)
    visits = 1 + orders + rng.poisson(np.array([2, 8, 3, 4, 2, 3])[kind])
    tenure = 1 + rng.exponential(300, n)
    bought = orders > 0

    def known(values: np.ndarray) -> pl.Series:
        return pl.Series(values).set(pl.Series(~bought), None)

    return pl.DataFrame(
        {
            "user_id": pl.int_range(n, eager=True).cast(pl.String).str.zfill(8),
            "days_since_last_purchase": known(rng.exponential(84 / np.maximum(rate, 0.2))),
            "orders_84d": orders,
            "gap_mean_days": known(84 / np.maximum(rate, 0.1)).set(pl.Series(orders < 2), None),
            "amount_168d": 2 * orders * value,
            "order_value_total": known(value),
            "products_per_order_total": known(1 + rng.poisson(value / 40)),
            "line_value_total": known(value * rng.lognormal(-1, 0.3, n)),
            "discount_share_total": known(rng.beta(np.array([1, 1, 8, 1, 1, 2])[kind], 12)),
            "categories_total": np.minimum(orders, 1 + rng.poisson(2, n)),
            "sessions_84d": visits,
            "views_84d": rng.poisson(3 * visits),
            "session_to_order_84d": orders / visits,
            "days_since_first_event": tenure,
            "days_since_first_purchase": known(tenure * rng.random(n)),
            "is_suspected_bot": rng.random(n) < 0.002,
            "is_suspected_reseller": rng.random(n) < 0.002,
        }
    )


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    users = shop(options.users)
    first = segment(users, Options(), None, None, 0)
    earlier = Earlier(date(2025, 1, 1), first.users, first.features)
    clusters = first.profiles.height
    fitted = users.filter(~(pl.col("is_suspected_bot") | pl.col("is_suspected_reseller")))
    x = fit_scaling(fitted).apply(fitted)
    print(f"{options.users:,} users, {x.shape[1]} traits, {clusters} segments chosen by k-means")
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, work in {
            "ours, k-means": lambda: segment(users, Options(), earlier, earlier, clusters),
            "ours, ward": lambda: segment(users, Options("ward"), earlier, earlier, clusters),
            f"bare KMeans, n_init={STARTS}": lambda: KMeans(clusters, n_init=STARTS, random_state=0).fit(x),
            "bare KMeans, n_init=1": lambda: KMeans(clusters, n_init=1, random_state=0).fit(x),
        }.items():
            seconds.setdefault(name, []).append(timed(work))
    for name, all_runs in seconds.items():
        print(f"{name:26} median {statistics.median(all_runs):6.1f} s, {min(all_runs):.1f} to {max(all_runs):.1f}")
    ours = statistics.median(seconds["ours, k-means"])
    for name in list(seconds)[2:]:
        print(f"ours / {name}: {ours / statistics.median(seconds[name]):.2f}")
    found = cluster(x, clusters, "kmeans", 0)
    inertia = float(((x - found.centres[found.labels]) ** 2).sum())
    bare = KMeans(clusters, n_init=STARTS, random_state=0).fit(x).inertia_
    print(f"sum of squares within, ours / bare: {inertia / bare:.5f}")


if __name__ == "__main__":
    main()
