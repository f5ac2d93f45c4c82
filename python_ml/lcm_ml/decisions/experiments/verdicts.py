"""From figures to words: sample ratio, corrections for many tests, and what may be concluded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lcm_ml.decisions.experiments.design import Experiment
from lcm_ml.decisions.experiments.effects import Effects

SRM_LIMIT = 0.001
"""Arms whose sizes are less likely than this were not split as planned (Fabijan and others 2019)."""
GUARDRAIL_ALPHA = 0.001
"""Two-sided level of a guardrail before the end (Haybittle 1971, Peto 1976): strict enough to look at any time."""

BETTER, WORSE, NONE = "better", "worse", "no difference shown yet"
STOP, INVALID, EARLY = "stop: guardrail", "invalid: sample ratio", "no conclusion before a look"
MIXED, NOTHING, TOO_FEW = "mixed", "no difference shown", "too few users"
DECISIONS = (BETTER, WORSE, MIXED, NONE, NOTHING, STOP, INVALID, EARLY, TOO_FEW)
FINAL = (BETTER, WORSE, MIXED, NOTHING, STOP)
"""Decisions after which an experiment is over."""


def sample_ratio(counts: npt.ArrayLike, shares: Sequence[float]) -> float:
    """The p-value of the arms' sizes under the planned shares (chi-squared test)."""
    from scipy.stats import chi2

    found = np.asarray(counts, dtype=float)
    expected = found.sum() * np.asarray(shares)
    if not found.sum():
        return 1.0
    return float(chi2.sf(((found - expected) ** 2 / expected).sum(), len(found) - 1))


def verdict(gain: float, p: float, alpha: float) -> str | None:
    """Of one figure: better or worse where its p-value reaches the level; None where nothing may be concluded."""
    if not alpha:
        return None
    if not p <= alpha:
        return NONE
    return BETTER if gain > 0 else WORSE


def guardrail_verdict(gain: float, error: float, margin: float, alpha: float) -> str | None:
    """Of a guardrail: `stop` where it is worse by more than the margin, `holds` where it is not, at this level.

    Args:
        gain: relative effect, above 0 where it is for the better.
        error: its standard error.
        margin: relative, above 0: what may be lost.
        alpha: two-sided.
    """
    from scipy.stats import norm

    if not alpha or not np.isfinite(error):
        return None
    reach = float(norm.isf(alpha / 2)) * error
    if gain + reach < -margin:
        return STOP
    return "holds" if gain - reach > -margin else NONE


@dataclass(frozen=True)
class Ruling:
    """What a decision rests on."""

    rows: Sequence[dict[str, Any]]
    srm: float
    look: int | None
    fraction: float
    experiment: Experiment
    primary: Effects


def decide(found: Ruling) -> tuple[str, str]:
    """The experiment's decision, and the same as a sentence."""
    experiment = found.experiment
    if found.srm < SRM_LIMIT:
        sizes = ", ".join(
            f"{name} {int(users):,}" for name, users in zip(experiment.arms, found.primary.users, strict=True)
        )
        return INVALID, (
            f"the arms are not as large as planned ({sizes}; p {found.srm:.1g}): users were lost or added in one arm, "
            "so the arms cannot be compared. Find out where they went before reading any effect"
        )
    if broken := [row for row in found.rows if row["verdict"] == STOP]:
        told = ", ".join(f"{row['metric']} {row['relative_effect']:+.1%} in {row['arm']}" for row in broken)
        return STOP, f"a guardrail is worse than its margin allows: {told}"
    if found.look is None:
        return EARLY, f"{found.fraction:.0%} of the planned days are over, and the next planned look is not due"
    primary = [row for row in found.rows if row["role"] == "primary" and row["verdict"]]
    verdicts = {row["verdict"] for row in primary} - {NONE}
    if not verdicts:
        if found.fraction < 1:
            return NONE, f"no difference in {experiment.metric} shown by look {found.look}; it goes on"
        return NOTHING, f"the planned days are over and no difference in {experiment.metric} was shown"
    told = ", ".join(f"{row['arm']} {_change(row)}" for row in primary if row["verdict"] != NONE)
    word = verdicts.pop() if len(verdicts) == 1 else MIXED
    return word, f"{experiment.metric} is {word}: {told}"


def _change(row: dict[str, Any]) -> str:
    if row["relative_effect"] is None:
        return f"{row['effect']:+.4g} ({row['ci_low']:+.4g} to {row['ci_high']:+.4g})"
    return f"{row['relative_effect']:+.1%} ({row['relative_ci_low']:+.1%} to {row['relative_ci_high']:+.1%})"
