"""What came of an experiment by a date: effects with intervals, and whether anything may be concluded."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.decisions.experiments.assignment import SEPARATOR
from lcm_ml.decisions.experiments.design import Experiment
from lcm_ml.decisions.experiments.effects import Effects, compare_arms, pre_period, strata_columns
from lcm_ml.decisions.experiments.metrics import METRICS, Metric, Values, measure
from lcm_ml.decisions.experiments.segments import effects_by_segment
from lcm_ml.decisions.experiments.sequential import limits
from lcm_ml.decisions.experiments.verdicts import (
    GUARDRAIL_ALPHA,
    SRM_LIMIT,
    TOO_FEW,
    Ruling,
    decide,
    guardrail_verdict,
    sample_ratio,
    verdict,
)
from lcm_ml.insights.significance import holm

FEWEST = 10
"""Strata with fewer users are taken together."""


OF_EFFECT = {
    **dict.fromkeys(("effect", "ci_low", "ci_high", "relative_effect"), pl.Float64),
    **dict.fromkeys(("relative_ci_low", "relative_ci_high", "ci_level"), pl.Float64),
    **dict.fromkeys(("p_value", "p_adjusted", "interaction_p_value", "variance_reduction"), pl.Float64),
    "verdict": pl.String,
}
COLUMNS = {
    **dict.fromkeys(("metric", "role", "arm", "dimension", "level"), pl.String),
    "n_users": pl.Int64,
    "mean": pl.Float64,
    **OF_EFFECT,
    "look": pl.Int64,
    **dict.fromkeys(("information_fraction", "alpha_at_look", "srm_p_value"), pl.Float64),
    "decision": pl.String,
}


@dataclass(frozen=True)
class Look:
    """A look of the past: its date and the fraction of the experiment that was over."""

    as_of_date: date
    fraction: float


@dataclass(frozen=True)
class Analysis:
    """An experiment as of a date.

    Attributes:
        rows: of ml.experiment_results, without experiment_id, as_of_date and run_id.
        look: which look this is, from 1; None between planned looks.
        fraction: share of the planned days that are over, at most 1.
        alpha: what a p-value of this look has to reach; 0 where nothing may be concluded.
        srm: p-value of the arms' sizes.
        verdict: of the experiment, one of verdicts.DECISIONS.
        says: the same as a sentence.
    """

    rows: pl.DataFrame
    look: int | None
    fraction: float
    alpha: float
    srm: float
    verdict: str
    says: str


def analyse(
    experiment: Experiment,
    users: pl.DataFrame,
    days: pl.DataFrame,
    as_of: date,
    past: Sequence[Look] = (),
    smallest: int = 30,
) -> Analysis:
    """Judge an experiment by what happened strictly before `as_of`.

    Args:
        experiment: as planned.
        users: user_id, arm, stratum, assigned_on: those assigned before `as_of`.
        days: what they did: user_id, day (from the assignment), event_date and the columns of metrics.COUNTS.
        as_of: only what happened strictly before it counts.
        past: earlier looks, oldest first.
        smallest: segments with fewer users in an arm are left out.
    """
    users = users.sort("user_id")
    fraction = _fraction(experiment, as_of)
    past = [look for look in past if look.as_of_date < as_of and look.fraction < 1]
    look = _look(experiment.looks, fraction, len(past))
    arm = _codes(users["arm"], experiment.arms)
    counts = np.bincount(arm, minlength=len(experiment.arms))
    srm = sample_ratio(counts, experiment.shares)
    study = _Study(experiment, users, days, arm)
    if counts.min() < 2:
        few = "an arm has fewer than two users"
        return Analysis(pl.DataFrame(schema=COLUMNS), look, fraction, 0.0, srm, TOO_FEW, few)
    primary = study.effects(METRICS[experiment.metric], as_of)
    others = len(experiment.arms) - 1
    alpha = _alpha(study, primary, past, fraction) if look and srm >= SRM_LIMIT else 0.0
    rows = _rows(experiment, METRICS[experiment.metric], "primary", primary, alpha, primary.p_values * others)
    secondary = {name: study.effects(METRICS[name], as_of) for name in experiment.secondary}
    adjusted = holm(np.array([found.p_values for found in secondary.values()]))
    for (name, found), p in zip(secondary.items(), adjusted, strict=True):
        rows += _rows(experiment, METRICS[name], "secondary", found, alpha, p)
    for name, margin in experiment.guardrails.items():
        found = study.effects(METRICS[name], as_of)
        level = experiment.alpha if fraction >= 1 else GUARDRAIL_ALPHA
        rows += _guardrail_rows(experiment, METRICS[name], found, margin, level if srm >= SRM_LIMIT else 0.0)
    if look:
        rows += _segment_rows(study, as_of, alpha, smallest)
    ruling = decide(Ruling(rows, srm, look, fraction, experiment, primary))
    shared = {
        "look": look,
        "information_fraction": fraction,
        "alpha_at_look": alpha,
        "srm_p_value": srm,
        "decision": ruling[0],
    }
    return Analysis(
        pl.DataFrame([row | shared for row in rows], schema=COLUMNS),
        look,
        fraction,
        alpha,
        srm,
        *ruling,
    )


class _Study:
    """The users of an experiment with what is known of them, measured as often as it takes."""

    def __init__(self, experiment: Experiment, users: pl.DataFrame, days: pl.DataFrame, arm: npt.NDArray[np.int64]):
        self.experiment, self.days, self.arm = experiment, days, arm
        self.user_ids, self.strata = users["user_id"], users["stratum"]
        self.assigned_on = users["assigned_on"]
        self.columns = strata_columns(self.strata.to_numpy(), FEWEST * len(experiment.arms))
        self.values: dict[tuple[str, date], Values] = {}

    def measured(self, metric: Metric, before: date) -> Values:
        key = (metric.name, before)
        if key not in self.values:
            plan = self.experiment
            found = measure(metric, self.user_ids, self.days, plan.window_days, plan.pre_days, before)
            self.values[key] = found
        return self.values[key]

    def at_look(self, metric: Metric, before: date) -> Effects:
        """The effects as an earlier look saw them; who was not in yet contributes 0."""
        chosen = (self.assigned_on < before).to_numpy()
        found = self.effects(metric, before, chosen)
        contributions = np.zeros((len(self.experiment.arms) - 1, len(chosen)))
        contributions[:, chosen] = found.contributions
        return replace(found, contributions=contributions)

    def effects(self, metric: Metric, before: date, chosen: npt.NDArray[np.bool_] | None = None) -> Effects:
        values = self.measured(metric, before)
        columns = self.columns
        if self.experiment.uses_cuped:
            columns = np.column_stack([pre_period(values.pre_value, values.pre_weight), columns])
        keep = np.ones(len(self.arm), dtype=bool) if chosen is None else chosen
        weight = None if values.weight is None else values.weight[keep]
        arms = len(self.experiment.arms)
        return compare_arms(values.value[keep], self.arm[keep], arms, columns[keep], weight)


def _codes(arms: pl.Series, names: Sequence[str]) -> npt.NDArray[np.int64]:
    return arms.replace_strict(list(names), list(range(len(names))), return_dtype=pl.Int64).to_numpy()


def _fraction(experiment: Experiment, as_of: date) -> float:
    if not experiment.planned_days:
        return 0.0
    return float(np.clip((as_of - experiment.starts_on).days / experiment.planned_days, 0.0, 1.0))


def _look(looks: int, fraction: float, before: int) -> int | None:
    """Which look this is: one for each planned date that has passed, however late it is taken."""
    if fraction >= 1:
        return before + 1
    return before + 1 if int(fraction * looks + 1e-9) > before else None


def _alpha(study: _Study, now: Effects, past: Sequence[Look], fraction: float) -> float:
    """The level of this look's p-values, of all comparisons with control together."""
    from scipy.stats import norm

    experiment = study.experiment
    others = len(experiment.arms) - 1
    metric = METRICS[experiment.metric]
    seen = [*(study.at_look(metric, look.as_of_date) for look in past), now]
    # How the looks go together is measured, as a window that fills has no independent increments.
    correlations = [_together(early, late) for early, late in itertools.pairwise(seen)]
    fractions = [*(look.fraction for look in past), fraction]
    bound = limits(fractions, experiment.alpha / others, correlations)[-1]
    return float(min(experiment.alpha, 2 * norm.sf(bound) * others))


