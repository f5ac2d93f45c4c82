"""Uplift on campaigns whose effects are known, and in the warehouse."""

import math
from datetime import date

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from lifecycle import change, lcm, query
from scipy.stats import spearmanr
from simulated_uplift import campaign, policy_share

from lcm_ml.decisions.later import split_by_campaign
from lcm_ml.decisions.uplift.comparing import choose_learner, effect_scores, measure_held_out
from lcm_ml.decisions.uplift.evaluation import gain_curve
from lcm_ml.decisions.uplift.learners import LEARNERS, fit_learners
from lcm_ml.decisions.uplift.naming import uplift_segments
from lcm_ml.decisions.uplift.overlap import check_overlap, refusal
from lcm_ml.decisions.uplift.trial import Trial
from lcm_ml.decisions.uplift.uplifting import fit_effects
from lcm_ml.reporting.sections.uplift import comparable, effects

USERS = 8_000


def figures_of(rows, learner):
    return {row["metric"]: row for row in rows if row["learner"] == learner}


def test_effects_that_are_known_are_found_and_worth_acting_on():
    known, held_out = campaign(USERS, 1), campaign(USERS, 2)
    chosen, compared = choose_learner(known.trial, 0, lambda share: None)
    assert figures_of(compared, chosen)["r_loss_less_constant"]["ci_high"] < 0
    fits = fit_learners(known.trial, 0)
    rows, curves, rankings = measure_held_out(fits, chosen, held_out.trial, 0)
    truth = held_out.expected_effect
    for learner in LEARNERS:
        assert spearmanr(rankings[learner], truth)[0] >= 0.6, learner
    assert spearmanr(rankings[chosen], truth)[0] >= 0.8
    assert policy_share(truth, rankings[chosen], cost=0.0) >= 0.95
    assert policy_share(truth, rankings[chosen], cost=0.06) >= 0.9
    own = figures_of(rows, chosen)
    assert own["qini"]["ci_low"] > 0
    assert own["gain_all"]["ci_low"] < truth.mean() < own["gain_all"]["ci_high"]
    # A ranking by the truth is what none can better but by chance.
    best = gain_curve(truth, effect_scores(fits, held_out.trial), held_out.trial.user)
    assert best.qini().minus(curves[chosen].qini()).interval[1] > 0


def test_an_effect_that_is_the_same_for_everybody_is_not_told_apart():
    known, held_out = campaign(USERS, 3, spread=0.0), campaign(USERS, 4, spread=0.0)
    rows, _, _ = measure_held_out(fit_learners(known.trial, 0), "dr_learner", held_out.trial, 0)
    qini = figures_of(rows, "dr_learner")["qini"]
    assert qini["ci_low"] < 0 < qini["ci_high"]


def test_the_standard_error_covers_most_of_the_truth():
    known = campaign(USERS, 5)
    others = campaign(2_000, 6)
    effect, error = fit_effects(known.trial, "x_learner", 0)(others.trial.x)
    assert (error > 0).all()
    inside = np.abs(effect - others.expected_effect) <= 1.96 * error
    assert 0.6 <= inside.mean() <= 1


def test_touches_that_follow_the_features_are_no_experiment_but_can_be_compared():
    at_random, by_choice = campaign(USERS, 7).trial, campaign(USERS, 7, observational=True)
    one = np.zeros(USERS, dtype=np.int64)
    assert check_overlap(at_random.x, at_random.treated, one, at_random.user, 0).design == "randomised"
    trial = by_choice.trial
    overlap = check_overlap(trial.x, trial.treated, one, trial.user, 0)
    assert overlap.design == "observational"
    assert refusal(overlap, trial.treated, np.ones(USERS, dtype=bool)) is None
    assert np.corrcoef(overlap.propensity, trial.propensity)[0, 1] > 0.9
    told = Trial(trial.x, trial.treated, trial.outcome, overlap.propensity.clip(0.05, 0.95), trial.user)
    fits = fit_learners(told, 0, ("dr_learner",))
    truth = by_choice.expected_effect
    naive = trial.outcome[trial.treated > 0].mean() - trial.outcome[trial.treated == 0].mean()
    found = fits.effects["dr_learner"](trial.x)
    assert abs(found.mean() - truth.mean()) < abs(naive - truth.mean()) / 2
    assert spearmanr(found, truth)[0] >= 0.6


def test_without_overlap_the_comparison_is_refused():
    trial = campaign(USERS, 8, observational=True, extreme=6.0).trial
    overlap = check_overlap(trial.x, trial.treated, np.zeros(USERS, dtype=np.int64), trial.user, 0)
    told = refusal(overlap, trial.treated, np.ones(USERS, dtype=bool))
    assert told is not None
    assert "no counterpart" in told


