"""Experiments whose truth is known, many at a time: how often is a difference claimed?"""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from lcm_ml.decisions.experiments.analysis import Look, analyse
from lcm_ml.decisions.experiments.design import Baseline, Experiment, sample_size
from lcm_ml.decisions.experiments.effects import compare_arms
from lcm_ml.decisions.experiments.metrics import COUNTS, METRICS
from lcm_ml.decisions.experiments.planning import of_campaign
from lcm_ml.decisions.experiments.sequential import limits

EFFECT = 0.25
REVENUE = METRICS["revenue_per_user"]
START = date(2026, 1, 5)


def users_needed(correlation: float = 0.0, looks: int = 1) -> int:
    """Of one arm, for an effect of EFFECT standard deviations with power 0.8."""
    size = sample_size(Baseline(1.0, 1.0, correlation, 0), REVENUE, EFFECT, uses_cuped=True, looks=looks)
    return size.per_arm[0]


def fixed(runs: int, effect: float, correlation: float, uses_cuped: bool, seed: int) -> tuple[float, float]:
    """One test at the end: share of runs that claim a difference, mean variance reduction."""
    rng = np.random.default_rng(seed)
    arm = np.arange(2 * users_needed(correlation if uses_cuped else 0.0)) % 2
    claimed, reductions = 0, 0.0
    for _ in range(runs):
        before = rng.normal(size=len(arm))
        value = correlation * before + np.sqrt(1 - correlation**2) * rng.normal(size=len(arm)) + effect * arm
        found = compare_arms(value, arm, 2, before[:, None] if uses_cuped else None)
        claimed += bool(found.p_values[0] <= 0.05)
        reductions += float(found.reductions[0])
    return claimed / runs, reductions / runs


def with_looks(runs: int, effect: float, looks: int, seed: int) -> float:
    """Users come one after the other; the test is taken at each look, and stops at the first claim."""
    rng = np.random.default_rng(seed)
    each = users_needed(looks=looks)
    fractions = [(look + 1) / looks for look in range(looks)]
    bounds = limits(fractions, 0.05)
    arm = np.arange(2 * each) % 2
    claimed = 0
    for _ in range(runs):
        value = rng.normal(size=len(arm)) + effect * arm
        for fraction, bound in zip(fractions, bounds, strict=True):
            seen = round(len(arm) * fraction)
            found = compare_arms(value[:seen], arm[:seen], 2)
            if abs(found.effects[0] / found.errors[0]) >= bound:
                claimed += 1
                break
    return claimed / runs


def plan(**changes: object) -> Experiment:
    """An experiment of 28 days on conversion that began on START."""
    base = of_campaign("x", "conversion", [], 28, START, START + timedelta(days=28))
    return replace(base, kind="experiment", strata=(), status="running", **changes)


def purchases(user_ids: list[str], day: np.ndarray) -> pl.DataFrame:
    """User days with one purchase each. A negative day lies before START."""
    columns = {name: np.zeros(len(user_ids)) for name in COUNTS} | {"orders": np.ones(len(user_ids))}
    dates = [START + timedelta(days=int(value)) for value in day]
    return pl.DataFrame({"user_id": user_ids, "day": day, "event_date": dates, **columns})


def cohort(rng: np.random.Generator, users: int, rates: tuple[float, float]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Users assigned at once, whose first purchase comes at a rate per day that the arm sets."""
    ids = np.array([f"u{k:05d}" for k in range(users)])
    arm = rng.permutation(np.arange(users) % 2)
    first = np.floor(rng.exponential(1 / np.array(rates)[arm])).clip(max=400).astype(int)
    names = np.where(arm == 1, "treatment", "control")
    frame = pl.DataFrame({"user_id": ids, "arm": names, "stratum": "all", "assigned_on": START})
    return frame, purchases(list(ids), first)


def cohort_with_looks(runs: int, users: int, rates: tuple[float, float], looks: int, seed: int) -> float:
    """`analyse` itself, at each look of a cohort whose conversion fills up: share of runs that claim a difference."""
    rng = np.random.default_rng(seed)
    experiment = plan(looks=looks, uses_cuped=False)
    claimed = 0
    for _ in range(runs):
        frame, days = cohort(rng, users, rates)
        past: list[Look] = []
        for look in range(looks):
            as_of = START + timedelta(days=28 * (look + 1) // looks)
            found = analyse(experiment, frame, days, as_of, past)
            if found.verdict in ("better", "worse"):
                claimed += 1
                break
            past.append(Look(as_of, found.fraction))
    return claimed / runs
