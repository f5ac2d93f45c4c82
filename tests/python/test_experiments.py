"""Experiments err as often as they say, and conclude only what they may."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifecycle import change, lcm, query, warehouse_at
from simulated_experiments import EFFECT, START, cohort, cohort_with_looks, fixed, plan, purchases, with_looks
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.decisions.experiments.analysis import Look, analyse
from lcm_ml.decisions.experiments.assignment import assign, free_slot, places, within_slot
from lcm_ml.decisions.experiments.design import Baseline, sample_size
from lcm_ml.decisions.experiments.effects import compare_arms, strata_columns
from lcm_ml.decisions.experiments.metrics import METRICS
from lcm_ml.decisions.experiments.sequential import inflation, limits
from lcm_ml.decisions.experiments.verdicts import guardrail_verdict, sample_ratio
from lcm_ml.insights.significance import holm
from lcm_ml.sources.simulate import SAMPLE, simulate

USERS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=120).map(
    lambda strata: pl.DataFrame({"user_id": [f"u{k}" for k in range(len(strata))], "stratum": strata})
)


@pytest.mark.parametrize(("correlation", "uses_cuped"), [(0.0, False), (0.7, True)])
def test_one_test_errs_and_finds_as_planned(correlation: float, uses_cuped: bool) -> None:
    error, reduction = fixed(2000, 0.0, correlation, uses_cuped, seed=1)
    power, _ = fixed(2000, EFFECT, correlation, uses_cuped, seed=2)
    assert error == pytest.approx(0.05, abs=0.01)
    assert power == pytest.approx(0.80, abs=0.03)
    assert reduction == pytest.approx(correlation**2, abs=0.02)


def test_looks_err_and_find_as_planned() -> None:
    assert with_looks(2000, 0.0, 4, seed=3) == pytest.approx(0.05, abs=0.01)
    assert with_looks(2000, EFFECT, 4, seed=4) == pytest.approx(0.80, abs=0.03)


def test_looks_at_a_cohort_that_fills_up_find_a_large_effect_and_seldom_none() -> None:
    assert cohort_with_looks(100, 600, (0.05, 0.05), 3, seed=5) <= 0.12
    assert cohort_with_looks(40, 600, (0.03, 0.06), 3, seed=6) >= 0.9


def test_limits_are_those_of_the_literature() -> None:
    # Lan and DeMets (1983), O'Brien-Fleming type, five equal looks, two-sided 0.05.
    assert limits([0.2, 0.4, 0.6, 0.8, 1.0], 0.05) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=1e-3)
    assert limits([1.0], 0.05) == pytest.approx([1.959964], abs=1e-5)
    assert 1.0 < inflation(2, 0.05, 0.8) < inflation(5, 0.05, 0.8) < 1.03


def test_sample_size_is_the_textbook_one() -> None:
    # Two shares, 0.10 against 0.12: (1.96 + 0.8416)^2 (0.09 + 0.1056) / 0.02^2 = 3,839 an arm.
    size = sample_size(Baseline(0.1, 0.3, 0.6, 0), METRICS["conversion"], 0.02)
    assert size.per_arm == (3839, 3839)
    with_cuped = sample_size(Baseline(0.1, 0.3, 0.6, 0), METRICS["conversion"], 0.02, uses_cuped=True)
    assert with_cuped.per_arm[0] == pytest.approx(3839 * (1 - 0.36), abs=1)
    unequal = sample_size(Baseline(0.1, 0.3, 0, 0), METRICS["conversion"], 0.02, shares=(2 / 3, 1 / 3))
    assert unequal.per_arm[0] == pytest.approx(2 * unequal.per_arm[1], abs=1)
    assert unequal.total > size.total


def test_a_stratified_assignment_needs_the_strata_in_its_variance() -> None:
    rng = np.random.default_rng(0)
    claimed = np.zeros(2)
    for _ in range(1000):
        stratum = rng.integers(0, 4, 200)
        arm = np.zeros(200, dtype=int)
        for level in range(4):
            (members,) = np.nonzero(stratum == level)
            arm[members] = rng.permutation(np.arange(len(members)) % 2)
        value = stratum + rng.exponential(1.0, 200)
        plain, adjusted = compare_arms(value, arm, 2), compare_arms(value, arm, 2, strata_columns(stratum, 10))
        claimed += [plain.p_values[0] <= 0.05, adjusted.p_values[0] <= 0.05]
    assert claimed[0] / 1000 < 0.02
    assert claimed[1] / 1000 == pytest.approx(0.05, abs=0.02)


def test_a_ratio_has_the_variance_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    arm, effects, errors = np.arange(400) % 2, [], []
    for _ in range(500):
        views = rng.poisson(rng.gamma(1, 8, 400)) + 1
        found = compare_arms(rng.binomial(views, 0.2), arm, 2, None, views)
        effects.append(found.effects[0])
        errors.append(found.errors[0])
    assert np.mean(errors) == pytest.approx(np.std(effects), rel=0.1)


@given(USERS, st.sampled_from([("control", "treatment"), ("control", "x", "y")]))
def test_arms_are_balanced_within_strata_and_the_same_in_any_order(users: pl.DataFrame, arms: tuple[str, ...]) -> None:
    shares = [1 / len(arms)] * len(arms)
    given_arms = assign(users, "s", arms, shares, together=True)
    assert given_arms.equals(assign(users.reverse(), "s", arms, shares, together=True))
    for _, stratum in given_arms.group_by("stratum"):
        sizes = [int((stratum["arm"] == arm).sum()) for arm in arms]
        assert max(sizes) - min(sizes) <= 1


def test_salts_are_independent_and_late_users_follow_their_own_place() -> None:
    users = pl.DataFrame({"user_id": [f"u{k}" for k in range(4000)], "stratum": "all"})
    arms, shares = ("control", "treatment"), (0.7, 0.3)
    one, other = (assign(users, salt, arms, shares, together=False) for salt in ("one", "other"))
    assert sample_ratio([int((one["arm"] == arm).sum()) for arm in arms], shares) > 0.001
    assert abs(np.corrcoef(one["place"], other["place"])[0, 1]) < 0.05
    late = assign(users.filter(pl.col("user_id").is_in(["u7", "u8"])), "one", arms, shares, together=False)
    assert late.equals(one.filter(pl.col("user_id").is_in(["u7", "u8"])))
    # The value that any other implementation of SHA-256 gives.
    assert places("salt", ["user"])[0] == pytest.approx(int(hashlib.sha256(b"salt:user").hexdigest()[:16], 16) / 2**64)


def test_slots_of_a_layer_share_nobody() -> None:
    users = pl.DataFrame({"user_id": [f"u{k}" for k in range(1000)]})
    first = free_slot([], 0.4)
    second = free_slot([first], 0.6)
    assert (first, second) == ((0.0, 0.4), (0.4, 1.0))
    assert free_slot([first, second], 0.1) is None
    assert free_slot([second], 0.4) == first
    shared = within_slot(users, "l", first).join(within_slot(users, "l", second), on="user_id")
    assert shared.is_empty()
    assert within_slot(users, "l", first).height == pytest.approx(400, abs=50)


def test_holm_and_guardrails() -> None:
    assert holm(np.array([[0.01, 0.04], [0.03, np.nan]])).tolist() == [[0.04, 0.09], [0.09, 1.0]]
    assert guardrail_verdict(-0.20, 0.02, 0.05, 0.001) == "stop: guardrail"
    assert guardrail_verdict(-0.01, 0.01, 0.05, 0.05) == "holds"
    assert guardrail_verdict(-0.04, 0.03, 0.05, 0.05) == "no difference shown yet"


END = START + timedelta(days=28)


def test_a_broken_split_is_not_concluded_from() -> None:
    frame, days = cohort(np.random.default_rng(0), 2000, (0.02, 0.05))
    whole = analyse(plan(), frame, days, END)
    assert (whole.verdict, whole.rows["decision"].unique().to_list()) == ("better", ["better"])
    lost = frame.filter((pl.col("arm") == "control") | (pl.int_range(pl.len()) % 6 > 0))
    broken = analyse(plan(), lost, days, END)
    assert broken.verdict == "invalid: sample ratio"
    assert broken.rows.filter(pl.col("dimension") == "all")["verdict"].drop_nulls().to_list() == []


def test_nothing_is_concluded_between_looks_or_from_later_days() -> None:
    frame, days = cohort(np.random.default_rng(0), 2000, (0.02, 0.05))
    half = START + timedelta(days=14)
    assert analyse(plan(), frame, days, half).verdict == "no conclusion before a look"
    twice = plan(looks=2)
    assert analyse(twice, frame, days, half).verdict == "better"
    assert analyse(twice, frame, days, half + timedelta(days=3), [Look(half, 0.5)]).look is None
    cut = days.filter(pl.col("event_date") < half)
    assert analyse(twice, frame, days, half).rows.equals(analyse(twice, frame, cut, half).rows)


def test_a_guardrail_stops_before_any_look() -> None:
    frame, days = cohort(np.random.default_rng(0), 4000, (0.08, 0.02))
    guarded = plan(metric="revenue_per_user", guardrails={"conversion": 0.1})
    assert analyse(guarded, frame, days, START + timedelta(days=7)).verdict == "stop: guardrail"


def test_an_effect_that_differs_between_segments_is_told() -> None:
    rng = np.random.default_rng(0)
    (one, some), (other, more) = cohort(rng, 2000, (0.02, 0.06)), cohort(rng, 2000, (0.04, 0.04))
    other, more = (part.with_columns((pl.lit("v") + pl.col("user_id")).alias("user_id")) for part in (other, more))
    frame = pl.concat([one.with_columns(stratum=pl.lit("moved")), other.with_columns(stratum=pl.lit("calm"))])
    found = analyse(replace(plan(), strata=("stage",)), frame, pl.concat([some, more]), END).rows
    moved = found.filter((pl.col("role") == "segment") & pl.col("effect").is_not_null())
    assert moved.select("level", "verdict").rows() == [("calm", "no difference shown yet"), ("moved", "better")]
    assert moved["interaction_p_value"].max() < 0.001


def test_the_effect_of_simulated_campaigns_lies_in_the_intervals() -> None:
    shop = simulate(replace(SAMPLE, users=4000, dirty=0.0))
    orders = shop.tables["events"].filter(pl.col("event_type") == "purchase").unique(["user_id", "order_id"])
    truth = shop.truth.touches.with_columns(pl.col("touched_at").cast(pl.Datetime("us")))
    covered, shown, effects = 0, 0, []
    for (_,), touches in truth.sort("campaign_id").group_by("campaign_id", maintain_order=True):
        rows = orders.join(touches, on="user_id").with_columns(pl.col("event_time").cast(pl.Datetime("us")))
        day = ((pl.col("event_time") - pl.col("touched_at")).dt.total_seconds() / 86400).ceil().cast(pl.Int64) - 1
        placed = rows.select("user_id", day=day).filter(pl.col("day").is_between(-84, 13))
        days = purchases(placed["user_id"].to_list(), placed["day"].to_numpy())
        frame = touches.select("user_id", "arm", stratum=pl.lit("all"), assigned_on=pl.lit(START))
        one = plan(metric="orders_per_user", window_days=14, pre_days=84)
        row = analyse(one, frame, days, END).rows.filter(pl.col("arm") == "treatment").row(0, named=True)
        mean = touches["treatment_effect"].mean()
        effects.append((row["effect"], mean))
        covered += row["ci_low"] <= mean <= row["ci_high"]
        shown += row["ci_low"] > 0
    assert covered >= len(effects) - 1
    assert shown >= 1
    assert np.mean([found for found, _ in effects]) == pytest.approx(np.mean([mean for _, mean in effects]), abs=0.05)


def test_from_design_to_verdict(sample: Path, tmp_path: Path) -> None:
    made = lcm(sample, "experiment", "design", "banner", "--traffic", "0.5", "--mde", "0.3", "--window-days", "14")
    assert made["users"] > made["users_now"] > 0
    assert made["note"]
    out = tmp_path / "arms.csv"
    first = lcm(sample, "experiment", "assign", "banner", "--as-of", "2025-11-24", "--out", str(out))
    assert first["newly_assigned"] == sum(first["arms"].values()) == pl.read_csv(out).height
    arms = query(sample, "select user_id, arm from ml.experiment_assignments order by 1")
    again = lcm(sample, "experiment", "assign", "banner", "--as-of", "2025-12-22")
    assert again["already_assigned"] == first["newly_assigned"]
    kept = query(sample, "select user_id, arm from ml.experiment_assignments where method = 'balanced' order by 1")
    assert kept.equals(arms)
    # Another experiment of the layer gets none of these users.
    lcm(sample, "experiment", "design", "other", "--traffic", "0.5", "--mde", "0.3", "--window-days", "14")
    lcm(sample, "experiment", "assign", "other", "--as-of", "2025-12-22")
    shared = "select user_id from ml.experiment_assignments group by 1 having count(distinct experiment_id) > 1"
    assert query(sample, shared).is_empty()
    with warehouse_at(sample):
        full = CliRunner().invoke(app, ["experiment", "design", "third", "--traffic", "0.2"])
    assert full.exit_code == 2
    (told,) = lcm(sample, "experiment", "analyse", "banner")["experiments"]
    assert told["verdict"] in ("no difference shown", "better", "worse")
    latest = query(sample, "select status, decision from serving.experiments_latest where experiment_id = 'banner'")
    assert latest.rows() == [("finished", told["verdict"])]
    before = query(sample, "select count(*) from ml.experiment_results")
    lcm(sample, "experiment", "analyse", "banner")
    assert query(sample, "select count(*) from ml.experiment_results").equals(before)


def test_outcomes_lie_strictly_after_the_assignment_and_before_the_date(sample: Path) -> None:
    one = lcm(sample, "experiment", "analyse", "--touches", "C006", "--as-of", "2025-12-01")
    change(sample, "delete from intermediate.int_events where event_date >= date '2025-12-01'")
    change(sample, "delete from staging.stg_campaign_touches where touched_date >= date '2025-12-01'")
    two = lcm(sample, "experiment", "analyse", "--touches", "C006", "--as-of", "2025-12-01")
    assert one["experiments"][0]["results"] == two["experiments"][0]["results"]
    with warehouse_at(sample):
        beyond = CliRunner().invoke(app, ["experiment", "analyse", "--as-of", "2030-01-01"])
        nobody = CliRunner().invoke(app, ["experiment", "analyse", "--touches", "C999"])
    assert (beyond.exit_code, nobody.exit_code) == (2, 1)
