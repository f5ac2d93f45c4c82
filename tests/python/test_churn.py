"""Fitting: what is learnt, what is never looked at, what is refused."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from synthetic import LAST, churn_data, churn_frame

from lcm_ml.churn.encoding import MAX_LEVELS, Encoding, learn_encoding
from lcm_ml.churn.estimator import ESTIMATORS, estimator_class, recipes
from lcm_ml.churn.evaluation import predict_folds, rolling_splits
from lcm_ml.churn.model import fit_model
from lcm_ml.churn.records import calibration_rows, importance_rows, lift_rows, prediction_rows
from lcm_ml.churn.scoring import Bands, deciles, no_longer_served, score_rows
from lcm_ml.churn.training import FitOptions, fit_models
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import make_frame
from lcm_ml.frames.splits import split_by_date

OPTIONS = FitOptions(resamples=60, folds=2)
MODELS = recipes(["logistic", "xgboost"])


def silent(what, share):
    assert 0 <= share <= 1


@pytest.fixture(scope="module")
def frame():
    return churn_frame()


@pytest.fixture(scope="module")
def result(frame):
    return fit_models(frame, MODELS, OPTIONS, silent)


def test_models_beat_the_baseline_they_stand_beside(result):
    figures = result.test_figures.models
    assert set(figures) == {"logistic", "xgboost", "recency"}
    assert figures[result.champion]["auc"].value > figures["recency"]["auc"].value > 0.6
    assert figures[result.champion]["log_loss"].value < figures["recency"]["log_loss"].value
    assert [fold.as_of_date for fold in result.latest][-1] == result.split.test == LAST
    assert {(found.model, found.reference) for found in result.comparisons} == {
        ("xgboost", "logistic"),
        ("logistic", "xgboost"),
        ("xgboost", "recency"),
        ("logistic", "recency"),
    }


def test_the_served_model_is_the_champion_on_all_dates_with_the_same_settings(frame, result):
    evaluated = result.evaluated[result.champion]
    assert evaluated.trained_on == result.split.fitted
    assert result.served.trained_on == tuple(frame.dates())
    assert result.served.estimator.settings == evaluated.estimator.settings
    assert result.served.calibration == evaluated.calibration
    assert result.served.constant == ("same",)
    assert any("constant" in note and "same" in note for note in result.notes)


def test_two_fits_with_one_seed_give_identical_scores(frame, result):
    again = fit_models(churn_frame(), MODELS, OPTIONS, silent)
    assert again.champion == result.champion
    for name, model in result.evaluated.items():
        assert np.array_equal(model.predict(frame.data), again.evaluated[name].predict(frame.data))
    assert np.array_equal(result.served.predict(frame.data), again.served.predict(frame.data))
    assert again.test_figures.models["xgboost"]["auc"].interval == result.test_figures.models["xgboost"]["auc"].interval


def test_outcomes_of_the_test_date_change_no_choice_and_no_evaluated_model(frame, result):
    turned = make_frame(
        frame.data.with_columns(
            pl.when(pl.col("as_of_date") == LAST)
            .then(~pl.col("is_churned"))
            .otherwise("is_churned")
            .alias("is_churned")
        ),
        28,
    )
    other = fit_models(turned, MODELS, OPTIONS, silent)
    assert other.champion == result.champion
    for name, model in result.evaluated.items():
        assert model.estimator.settings == other.evaluated[name].estimator.settings
        assert np.array_equal(model.predict(frame.data), other.evaluated[name].predict(frame.data))


def test_later_dates_change_no_earlier_fold(frame):
    splits = rolling_splits(frame, 10)
    full = predict_folds(frame, splits, MODELS[:1], 0, silent)
    for fold in full:
        known = frame.at(*[day for day in frame.dates() if day <= fold.split.test])
        alone = predict_folds(known, [fold.split], MODELS[:1], 0, silent)[0]
        assert np.array_equal(alone.outcomes["logistic"].probability, fold.outcomes["logistic"].probability)


def test_shuffled_labels_are_worth_nothing():
    data = churn_data(dates=5, users=500, seed=4)
    labels = data.get_column("is_churned").shuffle(seed=1)
    found = fit_models(make_frame(data.with_columns(labels), 28), MODELS, FitOptions(resamples=200, folds=2), silent)
    for name in ("logistic", "xgboost"):
        low, high = found.latest_means()[name]["auc"].interval
        assert low - 0.02 <= 0.5 <= high + 0.02


def test_a_feature_that_knows_the_answer_is_named():
    data = churn_data(dates=4)
    leaks = data.with_columns(
        refund_after=pl.when("is_churned").then(None).otherwise(1.0), state=pl.col("is_churned").cast(pl.String)
    )
    with pytest.raises(LcmError, match=r"refund_after.*state=false.*state=true") as caught:
        fit_models(make_frame(leaks, 28), MODELS, OPTIONS, silent)
    assert "noise" not in caught.value.message


@pytest.mark.parametrize("part", ["training", "validation", "test"])
def test_one_class_only_is_refused_and_named(part):
    frame = churn_frame(dates=4)
    split = split_by_date(frame.dates(), 28)
    days = {"training": split.train, "validation": (split.validation,), "test": (split.test,)}[part]
    same = frame.data.with_columns(
        pl.when(pl.col("as_of_date").is_in(list(days))).then(False).otherwise("is_churned").alias("is_churned")
    )
    with pytest.raises(LcmError, match=f"one class only.*{part} data.*stayed"):
        fit_models(make_frame(same, 28), MODELS, OPTIONS, silent)


@pytest.mark.parametrize(("dates", "said"), [(1, "a single labelled as_of_date"), (2, "only 2")])
def test_too_few_dates_are_refused(dates, said):
    with pytest.raises(LcmError, match=said):
        fit_models(churn_frame(dates=dates), MODELS, OPTIONS, silent)
    with pytest.raises(LcmError, match="no date can be predicted"):
        rolling_splits(churn_frame(dates=dates), 3)


def test_three_dates_and_few_users_are_enough():
    found = fit_models(churn_frame(dates=3, users=40, seed=2), MODELS, OPTIONS, silent)
    assert found.validation == []
    assert any("too few dates" in note for note in found.notes)


def test_unknown_models_and_a_missing_baseline_column_are_named(frame):
    with pytest.raises(UsageError, match="magic"):
        recipes(["magic"])
    without = make_frame(frame.data, 28, ["days_since_last_purchase"])
    with pytest.raises(LcmError, match="days_since_last_purchase"):
        fit_models(without, MODELS, OPTIONS, silent)


def test_encoding_keeps_nulls_and_does_not_guess_levels():
    data = pl.DataFrame(
        {"n": [1, None, 3], "flag": [True, False, None], "kind": ["b", "a", None], "one": [1, 1, 1], "inf": [1.0, 2, 3]}
    )
    encoding, constant = learn_encoding(data, data.columns)
    assert constant == ["one"]
    assert encoding.names == ["n", "flag", "kind=a", "kind=b", "inf"]
    later = pl.DataFrame({"inf": [np.inf], "kind": ["new"], "flag": [True], "n": [None], "other": [0]}).cast(
        {"n": pl.Int32}
    )
    assert np.array_equal(encoding.matrix(later), [[np.nan, 1, 0, 0, np.nan]], equal_nan=True)
    assert encoding.matrix(later).dtype == np.float32
    assert Encoding.from_dict(encoding.to_dict()) == encoding


def test_encoding_keeps_the_most_frequent_levels():
    data = pl.DataFrame({"kind": [f"k{i:03d}" for i in range(200)] + ["k199"] * 5})
    encoding, _ = learn_encoding(data, ["kind"])
    assert len(encoding.names) == MAX_LEVELS
    assert "kind=k199" in encoding.names


def test_encoding_says_what_changed():
    data = pl.DataFrame({"n": [1, 2], "kind": ["a", "b"]})
    encoding, _ = learn_encoding(data, data.columns)
    with pytest.raises(LcmError, match=r"missing: kind; changed: n \(number in training, now String\)"):
        encoding.matrix(pl.DataFrame({"n": ["1"]}))
    encoding.check(pl.DataFrame({"n": [1.5], "kind": ["a"], "new": [1]}).schema)
    with pytest.raises(LcmError, match="no feature varies"):
        learn_encoding(pl.DataFrame({"n": [1, 1]}), ["n"])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_take_columns_that_are_all_missing(name):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=300) > 0).astype(float)
    x[:, 1] = np.nan
    x[:, 2][rng.random(300) < 0.5] = np.nan
    estimator = estimator_class(name)(seed=1)
    predicted = estimator.tune(x[:200], y[:200], x[200:], y[200:])
    assert predicted.shape == (100,)
    estimator.fit(x, y)
    assert estimator.importance().shape == (3,)
    assert estimator.importance().sum() == pytest.approx(1)
    assert estimator.importance().argmax() == 0


def test_deciles_are_equal_and_ties_fall_by_user():
    users = pl.Series(f"u{i}" for i in range(9, -1, -1))
    assert deciles(np.full(10, 0.5), users).to_list() == list(range(10, 0, -1))
    assert deciles(np.arange(10) / 10, users).to_list() == list(range(10, 0, -1))
    assert deciles(np.array([0.1, 0.9, 0.5]), pl.Series(["a", "b", "c"])).to_list() == [7, 1, 4]


def test_score_rows_decide_by_the_settings(frame, result):
    day = frame.at(LAST)
    bands = Bands.from_settings({"decision_threshold": 0.3, "risk_band_high": 0.4, "risk_band_medium": 0.1})
    rows = score_rows(result.served, "v1", day, LAST, bands, "run", datetime(2018, 1, 2))
    p = rows.get_column("churn_probability").to_numpy()
    assert np.array_equal(rows.get_column("is_predicted_churn").to_numpy(), p > 0.3)
    expected = np.select([p >= 0.4, p >= 0.1], ["high", "medium"], "low")
    assert rows.get_column("risk_band").to_list() == expected.tolist()
    assert rows.get_column("is_in_training_data").all()
    evaluated = result.evaluated[result.champion]
    assert not score_rows(evaluated, "v0", day, LAST, bands, "run", datetime(2018, 1, 2))["is_in_training_data"].any()


def test_what_was_served_before_stays_as_history(frame, result):
    bands = Bands(0.5, 0.5, 0.2)
    before = score_rows(result.served, "v1", frame.at(LAST), LAST, bands, "run1", datetime(2018, 1, 2))
    fewer = before.head(10).with_columns(run_id=pl.lit("run2"))
    assert no_longer_served(before, before).is_empty()
    gone = no_longer_served(before, fewer)
    assert gone.height == before.height - 10
    assert not gone.get_column("is_served").any()
    other = before.with_columns(model_version=pl.lit("v2"))
    assert no_longer_served(before, other).height == before.height


def test_rows_for_the_tables_add_up(result):
    fold = result.test
    users = len(fold.outcomes["logistic"].y)
    predictions = prediction_rows("r", fold, {"logistic": "v1"})
    assert predictions.height == 2 * users
    bins = pl.DataFrame(calibration_rows("r", fold)).group_by("model_name").agg(pl.col("n_users").sum())
    assert bins.get_column("n_users").to_list() == [users, users]
    lift = pl.DataFrame(lift_rows("r", fold)).filter(pl.col("decile") == 10)
    assert lift.get_column("cumulative_gain").to_list() == pytest.approx([1.0] * 3)
    importance = pl.DataFrame(importance_rows("r", result.evaluated.values()))
    assert importance.group_by("model_name").agg(pl.col("importance").sum())["importance"].to_list() == pytest.approx(
        [1.0, 1.0]
    )
    assert importance.filter(pl.col("rank") == 1).get_column("feature").to_list() == ["days_since_last_purchase"] * 2


def test_the_fit_of_a_split_never_reads_its_test_date(frame):
    split = split_by_date(frame.dates(), 28)
    without = frame.at(*split.fitted)
    recipe = MODELS[1]
    ours, theirs = fit_model(recipe, frame, split, 3).model, fit_model(recipe, without, split, 3).model
    assert np.array_equal(ours.predict(frame.data), theirs.predict(frame.data))