def test_a_share_treated_that_differs_between_campaigns_is_still_at_random():
    rng = np.random.default_rng(0)
    number = rng.integers(0, 2, USERS)
    treated = (rng.random(USERS) < np.where(number == 0, 0.3, 0.8)).astype(float)
    x = np.column_stack([rng.normal(size=(USERS, 3)), number]).astype(np.float32)
    overlap = check_overlap(x, treated, number, np.arange(USERS), 0)
    assert overlap.design == "randomised"
    assert np.unique(overlap.propensity).round(1).tolist() == [0.3, 0.8]


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=40))
@example_settings(max_examples=20)
def test_a_gain_curve_ends_at_the_mean_and_lies_between_the_worst_and_the_best_ranking(rows):
    ranking, score = (np.array(values) for values in zip(*rows, strict=True))
    user = np.arange(len(rows))
    curve, best, worst = (gain_curve(one, score, user) for one in (ranking, score, -score))
    assert curve.gain[0] == 0
    assert math.isclose(curve.gain[-1], score.mean(), abs_tol=1e-9)
    assert (curve.gain <= best.gain + 1e-9).all()
    assert (curve.gain >= worst.gain - 1e-9).all()
    same = gain_curve(np.zeros(len(rows)), score, user)
    np.testing.assert_allclose(same.gain, same.random, atol=1e-9)
    assert abs(same.qini().value) < 1e-9


def test_qini_by_hand():
    # Half of the users gain 2, half lose 1; ranked right: up to 1 at one half, then down to 0.5.
    score = np.repeat([2.0, -1.0], 100)
    curve = gain_curve(score, score, np.arange(200))
    assert curve.at(0.5).value == pytest.approx(1.0)
    assert curve.auuc().value == pytest.approx((0.5 * 1.0 + 0.75) / 2)
    assert curve.qini().value == pytest.approx(0.625 - 0.25)


def test_segments_by_effect_and_baseline():
    effect, error = np.array([0.1, 0.1, 0.005, 0.005, -0.2]), np.array([0.01, 0.2, 0.001, 0.001, 0.05])
    found = uplift_segments(effect, error, np.array([0.2, 0.8, 0.8, 0.2, 0.8]), 0.02)
    assert found.tolist() == ["persuadable", "sure_thing", "sure_thing", "lost_cause", "do_not_disturb"]


def test_no_outcome_of_training_reaches_into_the_campaigns_that_are_tested():
    days = [date(2025, 1, 1), date(2025, 1, 20), date(2025, 2, 1)]
    touches = pl.DataFrame({"campaign_id": ["a", "b", "c"], "touched_date": days})
    split = split_by_campaign(touches, 14)
    assert split.train["campaign_id"].unique().to_list() == ["a"]
    assert split.test["campaign_id"].unique().to_list() == ["c"]
    assert split_by_campaign(touches, 60) is None


OFFERS = """
    insert into marts.campaign_touches
    select
        'offer ' || as_of_date, 'offer', 'email', as_of_date + 3, user_id, as_of_date, as_of_date,
        case when hash(user_id || as_of_date) % 2 = 0 then 'control' else 'treatment' end,
        case when hash(user_id) % 3 = 0 and hash(user_id || as_of_date) % 2 = 1 then as_of_date + 1 end, 0.05
    from marts.user_features
    where as_of_date < date '2025-12-01'
"""


@pytest.fixture(scope="module")
def touched(sample):
    change(sample, "delete from marts.campaign_touches", OFFERS)
    return sample


def test_without_a_control_arm_the_command_says_what_it_needs(sample):
    change(sample, "update marts.campaign_touches set arm = 'treatment'")
    found = lcm(sample, "uplift")
    assert "hold back a random share" in found["note"]
    assert query(sample, "select count(*) as n from ml.uplift_scores").item() == 0


def test_uplift_writes_scores_curves_and_overlap(touched):
    found = lcm(touched, "uplift", "--days", "14")
    assert found["note"] is None
    assert found["design"] == "randomised"
    scores = query(touched, "select * from serving.uplift_scores_latest")
    assert scores.height == found["scored"] > 100
    assert set(scores["campaign_kind"]) == {"offer"}
    assert scores["is_best_kind"].all()
    assert scores["baseline_probability"].is_between(0, 1).all()
    assert sum(found["segments"].values()) == scores.height
    curves = query(touched, "select * from ml.uplift_curves where is_chosen order by share")
    assert curves["share"].to_list()[::50] == [0, 1]
    assert (curves["ci_low"] <= curves["ci_high"]).all()
    # Nothing was offered: that nobody was moved must not be claimed otherwise.
    assert any("not better than chance" in told for told in found["warnings"])
    assert query(touched, "select distinct arm from ml.uplift_overlap").height == 2
    with duckdb.connect(str(touched), read_only=True) as con:
        told, compared = effects(con), comparable(con)
    assert [figure.title for figure in told.figures] == ["Gain by users touched", "Segments"]
    assert "randomised" in compared.figures[0].says
    # The whole date is written again, not beside.
    lcm(touched, "uplift", "--days", "14")
    assert query(touched, "select count(*) as n from ml.uplift_scores").item() == scores.height


def test_users_left_alone_are_controls_where_asked_for(touched):
    found = lcm(touched, "uplift", "--controls", "untouched")
    assert found["controls"] == "untouched"
    assert found["note"] is None or "cannot be compared" in found["note"]