def _together(early: Effects, late: Effects) -> float:
    """The correlation of two looks at the same users; the lowest of the arms', which makes the strictest limit."""
    with np.errstate(invalid="ignore"):
        shared = (early.contributions * late.contributions).sum(axis=1)
        own = np.sqrt((early.contributions**2).sum(axis=1) * (late.contributions**2).sum(axis=1))
        return float(np.nan_to_num(np.min(shared / own)))


def _rows(
    experiment: Experiment,
    metric: Metric,
    role: str,
    found: Effects,
    alpha: float,
    adjusted: npt.NDArray[np.float64],
    level: float | None = None,
) -> list[dict[str, Any]]:
    """Control's mean and each other arm's effect; intervals at the level of the look, or 1 - alpha between looks."""
    from scipy.stats import t

    own = alpha if level is None else level
    reach = t.isf((own or experiment.alpha) / (len(experiment.arms) - 1) / 2, found.degrees)
    rows = [_row(metric, role, experiment.arms[0], found, 0)]
    for place, name in enumerate(experiment.arms[1:]):
        width, relative = reach[place] * found.errors[place], reach[place] * found.relative_errors[place]
        p = float(min(1.0, adjusted[place]))
        rows.append(
            _row(metric, role, name, found, place + 1)
            | {
                "effect": found.effects[place],
                "ci_low": found.effects[place] - width,
                "ci_high": found.effects[place] + width,
                "relative_effect": found.relative[place],
                "relative_ci_low": found.relative[place] - relative,
                "relative_ci_high": found.relative[place] + relative,
                "ci_level": 1 - (own or experiment.alpha),
                "p_value": found.p_values[place],
                "p_adjusted": p,
                "variance_reduction": found.reductions[place],
                "verdict": verdict(found.effects[place] * metric.better, p, own),
            }
        )
    return [_finite(row) for row in rows]


