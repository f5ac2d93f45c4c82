"""The size of an experiment before it starts, from what the shop's own past shows."""

import json
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.decisions.experiments.effects import pre_period
from lcm_ml.decisions.experiments.metrics import Metric, Values
from lcm_ml.decisions.experiments.sequential import inflation
from lcm_ml.errors import UsageError

CONTROL = "control"


@dataclass(frozen=True)
class Experiment:
    """An experiment as it was planned, a row of ml.experiments.

    Attributes:
        experiment_id: its name in every table.
        hypothesis: in the user's words.
        kind: experiment, or campaign: touches that were randomised elsewhere.
        metric: the primary metric, which decides.
        secondary: metrics beside it.
        guardrails: metrics that must not get worse, with the relative margin by which they may.
        arms: names, control first.
        shares: of the arms, summing to 1.
        salt: of the hash that assigns.
        layer: experiments of one layer share nobody.
        slot: the part of the layer's users that may take part, from and to.
        strata: what the assignment is balanced by.
        stages: lifecycle stages that may take part; empty: all users seen in the active window.
        needs_consent: only users that may be contacted take part.
        alpha, power: of the primary metric, two-sided.
        mde: the effect to be found, relative to control.
        baseline_mean, baseline_sd, pre_correlation: what the size was computed from.
        n_per_arm: users of control that takes (the others by their share).
        n_available: users that could take part when it was designed.
        mde_available: the relative effect that all of these can show.
        uses_cuped: whether the size counts on it, and the analysis uses it.
        window_days, pre_days: what counts after and before each user's assignment.
        looks: planned, the last one at the end.
        starts_on: the first day that counts; the as_of_date of the (first) assignment.
        planned_days: from there to the end.
        status: designed, running, finished or stopped.
    """

    experiment_id: str
    hypothesis: str
    kind: str
    metric: str
    secondary: tuple[str, ...]
    guardrails: dict[str, float]
    arms: tuple[str, ...]
    shares: tuple[float, ...]
    salt: str
    layer: str
    slot: tuple[float, float]
    strata: tuple[str, ...]
    stages: tuple[str, ...]
    needs_consent: bool
    alpha: float
    power: float
    mde: float | None
    baseline_mean: float | None
    baseline_sd: float | None
    pre_correlation: float | None
    n_per_arm: int | None
    n_available: int | None
    mde_available: float | None
    uses_cuped: bool
    window_days: int
    pre_days: int
    looks: int
    starts_on: date
    planned_days: int
    status: str

    @property
    def ends_on(self) -> date:
        """The first day that no longer counts."""
        return self.starts_on + timedelta(days=self.planned_days)

    def row(self, as_of: date, run_id: str) -> pl.DataFrame:
        """As a row of ml.experiments."""
        plain = {name: getattr(self, name) for name in PLAIN}
        texts = {name: json.dumps(getattr(self, name)) for name in AS_JSON}
        return pl.DataFrame(
            plain
            | texts
            | {
                "slot_from": self.slot[0],
                "slot_to": self.slot[1],
                "ends_on": self.ends_on,
                "as_of_date": as_of,
                "run_id": run_id,
            },
            schema_overrides=dict.fromkeys(("n_per_arm", "n_available"), pl.Int64)
            | dict.fromkeys(("baseline_mean", "baseline_sd", "pre_correlation", "mde_available", "mde"), pl.Float64),
        )


PLAIN = (
    *("experiment_id", "hypothesis", "kind", "metric", "salt", "layer", "needs_consent", "alpha", "power", "mde"),
    *("baseline_mean", "baseline_sd", "pre_correlation", "n_per_arm", "n_available", "mde_available", "uses_cuped"),
    *("window_days", "pre_days", "looks", "starts_on", "planned_days", "status"),
)
AS_JSON = ("secondary", "guardrails", "arms", "shares", "strata", "stages")


def from_row(row: dict[str, Any]) -> Experiment:
    """An experiment from its row of ml.experiments."""
    lists: dict[str, Any] = {name: tuple(json.loads(row[name])) for name in AS_JSON if name != "guardrails"}
    return Experiment(
        **{name: row[name] for name in PLAIN},
        **lists,
        guardrails=json.loads(row["guardrails"]),
        slot=(row["slot_from"], row["slot_to"]),
    )


@dataclass(frozen=True)
class Baseline:
    """A metric as it was in the shop's past, for users who could have taken part.

    Attributes:
        mean: per user, or ratio of sums.
        sd: standard deviation of a user's contribution to it.
        correlation: of that with the pre-period's, by which CUPED takes off its square; 0 where it is not known.
        users: it was measured on; 0 where it was given.
    """

    mean: float
    sd: float
    correlation: float
    users: int


def baseline_of(values: Values) -> Baseline:
    """A metric's level, spread and how well the pre-period tells it.

    Raises:
        UsageError: when nobody did any of it.
    """
    y, x = values.value, values.weight
    mean = float(y.sum() / x.sum()) if x is not None and x.sum() else float(y.mean()) if x is None and len(y) else 0.0
    if mean == 0:
        raise UsageError("the metric is 0 in the shop's past", "take another metric, or give --baseline and --sd")
    contribution = y if x is None else mean + (y - mean * x) / x.mean()
    before = pre_period(values.pre_value, values.pre_weight)
    varies = contribution.std() > 0 and before.std() > 0
    correlation = float(np.corrcoef(contribution, before)[0, 1]) if varies else 0.0
    return Baseline(mean, float(contribution.std(ddof=1)), correlation, len(y))


