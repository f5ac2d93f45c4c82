"""Segments that keep their ids from one run to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from lcm_ml.insights.segments.clustering import Array

LEAST_OVERLAP = 0.2
"""Users shared by a cluster and its predecessor, of the users of either (Jaccard): below, it is another segment."""


@dataclass(frozen=True)
class Earlier:
    """An earlier segmentation by the same method.

    Attributes:
        as_of_date: its date.
        users: user_id, segment_id.
        medians: segment_id, feature, median; as in ml.segment_features.
    """

    as_of_date: date
    users: pl.DataFrame
    medians: pl.DataFrame


def carried_ids(
    now: pl.DataFrame, clusters: int, earlier: Earlier | None, highest: int, apart: Array | None = None
) -> list[int]:
    """The id of each cluster: its predecessor's, or a new one, counted on from `highest`.

    Clusters and earlier segments are paired so that the pairs share the most users (Jaccard of the users there at both
    dates; Kuhn 1955, by scipy's linear_sum_assignment). Where no user is shared at all, centres decide.

    Args:
        now: user_id, cluster (0 to clusters - 1).
        clusters: their number.
        earlier: the segmentation to carry on; None: all ids are new.
        highest: the highest id ever given; 0 where there is none.
        apart: (clusters, earlier segments in the order of their ids), how far their centres lie apart, in units of the
            cluster's radius; pairs more than 1 apart are none. Needed for the fallback alone.
    """
    from scipy.optimize import linear_sum_assignment

    sizes = np.bincount(now.get_column("cluster").to_numpy(), minlength=clusters)
    ids = [0] * clusters
    if earlier is not None and earlier.users.height:
        known = earlier.users.get_column("segment_id").unique().sort().to_list()
        both = now.join(earlier.users, on="user_id")
        if both.height:
            shared = _crossed(both, clusters, known)
            union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
            likeness, least = shared / np.maximum(union, 1), LEAST_OVERLAP
        else:
            likeness, least = (np.zeros((clusters, len(known))) if apart is None else 1 - apart), 0.0
        for row, column in zip(*linear_sum_assignment(likeness, maximize=True), strict=True):
            if likeness[row, column] > least:
                ids[row] = known[column]
    # New ones are numbered from the largest on.
    new = [k for k in sorted(range(clusters), key=lambda k: -sizes[k]) if not ids[k]]
    for number, k in enumerate(new, start=highest + 1):
        ids[k] = number
    return ids


def _crossed(both: pl.DataFrame, clusters: int, known: Sequence[int]) -> Array:
    place = both.get_column("segment_id").replace_strict(list(known), list(range(len(known)))).to_numpy()
    cell = both.get_column("cluster").to_numpy() * len(known) + place
    counts: Array = np.bincount(cell, minlength=clusters * len(known)).reshape(clusters, len(known)).astype(float)
    return counts


def migrations(now: pl.DataFrame, before: Earlier | None) -> pl.DataFrame:
    """Who went from which segment to which since the date before; null where the user was not, or is no longer, there.

    Args:
        now: user_id, segment_id.
        before: the date before.

    Returns:
        previous_as_of_date, from_segment_id, to_segment_id, n_users; no rows without a date before.
    """
    schema = {
        "previous_as_of_date": pl.Date,
        "from_segment_id": pl.Int64,
        "to_segment_id": pl.Int64,
        "n_users": pl.Int64,
    }
    if before is None:
        return pl.DataFrame(schema=schema)
    moves = before.users.select("user_id", from_segment_id="segment_id").join(
        now.select("user_id", to_segment_id="segment_id"), on="user_id", how="full", coalesce=True
    )
    counted = moves.group_by("from_segment_id", "to_segment_id").agg(n_users=pl.len())
    return (
        counted.with_columns(previous_as_of_date=pl.lit(before.as_of_date))
        .select(pl.col(name).cast(kind) for name, kind in schema.items())
        .sort("from_segment_id", "to_segment_id")
    )