def _row(metric: Metric, role: str, arm: str, found: Effects, place: int) -> dict[str, Any]:
    return {
        "metric": metric.name,
        "role": role,
        "arm": arm,
        "dimension": "all",
        "level": "all",
        "n_users": int(found.users[place]),
        "mean": found.means[place],
        **dict.fromkeys(OF_EFFECT),
    }


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (float(value) if np.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in row.items()
    }


def _guardrail_rows(
    experiment: Experiment, metric: Metric, found: Effects, margin: float, level: float
) -> list[dict[str, Any]]:
    rows = _rows(experiment, metric, "guardrail", found, 0.0, found.p_values, level)
    for row, relative, error in zip(rows[1:], found.relative, found.relative_errors, strict=True):
        row["verdict"] = guardrail_verdict(relative * metric.better, error, margin, level)
    return rows


def _segment_rows(study: _Study, as_of: date, alpha: float, smallest: int) -> list[dict[str, Any]]:
    """The primary metric within each level of what the assignment was balanced by."""
    experiment, metric = study.experiment, METRICS[study.experiment.metric]
    rows: list[dict[str, Any]] = []
    parts = study.strata.str.split(SEPARATOR)
    tests: list[list[float]] = []
    dimensions = []
    for place, name in enumerate(experiment.strata):
        levels = parts.list.get(place, null_on_oob=True).fill_null("")
        found = effects_by_segment(
            levels, study.arm, len(experiment.arms), lambda chosen: study.effects(metric, as_of, chosen), smallest
        )
        if len(found.effects) > 1:
            dimensions.append((name, found))
            tests.append(list(found.interaction))
    interactions = holm(np.array(tests))
    for (name, found), interaction in zip(dimensions, interactions, strict=True):
        p_levels = holm(np.array([each.p_values for each in found.effects.values()]))
        for (level, each), p in zip(found.effects.items(), p_levels, strict=True):
            of_level = _rows(experiment, metric, "segment", each, alpha, p)
            for row in of_level:
                row |= {"dimension": name, "level": level}
            for row, shared in zip(of_level[1:], interaction, strict=True):
                row["interaction_p_value"] = float(shared)
            rows += of_level
    return rows