def given_baseline(metric: Metric, mean: float, sd: float | None, correlation: float) -> Baseline:
    """A baseline that the user gives. The spread of a share follows from its mean.

    Raises:
        UsageError: when a spread is needed and missing, or a share is none.
    """
    if metric.is_share and not 0 < mean < 1:
        raise UsageError(f"{metric.name} is a share, and --baseline {mean:g} is none", "give one between 0 and 1")
    if sd is None and not metric.is_share:
        raise UsageError(f"{metric.name} needs its standard deviation", "give --sd")
    spread = float(np.sqrt(mean * (1 - mean))) if sd is None else sd
    return Baseline(mean, spread, correlation, 0)


@dataclass(frozen=True)
class Size:
    """What an experiment takes.

    Attributes:
        per_arm: users of each arm, control first.
        factor: what looks enlarge the sample by.
        reduction: share of the variance that CUPED is counted on to take off.
    """

    per_arm: tuple[int, ...]
    factor: float
    reduction: float

    @property
    def total(self) -> int:
        """Users of all arms."""
        return sum(self.per_arm)


def sample_size(
    baseline: Baseline,
    metric: Metric,
    effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    shares: tuple[float, ...] = (0.5, 0.5),
    uses_cuped: bool = False,
    looks: int = 1,
) -> Size:
    """Users that it takes to find an effect of this size, by the normal approximation, two-sided.

    With several arms alpha is shared among them (Bonferroni). A share has the spread that its own level gives it in
    each arm. The spread of anything else is taken to be that of the baseline in all arms.

    Args:
        baseline: of the metric.
        metric: the primary metric.
        effect: absolute.
        alpha: two-sided, for all comparisons with control together.
        power: for each arm.
        shares: of the arms, control first.
        uses_cuped: whether the analysis takes off what the pre-period tells.
        looks: planned.

    Raises:
        UsageError: for an effect of 0, or one that takes a share out of 0 to 1.
    """
    from scipy.stats import norm

    if effect == 0:
        raise UsageError("an effect of 0 cannot be found", "give the smallest effect that would matter")
    if metric.is_share and not 0 < baseline.mean + effect < 1:
        raise UsageError(
            f"{baseline.mean:.3f} {effect:+.3f} is no share", "give a smaller --mde, or take another metric"
        )
    own_alpha = alpha / (len(shares) - 1)
    factor = inflation(looks, own_alpha, power)
    reduction = baseline.correlation**2 if uses_cuped else 0.0
    z = norm.isf(own_alpha / 2) + norm.ppf(power)
    variance = baseline.sd**2
    treated = variance
    if metric.is_share:
        p = baseline.mean + effect
        treated *= p * (1 - p) / (baseline.mean * (1 - baseline.mean))
    # Of control, for the arm that takes most of it.
    control = max(variance + treated * shares[0] / share for share in shares[1:]) * (z / effect) ** 2
    control *= (1 - reduction) * factor
    return Size(tuple(int(np.ceil(control * share / shares[0])) for share in shares), factor, reduction)


def detectable(
    baseline: Baseline, total: int, shares: tuple[float, ...], alpha: float, power: float, size: Size
) -> float:
    """The absolute effect that so many users in all can show, with the spread of the baseline in all arms."""
    from scipy.stats import norm

    if not total:
        return float("inf")
    z = norm.isf(alpha / (len(shares) - 1) / 2) + norm.ppf(power)
    variance = baseline.sd**2 * (1 - size.reduction) * size.factor / total
    return float(z * np.sqrt(variance * max(1 / shares[0] + 1 / share for share in shares[1:])))


def duration(needed: int, now: int, new_per_week: float, window_days: int) -> int | None:
    """Days that an experiment takes: until enough users are in, and then until the last one's window is over.

    Args:
        needed: users in all.
        now: users that could be assigned at once.
        new_per_week: users that come anew.
        window_days: of the metric.

    Returns:
        Days; None where it would take more than two years, or nobody comes.
    """
    if needed <= now:
        return window_days
    if new_per_week <= 0:
        return None
    days = int(np.ceil((needed - now) / new_per_week * 7)) + window_days
    return days if days <= 730 else None


def checked_shares(arms: tuple[str, ...], shares: npt.ArrayLike | None) -> tuple[float, ...]:
    """Shares that sum to 1; equal ones where None.

    Raises:
        UsageError: for too few arms, a name twice, or shares that do not fit.
    """
    if len(arms) < 2 or len(set(arms)) < len(arms):
        raise UsageError(f"arms are {', '.join(arms)}", "name two or more different ones, control first")
    values = np.ones(len(arms)) if shares is None else np.asarray(shares, dtype=float)
    if len(values) != len(arms) or (values <= 0).any():
        raise UsageError(f"{len(values)} allocations for {len(arms)} arms", "give one number above 0 for each arm")
    return tuple(float(value) for value in values / values.sum())


def started(experiment: Experiment, on: date) -> Experiment:
    """The experiment as it runs from this day on; unchanged where it ran before."""
    return replace(experiment, starts_on=on, status="running") if experiment.status == "designed" else experiment
