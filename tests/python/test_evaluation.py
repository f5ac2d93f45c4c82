"""Figures that can be believed: against truth that is known, and against what chance alone gives."""

from dataclasses import replace
from datetime import date, datetime

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import LAST, churn_data, churn_frame

from lcm_ml.churn.baselines import BASELINES, baselines
from lcm_ml.churn.estimator import recipes
from lcm_ml.churn.evaluation import draws_for, predict_folds
from lcm_ml.churn.importance import permutation_rows
from lcm_ml.churn.metrics import Outcome, Resamples, calibration_error_by_chance, measure
from lcm_ml.churn.profit import Costs, profit_curve
from lcm_ml.churn.segments import segment_rows
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import make_frame
from lcm_ml.frames.splits import split_by_date
from lcm_ml.frames.steadiness import changed_features, fingerprints, refuse_changed


@pytest.fixture(scope="module")
def fold():
    frame = churn_frame()
    return predict_folds(frame, [split_by_date(frame.dates(), 28)], recipes(["logistic"]), 0, lambda *_: None)[0]


def calibrated(users: int, seed: int) -> Outcome:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.6, 3.0, users)
    return Outcome(np.array([f"u{i:06d}" for i in range(users)]), (rng.random(users) < p).astype(float), p, p)


def test_the_error_of_a_calibrated_model_is_what_chance_says():
    errors = [measure(o.y, o.score, o.probability)["ece"][0] for o in (calibrated(2000, seed) for seed in range(40))]
    mean, high = calibration_error_by_chance(calibrated(2000, 99).probability)
    assert np.mean(errors) == pytest.approx(mean, rel=0.15)
    assert np.mean(np.array(errors) > high) < 0.2
    assert calibration_error_by_chance(calibrated(50_000, 1).probability)[0] < mean / 3


@given(
    cost=st.floats(0.01, 5),
    value=st.floats(1, 100),
    rate=st.floats(0.01, 1),
)
def test_the_threshold_that_the_costs_imply_is_the_best_for_calibrated_probabilities(cost, value, rate):
    costs = Costs(cost, value, rate)
    outcome = calibrated(800, 7)
    curve = profit_curve(outcome, costs, Resamples([outcome.users], 0, 50))
    chosen = curve.filter("is_chosen").row(0, named=True)
    assert chosen["expected_profit"] >= curve["expected_profit"].max() - 1e-9
    assert chosen["threshold"] == pytest.approx(min(costs.threshold, 1))
    assert (curve["ci_low"] <= curve["realised_profit"] + 1e-9).all()
    nobody = curve.filter(pl.col("contacted_share") == 0)
    assert nobody["realised_profit"].to_list() == [0.0] * nobody.height
    assert nobody["precision"].null_count() == nobody.height


@pytest.mark.parametrize("costs", [(-1, 10, 0.1), (1, 0, 0.1), (1, 10, 0), (1, 10, 1.1)])
def test_costs_without_sense_are_refused(costs):
    with pytest.raises(UsageError, match="allow no decision"):
        Costs(*costs)


def test_small_groups_are_not_shown_and_the_others_add_up(fold):
    users = fold.outcomes["logistic"].users
    groups = pl.DataFrame(
        {
            "user_id": users,
            "lifecycle_stage": ["new"] * 5 + ["loyal"] * (len(users) - 5),
            "tenure_band": ["x"] * len(users),
            "value_band": [None] * len(users),
        },
        schema_overrides={"value_band": pl.String},
    )
    rows = pl.DataFrame(segment_rows("r", fold, groups, draws_for([fold], 0, 60), 30), infer_schema_length=None)
    small = rows.filter(pl.col("level") == "new")
    assert small["value"].null_count() == small.height == small["n_churned"].null_count()
    assert small["n_users"].unique().to_list() == [5]
    whole = rows.filter((pl.col("dimension") == "tenure_band") & (pl.col("metric") == "auc"))
    expected = {name: measure(o.y, o.score, o.probability)["auc"][0] for name, o in fold.outcomes.items()}
    assert dict(whole.select("model_name", "value").iter_rows()) == pytest.approx(expected)
    assert rows.filter(pl.col("dimension") == "value_band").is_empty()


