"""Figures by group of a sensitive attribute, and the gaps between groups. The attribute itself is never a feature.

Rates are shares of users, each counted once: their intervals are Wilson's (1927), which a bootstrap would collapse to a
point where a rate is 0 or 1. The other figures have bootstrap intervals by user. The interval of a gap combines
those of its two groups, which share no user (Newcombe 1998, "Interval estimation for the difference between
independent proportions", method 10; Zou and Donner 2008 for other figures).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from lcm_ml.churn.metrics import Measured, Outcome, Resamples, take
from lcm_ml.churn.permutation import TESTED, BoolArray, IntArray, pair_p_values
from lcm_ml.churn.segments import by_level, measure_group

METRICS = (
    "base_rate",
    "mean_probability",
    "calibration_in_the_large",
    "auc",
    "ece",
    "calibration_slope",
    "selection_rate",
    "false_positive_rate",
    "false_negative_rate",
)
ALL = "(all)"
FEWEST = 5
"""Figures that rest on fewer users of a class are not given: they would tell of persons, and of nothing else."""
LEVEL = 0.05
"""Chance of any false warning in a run in which no attribute matters."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, measured: Measured) -> "Estimate":
        """From resampled values."""
        return cls(measured.value, *measured.interval)

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two figures of different users."""
        difference = self.value - other.value
        return Estimate(
            difference,
            difference - float(np.hypot(self.value - self.low, other.high - other.value)),
            difference + float(np.hypot(self.high - self.value, other.value - other.low)),
        )

    def row(self) -> dict[str, float | None]:
        """value, ci_low and ci_high, as a table takes them."""
        named = (("value", self.value), ("ci_low", self.low), ("ci_high", self.high))
        return {name: value if np.isfinite(value) else None for name, value in named}


UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Decision:
    """Predictions of a date, what happened, and who would be contacted, shape (rows,)."""

    outcome: Outcome
    contacted: BoolArray


@dataclass(frozen=True)
class Group:
    """Users with one value of an attribute. `figures` is empty and `churned` None where they are suppressed."""

    level: str
    users: int
    churned: int | None = None
    figures: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """The largest less the smallest of the groups that are shown.

    Attributes:
        metric: one of METRICS.
        difference: between `high` and `low`.
        high, low: the groups that are furthest apart.
        p_value: of the pair that chance explains worst among those further apart than the setting, adjusted for all
            pairs, metrics and attributes; None where no pair is, or the metric is not tested.
        pair: that pair, higher figure first.
    """

    metric: str
    difference: Estimate
    high: str
    low: str
    p_value: float | None
    pair: tuple[str, str] | None

    @property
    def is_warning(self) -> bool:
        """Larger than the setting allows, and no chance find."""
        return self.p_value is not None and self.p_value <= LEVEL


@dataclass(frozen=True)
class Audit:
    """One attribute: everybody first, then its groups, and the gaps between those. `unknown` users have no value."""

    attribute: str
    everybody: Group
    groups: list[Group]
    gaps: list[Gap]
    unknown: int


def rate(happened: BoolArray) -> Estimate:
    """A share of users with Wilson's interval; not defined for fewer than FEWEST."""
    from scipy.stats import binomtest

    if len(happened) < FEWEST:
        return UNDEFINED
    found = binomtest(int(happened.sum()), len(happened)).proportion_ci(0.95, "wilson")
    return Estimate(float(happened.mean()), float(found.low), float(found.high))


def measure_level(decision: Decision, positions: IntArray, draws: Resamples) -> dict[str, Estimate]:
    """All METRICS of these users. Calibration in the large is the mean probability less the base rate."""
    part, contacted = take(decision.outcome, positions), decision.contacted[positions]
    churned = part.y > 0
    enough = min(churned.sum(), (~churned).sum()) >= FEWEST
    measured = measure_group(part, draws)
    weights = draws.weights(part.users)
    with np.errstate(invalid="ignore"):
        mean = Measured(float(part.probability.mean()), part.probability @ weights / weights.sum(axis=0))
    base = rate(churned)
    return {
        "base_rate": base,
        "mean_probability": Estimate.of(mean),
        # The probabilities are what they are: only the outcomes have an error.
        "calibration_in_the_large": Estimate(mean.value - base.value, mean.value - base.high, mean.value - base.low),
        **{name: Estimate.of(measured[name]) if enough else UNDEFINED for name in ("auc", "calibration_slope")},
        "ece": Estimate.of(measured["ece"]),
        "selection_rate": rate(contacted),
        "false_positive_rate": rate(contacted[~churned]),
        "false_negative_rate": rate(~contacted[churned]),
    }


