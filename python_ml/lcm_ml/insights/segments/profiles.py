"""What segments are like: figures against the population, and names in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from lcm_ml.churn.wording import phrase
from lcm_ml.insights.segments.clustering import Array, Labels
from lcm_ml.insights.segments.scaling import FIRST_PURCHASE, Scaling, Trait

TELLING = 0.3
"""Standardised difference from which a trait is worth a word: a third of a standard deviation."""
WORDS = 2
"""Traits in a name, more where two segments would share it."""
NO_PURCHASE = "no purchase yet"
ORDINARY = "middle of the road"


@dataclass(frozen=True)
class Profile:
    """A segment against all users.

    medians and differences are by feature: the median as it is, null where nobody has a value; and the difference of
    the segment's mean from the population's, scaled, in standard deviations of the population.
    """

    users: int
    share: float
    medians: dict[str, float | None]
    differences: dict[str, float]
    name: str
    description: str


def profiles(users: pl.DataFrame, x: Array, scaling: Scaling, labels: Labels) -> list[Profile]:
    """Profiles of the clusters 0 to k - 1, each with a name of its own.

    Args:
        users: COLUMNS of the scaling, a row per user.
        x: their scaled traits.
        scaling: what `x` was scaled with.
        labels: (users,), the cluster of each; every cluster has somebody.
    """
    features = [trait.feature for trait in scaling.traits]
    everybody = _medians(users, features)
    spread = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    split = (
        users.select(*features, FIRST_PURCHASE)
        .with_columns(cluster=pl.Series(labels))
        .partition_by("cluster", as_dict=True)
    )
    clusters = range(int(labels.max()) + 1)
    medians = [_medians(split[(k,)], features) for k in clusters]
    apart = [
        dict(zip(features, ((x[labels == k].mean(axis=0) - x.mean(axis=0)) / spread).tolist(), strict=True))
        for k in clusters
    ]
    # Whoever never purchased need not be called a rare buyer of small baskets.
    never = [_share_missing(split[(k,)], FIRST_PURCHASE) > 0.5 for k in clusters]
    names = _names([_words(scaling.traits, apart[k], never[k]) for k in clusters])
    sizes = [split[(k,)].height for k in clusters]
    return [
        Profile(
            users=sizes[k],
            share=sizes[k] / users.height,
            medians=medians[k],
            differences=apart[k],
            name=names[k],
            description=_description(apart[k], medians[k], everybody),
        )
        for k in clusters
    ]


def population_medians(users: pl.DataFrame, scaling: Scaling) -> dict[str, float | None]:
    """Medians of all users by feature."""
    return _medians(users, [trait.feature for trait in scaling.traits])


def _medians(users: pl.DataFrame, features: Sequence[str]) -> dict[str, float | None]:
    return users.select(pl.col(features).cast(pl.Float64).median()).row(0, named=True)


def _share_missing(users: pl.DataFrame, feature: str) -> float:
    return users.get_column(feature).null_count() / users.height


def _by_size(differences: dict[str, float]) -> list[str]:
    return sorted(differences, key=lambda feature: -abs(differences[feature]))


def _words(traits: Sequence[Trait], differences: dict[str, float], never_purchased: bool) -> list[str]:
    """Words for a segment, the most telling first, one of each theme."""
    known = {trait.feature: trait for trait in traits}
    words, themes = ([NO_PURCHASE], {"visits"}) if never_purchased else ([], set())
    taken: set[str] = set()
    for feature in _by_size(differences):
        trait, value = known[feature], differences[feature]
        allowed = trait.theme in themes if never_purchased else trait.theme not in taken
        if abs(value) >= TELLING and allowed and trait.theme not in taken:
            words.append(trait.high if value > 0 else trait.low)
            taken.add(trait.theme)
    return words


def _names(words: Sequence[Sequence[str]]) -> list[str]:
    """Each segment's first words; where two would be called the same, more words, in the end a number."""
    most = max(WORDS, *(len(each) for each in words))
    names = [", ".join(each[:WORDS]) or ORDINARY for each in words]
    for length in range(WORDS + 1, most + 1):
        names = [
            ", ".join(words[k][:length]) or ORDINARY if names.count(name) > 1 else name for k, name in enumerate(names)
        ]
    return [f"{name} {names[: k + 1].count(name)}" if names[:k].count(name) else name for k, name in enumerate(names)]


def _description(
    differences: dict[str, float], medians: dict[str, float | None], everybody: dict[str, float | None]
) -> str:
    """The traits that tell the most, with the medians: `12 orders in the last 84 days (all users: 5)`."""
    told = [
        f"{phrase(feature).tell(medians[feature])} (all users: {phrase(feature).number(everybody[feature])})"
        for feature in _by_size(differences)
        if abs(differences[feature]) >= TELLING
    ]
    return "; ".join(told[:4]) or "like all users in every trait"