def test_shuffling_what_matters_hurts_and_shuffling_noise_does_not(fold):
    model = fold.fitted["logistic"].model
    rows = pl.DataFrame(permutation_rows("r", model, churn_frame().at(LAST), 0))
    assert rows["feature"].to_list()[0] == "days_since_last_purchase"
    assert rows["rank"].to_list() == list(range(1, len(model.encoding.columns) + 1))
    noise = rows.filter(pl.col("feature") == "noise").row(0, named=True)
    assert noise["ci_low"] < 0.002
    assert rows["ci_low"][0] > 0.01


def test_baselines_run_where_what_they_need_is_there():
    data = churn_data(dates=4).with_columns(purchase_days_total="orders", amount_total=pl.col("orders") * 10.0)
    frame = make_frame(data, 28)
    split = split_by_date(frame.dates(), 28)
    assert list(baselines(frame.at(*split.fitted), frame.at(split.test))) == ["recency", "rfm"]
    purchases = data.select(
        "user_id",
        "as_of_date",
        repeats=pl.col("orders").fill_null(0),
        last_age=pl.col("orders").fill_null(0) * 9.0,
        age=pl.col("orders").fill_null(0) * 9.0 + pl.col("days_since_last_purchase"),
    )
    frame = replace(frame, purchases=purchases)
    found = baselines(frame.at(*split.fitted), frame.at(split.test))
    assert tuple(found) == BASELINES
    for baseline in found.values():
        assert ((baseline.probability > 0) & (baseline.probability < 1)).all()
    later = replace(frame, purchases=purchases.filter(pl.col("as_of_date") <= split.test))
    again = baselines(later.at(*split.fitted), later.at(split.test))
    assert np.array_equal(again["bg_nbd"].probability, found["bg_nbd"].probability)


@pytest.fixture
def warehouse():
    con = duckdb.connect()
    con.execute("create schema meta")
    con.execute("create table meta.processed_dates (model_name varchar, as_of_date date, input_hash ubigint)")
    con.execute("create table meta.model_builds (model_name varchar, code_hash varchar)")
    con.execute("insert into meta.model_builds values ('user_features', 'c1')")
    days = [(day,) for day in churn_frame(dates=4).dates()]
    con.executemany("insert into meta.processed_dates values ('user_features', ?, 1)", days)
    con.execute("create schema ml")
    return con


def remember(con, frame):
    rows = fingerprints(con, frame, "r", datetime(2018, 1, 1))  # noqa: F841 - DuckDB reads it by name
    con.execute("create or replace table ml.feature_fingerprints as from rows")


def test_a_feature_that_changes_after_its_date_is_named(warehouse):
    data = churn_data(dates=4)
    first = make_frame(data, 28)
    assert changed_features(warehouse, fingerprints(warehouse, first, "r", datetime(2018, 1, 1))) == {}
    remember(warehouse, first)
    # Orders of the latest date count backwards into the dates before: what a careless join does.
    peeked = data.with_columns(
        orders=pl.col("orders") + ((pl.col("as_of_date") < LAST) & (pl.col("user_id") > "u00290")).cast(pl.Int8)
    )
    now = fingerprints(warehouse, make_frame(peeked, 28), "r2", datetime(2018, 2, 1))
    changed = changed_features(warehouse, now)
    assert list(changed) == ["orders"]
    assert LAST not in changed["orders"]
    with pytest.raises(LcmError, match=r"orders .* and 2 more dates"):
        refuse_changed(changed)
    swapped = data.with_columns(channel=pl.col("channel").reverse())
    assert list(
        changed_features(warehouse, fingerprints(warehouse, make_frame(swapped, 28), "r", datetime(2018, 1, 1)))
    )
    refuse_changed({})


def test_late_rows_and_new_code_may_change_a_feature(warehouse):
    data = churn_data(dates=4)
    remember(warehouse, make_frame(data, 28))
    other = make_frame(data.with_columns(orders=pl.col("orders") + 1), 28)
    day = date(2017, 12, 4)
    warehouse.execute("update meta.processed_dates set input_hash = 2 where as_of_date = ?", [day])
    changed = changed_features(warehouse, fingerprints(warehouse, other, "r", datetime(2018, 1, 1)))
    assert day not in changed["orders"]
    warehouse.execute("update meta.model_builds set code_hash = 'c2'")
    assert changed_features(warehouse, fingerprints(warehouse, other, "r", datetime(2018, 1, 1))) == {}
