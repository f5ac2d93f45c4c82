"""Segments of a date's users by behaviour: scaled, clustered, named, and carried on from earlier segments."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from lcm_ml.insights.segments.clustering import (
    Array,
    Choice,
    Clustering,
    Labels,
    Method,
    choose,
    cluster,
    distances,
    nearest,
    silhouettes,
)
from lcm_ml.insights.segments.matching import Earlier, carried_ids, migrations
from lcm_ml.insights.segments.profiles import Profile, population_medians, profiles
from lcm_ml.insights.segments.scaling import TRAITS, Scaling, fit_scaling

LEAST_USERS = 50
"""Below, segments would tell of single users."""
DISTANCE_CLUSTERS = 5
"""Segments that `segment_distances` measures from, the same number at every date."""


@dataclass(frozen=True)
class Options:
    """How to segment. `clusters` fixes their number; without it one from `least` to `most` is chosen."""

    method: Method = "kmeans"
    clusters: int | None = None
    least: int = 3
    most: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Segmentation:
    """What was found. `note` says why there is nothing; the frames are then empty.

    Attributes:
        users: user_id, segment_id, segment_name, distance (to the segment's centre, in scaled units).
        profiles: segment_id, name, description, n_users, share, silhouette; the largest segment first.
        features: segment_id, feature, median, population_median, standardised_difference.
        choices: clusters, silhouette, stability, is_chosen.
        migrations: previous_as_of_date, from_segment_id, to_segment_id, n_users.
        silhouette: mean over a sample of those in the fit; NaN where there is nothing.
        dropped: traits left out since they are the same for everybody, or say what another one says.
        left_out: users flagged as bots or resellers, who have a segment but did not take part in finding it.
    """

    users: pl.DataFrame
    profiles: pl.DataFrame
    features: pl.DataFrame
    choices: pl.DataFrame
    migrations: pl.DataFrame
    silhouette: float = float("nan")
    dropped: tuple[str, ...] = ()
    left_out: int = 0
    note: str = ""


def segment(
    users: pl.DataFrame, options: Options, carried: Earlier | None, before: Earlier | None, highest: int
) -> Segmentation:
    """Segment the users of one date.

    Args:
        users: user_id and COLUMNS, a row per user of marts.user_features at the date.
        options: the method and the number of segments.
        carried: the segmentation whose ids are carried on: the date's own earlier run, else that of another date.
        before: the date before, for migrations; None where there is none.
        highest: the highest segment_id ever given; 0 where there is none.
    """
    flagged = users.select(_is_flagged()).to_series()
    fitted = users.filter(~flagged)
    if fitted.height < LEAST_USERS:
        return _nothing(f"{fitted.height} users are too few to segment: there must be {LEAST_USERS}")
    scaling = fit_scaling(fitted)
    x = scaling.apply(fitted) if scaling.traits else np.zeros((fitted.height, 0))
    tried = _tried(x, options)
    chosen = next((choice.clusters for choice in tried if choice.is_chosen), None)
    if chosen is None:
        return _nothing("the users are too much alike to make that many segments")
    found = cluster(x, chosen, options.method, options.seed)
    everybody = scaling.apply(users)
    labels = _assigned(everybody, flagged, found)
    told = profiles(users, everybody, scaling, labels)
    ids = _ids(users, labels, told, scaling, found, carried, highest)
    silhouette, of_each = silhouettes(x, found.labels, options.seed)
    frames = _frames(users, labels, everybody, found, told, ids, of_each, population_medians(users, scaling))
    return Segmentation(
        users=frames["users"],
        profiles=frames["profiles"],
        features=frames["features"],
        choices=_choices(tried),
        migrations=migrations(frames["users"], before),
        silhouette=silhouette,
        dropped=scaling.dropped,
        left_out=int(flagged.sum()),
    )


def segment_distances(
    users: Mapping[date, pl.DataFrame], oldest: pl.DataFrame, clusters: int = DISTANCE_CLUSTERS, seed: int = 0
) -> pl.DataFrame:
    """How far each user is from each k-means segment of its date, as features for a model.

    Each date's scaling and centres are learnt from that date's users, who are described by what lay before it. k-means
    starts from the centres of the oldest date, so that segment 1 is the same kind of user at every date, whichever
    dates are asked for.

    Args:
        users: for each date user_id and COLUMNS. Flagged users get distances, but do not move the centres.
        oldest: the same of the oldest date there is, with enough users.
        clusters: segments, at every date. A date with fewer than LEAST_USERS users is left out.
        seed: of the oldest date's k-means.

    Returns:
        user_id, as_of_date, feature (segment_distance_1 ...), value; as in ml.user_extra_features.
    """
    parts = []
    init: Array | None = None
    if users and _unflagged(oldest).height >= LEAST_USERS:
        first = _unflagged(oldest)
        init = cluster(fit_scaling(first).apply(first, TRAITS), clusters, "kmeans", seed).centres
    for day, frame in sorted(users.items()):
        fitted = _unflagged(frame)
        if init is None or fitted.height < LEAST_USERS:
            continue
        scaling = fit_scaling(fitted)
        centres = cluster(scaling.apply(fitted, TRAITS), clusters, "kmeans", seed, init).centres
        x = scaling.apply(frame, TRAITS)
        parts += [
            frame.select(
                "user_id",
                as_of_date=pl.lit(day),
                feature=pl.lit(f"segment_distance_{number}"),
                value=pl.Series(np.sqrt(((x - centre) ** 2).sum(axis=1))),
            )
            for number, centre in enumerate(centres, start=1)
        ]
    schema = {"user_id": pl.String, "as_of_date": pl.Date, "feature": pl.String, "value": pl.Float64}
    return pl.concat(parts) if parts else pl.DataFrame(schema=schema)


def _is_flagged() -> pl.Expr:
    return pl.any_horizontal("is_suspected_bot", "is_suspected_reseller").fill_null(False)


def _unflagged(users: pl.DataFrame) -> pl.DataFrame:
    return users.filter(~_is_flagged())


def _tried(x: Array, options: Options) -> list[Choice]:
    least, most = (options.clusters or options.least), (options.clusters or options.most)
    return choose(x, least, most, options.method, options.seed) if x.shape[1] else []


def _assigned(x: Array, flagged: pl.Series, found: Clustering) -> Labels:
    labels = np.empty(len(x), np.int64)
    left_out = flagged.to_numpy()
    labels[~left_out] = found.labels
    labels[left_out] = nearest(x[left_out], found.centres)
    return labels


def _ids(
    users: pl.DataFrame,
    labels: Labels,
    told: list[Profile],
    scaling: Scaling,
    found: Clustering,
    carried: Earlier | None,
    highest: int,
) -> list[int]:
    now = users.select("user_id").with_columns(cluster=pl.Series(labels))
    apart = _medians_apart(told, scaling, carried) if carried is not None else None
    return carried_ids(now, len(found.centres), carried, highest, apart)


def _medians_apart(told: list[Profile], scaling: Scaling, carried: Earlier) -> Array | None:
    """Root mean square difference of medians, in this date's scaled units; a trait that only one has counts 1."""
    earlier = {
        segment: dict(rows.select("feature", "median").iter_rows())
        for (segment,), rows in carried.medians.sort("segment_id").partition_by("segment_id", as_dict=True).items()
    }
    if not earlier:
        return None
    rows = [profile.medians for profile in told] + list(earlier.values())
    names = [trait.feature for trait in scaling.traits]
    plain = pl.DataFrame(
        [{name: row.get(name) for name in names} for row in rows],
        schema=dict.fromkeys(names, pl.Float64),
    ).with_columns(days_since_first_purchase=pl.lit(None, pl.Float64))
    x = scaling.apply(plain)
    apart: Array = np.sqrt(((x[: len(told), None, :] - x[None, len(told) :, :]) ** 2).mean(axis=2))
    return apart


def _frames(
    users: pl.DataFrame,
    labels: Labels,
    x: Array,
    found: Clustering,
    told: list[Profile],
    ids: list[int],
    silhouette: dict[int, float],
    population: dict[str, float | None],
) -> dict[str, pl.DataFrame]:
    order = sorted(range(len(told)), key=lambda k: (-told[k].users, ids[k]))
    return {
        "users": users.select("user_id").with_columns(
            segment_id=pl.Series(np.array(ids)[labels], dtype=pl.Int64),
            segment_name=pl.Series([profile.name for profile in told]).gather(pl.Series(labels)),
            distance=pl.Series(distances(x, found.centres, labels)),
        ),
        "profiles": pl.DataFrame(
            {
                "segment_id": [ids[k] for k in order],
                "name": [told[k].name for k in order],
                "description": [told[k].description for k in order],
                "n_users": [told[k].users for k in order],
                "share": [told[k].share for k in order],
                "silhouette": [silhouette[k] for k in order],
            }
        ).with_columns(pl.col("silhouette").fill_nan(None)),
        "features": pl.DataFrame(
            [
                {
                    "segment_id": ids[k],
                    "feature": feature,
                    "median": told[k].medians[feature],
                    "population_median": population[feature],
                    "standardised_difference": difference,
                }
                for k in order
                for feature, difference in told[k].differences.items()
            ],
            schema=FEATURE_COLUMNS,
        ),
    }


FEATURE_COLUMNS = {
    "segment_id": pl.Int64,
    "feature": pl.String,
    "median": pl.Float64,
    "population_median": pl.Float64,
    "standardised_difference": pl.Float64,
}
CHOICE_COLUMNS = {
    "clusters": pl.Int64,
    "silhouette": pl.Float64,
    "stability": pl.Float64,
    "is_chosen": pl.Boolean,
}


def _choices(tried: list[Choice]) -> pl.DataFrame:
    return pl.DataFrame(
        [(each.clusters, each.silhouette, each.stability, each.is_chosen) for each in tried],
        schema=CHOICE_COLUMNS,
        orient="row",
    )


def _nothing(note: str) -> Segmentation:
    users = {"user_id": pl.String, "segment_id": pl.Int64, "segment_name": pl.String, "distance": pl.Float64}
    about = {
        "segment_id": pl.Int64,
        **dict.fromkeys(("name", "description"), pl.String),
        "n_users": pl.Int64,
        **dict.fromkeys(("share", "silhouette"), pl.Float64),
    }
    return Segmentation(
        users=pl.DataFrame(schema=users),
        profiles=pl.DataFrame(schema=about),
        features=pl.DataFrame(schema=FEATURE_COLUMNS),
        choices=_choices([]),
        migrations=migrations(pl.DataFrame(schema=users), None),
        note=note,
    )