def suppressed_levels(sizes: dict[str, int], unknown: int, smallest: int) -> set[str]:
    """Groups that are too small to show, and the next ones where a hidden one would follow from the total.

    What is hidden together with the users without a value must be at least `smallest` users too: everybody's figures
    less those of the groups that are shown tell about them (Hundepool and others 2012, "Statistical Disclosure
    Control": secondary suppression).
    """
    found: set[str] = set()
    for level, size in sorted(sizes.items(), key=lambda entry: (entry[1], entry[0])):
        hidden = sum(sizes[name] for name in found) + unknown
        if size >= smallest and (not found or hidden >= smallest):
            break
        found.add(level)
    return found


def audit(
    attribute: str,
    decision: Decision,
    levels: pl.Series,
    draws: Resamples,
    everybody: Group,
    *,
    smallest: int,
    max_gap: float,
    attributes: int,
    seed: int = 0,
) -> Audit:
    """Measure one attribute.

    Args:
        attribute: its name.
        decision: of all users of the date.
        levels: each user's value as text, null where it is not known, shape (rows,).
        draws: bootstrap draws of users.
        everybody: measure_everybody of the decision.
        smallest: groups with fewer users are suppressed.
        max_gap: a gap beyond it is a warning where chance does not explain it.
        attributes: how many are looked at together.
        seed: of the permutations.
    """
    members = dict(by_level(levels))
    sizes = {level: len(positions) for level, positions in members.items()}
    hidden = suppressed_levels(sizes, levels.null_count(), smallest)
    groups = [
        Group(level, sizes[level]) if level in hidden else _group(level, decision, positions, draws)
        for level, positions in members.items()
    ]
    shown = [group for group in groups if group.figures]
    gaps = []
    if len(shown) > 1:
        rows = np.concatenate([members[group.level] for group in shown])
        codes = np.repeat(np.arange(len(shown)), [group.users for group in shown])
        tests = pair_p_values(take(decision.outcome, rows), decision.contacted[rows], codes, seed)
        adjusted = {metric: np.minimum(p * attributes, 1.0) for metric, p in tests.items()}
        gaps = [gap for metric in METRICS if (gap := _gap(metric, shown, adjusted.get(metric), max_gap))]
    return Audit(attribute, everybody, groups, gaps, levels.null_count())


def measure_everybody(decision: Decision, draws: Resamples) -> Group:
    """All users of the date, whether their attributes are known or not."""
    return _group(ALL, decision, np.arange(len(decision.contacted)), draws)


def _group(level: str, decision: Decision, positions: IntArray, draws: Resamples) -> Group:
    churned = int(decision.outcome.y[positions].sum())
    return Group(level, len(positions), churned, measure_level(decision, positions, draws))


def _gap(metric: str, shown: Sequence[Group], p_values: Any, max_gap: float) -> Gap | None:
    """None where fewer than two groups have the figure."""
    values = np.array([group.figures[metric].value for group in shown])
    if np.isfinite(values).sum() < 2:
        return None
    high, low = int(np.nanargmax(values)), int(np.nanargmin(values))
    p_value, pair = None, None
    if metric in TESTED:
        beyond = np.subtract.outer(values, values) > max_gap
        if beyond.any():
            i, j = np.unravel_index(np.argmin(np.where(beyond, p_values, np.inf)), beyond.shape)
            p_value, pair = float(p_values[i, j]), (shown[int(i)].level, shown[int(j)].level)
    difference = shown[high].figures[metric].minus(shown[low].figures[metric])
    return Gap(metric, difference, shown[high].level, shown[low].level, p_value, pair)
