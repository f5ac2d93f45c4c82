"""Searching for settings, and estimators of one's own."""

from dataclasses import replace

import pytest
from synthetic import churn_frame

from lcm_ml.churn.estimator import ESTIMATORS, recipes
from lcm_ml.churn.model import fit_model
from lcm_ml.churn.training import FitOptions, choosing_splits
from lcm_ml.churn.tuning import best_of, search, trial_of, trial_row
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.splits import split_by_date
from lcm_ml.registry import studies
from lcm_ml.registry.runs import Run
from lcm_ml.warehouse.connection import connect, rows


@pytest.fixture(scope="module")
def frame():
    return churn_frame()


def silent(what, share):
    assert 0 <= share <= 1


def searched(frame, trials, earlier=(), keep=None, model="logistic"):
    found = list(earlier)
    recipe = search(
        recipes([model])[0], frame, choosing_splits(frame, 2), 0, trials, earlier, keep or found.append, silent
    )
    return recipe, found


def test_the_best_trial_is_taken_and_the_usual_settings_are_one_of_them(frame):
    recipe, found = searched(frame, 5)
    assert [trial.number for trial in found] == list(range(5))
    assert found[0].settings == {}
    best = min((trial for trial in found if trial.log_loss is not None), key=lambda trial: trial.log_loss)
    assert recipe.settings == best.settings
    assert len({trial.settings.get("C") for trial in found}) == 5


def test_a_search_that_was_stopped_goes_on(frame):
    kept = []

    def stop_after_three(trial):
        kept.append(trial)
        if len(kept) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searched(frame, 5, keep=stop_after_three)
    _, found = searched(frame, 5, earlier=tuple(kept))
    assert found[:3] == kept
    assert [trial.number for trial in found] == list(range(5))
    again, nothing_new = searched(frame, 5, earlier=tuple(found))
    assert nothing_new == found
    assert again.settings == best_of(found).settings


def test_no_trial_reads_the_test_date(frame):
    without = frame.at(*[day for day in frame.dates() if day != frame.dates()[-1]])
    splits = choosing_splits(frame, 2)
    assert frame.dates()[-1] not in [day for split in splits for day in (*split.fitted, split.test)]
    ours = search(recipes(["decision_tree"])[0], frame, splits, 0, 3, (), lambda _: None, silent)
    theirs = search(recipes(["decision_tree"])[0], without, splits, 0, 3, (), lambda _: None, silent)
    assert ours == theirs


def test_every_trial_is_stored_as_it_ends(frame, tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    options = FitOptions(("logistic", "ensemble"), folds=2, tune=2)
    models = recipes(options.models)
    first = studies.tuned(models, frame, options, Run("fit", {}, data_fingerprint="f" * 64), silent, lambda _: None)
    assert [recipe.name for recipe in first] == ["logistic", "ensemble"]
    studies.tuned(models, frame, replace(options, tune=4), Run("fit", {}, data_fingerprint="f" * 64), silent, print)
    with connect(read_only=True) as con:
        stored = rows(con, "select * from ml.tuning_trials order by trial")
    assert [row["trial"] for row in stored] == [0, 1, 2, 3]
    assert len({row["run_id"] for row in stored}) == 2
    best = best_of([trial_of(row) for row in stored])
    assert [row["trial"] for row in stored if row["is_best"]] == [best.number]
    assert trial_of(trial_row("s", "r", "logistic", best, True)) == best


def test_what_cannot_be_searched_is_said(frame):
    with pytest.raises(UsageError, match="ensemble has no settings"):
        searched(frame, 2, model="ensemble")
    with pytest.raises(LcmError, match="too few labelled dates"):
        search(recipes(["logistic"])[0], frame, [], 0, 2, (), lambda _: None, silent)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "ensemble"])
def test_every_estimator_takes_what_the_middle_of_its_search_space_gives(frame, name):
    recipe = recipes([name])[0]
    settings = {
        key: (round((values.low + values.high) / 2) if values.integer else (values.low + values.high) / 2)
        for key, values in recipe.make(0).search_space().items()
    }
    model = fit_model(replace(recipe, settings=settings), frame, split_by_date(frame.dates(), 28), 0).model
    assert {key: model.estimator.settings[key] for key in settings} == settings


def test_an_estimator_of_ones_own_is_a_class_path_and_its_parameters(frame):
    own = {
        "extra_trees": {
            "class": "sklearn.ensemble.ExtraTreesClassifier",
            "parameters": {"n_estimators": 30},
            "candidates": [{"min_samples_leaf": 5}, {"min_samples_leaf": 50}],
            "search": {"min_samples_leaf": [2, 60]},
            "prepare": "rank",
        },
        "short": "sklearn.dummy.DummyClassifier",
    }
    trees, dummy = recipes(["extra_trees", "short"], own)
    split = split_by_date(frame.dates(), 28)
    fitted = fit_model(trees, frame, split, 0)
    assert fitted.model.name == "extra_trees"
    assert fitted.model.estimator.settings["chosen"] in own["extra_trees"]["candidates"]
    assert fitted.validation_log_loss < fit_model(dummy, frame, split, 0).validation_log_loss
    found = search(trees, frame, choosing_splits(frame, 2), 0, 2, (), lambda _: None, silent)
    assert found.kind == "custom"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"class": "no_such_package.Model"}, "cannot be imported"),
        ({"class": "sklearn.linear_model.LinearRegression"}, "has no fit and predict_proba"),
        ({"class": "sklearn.dummy.DummyClassifier", "colour": "red"}, "no entry colour"),
        ({"class": "sklearn.dummy.DummyClassifier", "prepare": "wash"}, "none of none, impute, rank"),
        ({}, "cannot be imported"),
    ],
)
def test_a_wrong_entry_is_named(entry, said):
    with pytest.raises(LcmError, match=said):
        recipes(["mine"], {"mine": entry})


def test_a_name_that_is_taken_and_wrong_parameters_are_named(frame):
    with pytest.raises(LcmError, match="names that are taken: xgboost"):
        recipes(["xgboost"], {"xgboost": {"class": "sklearn.dummy.DummyClassifier"}})
    wrong = {"mine": {"class": "sklearn.dummy.DummyClassifier", "parameters": {"depth": 3}}}
    with pytest.raises(LcmError, match="depth"):
        fit_model(recipes(["mine"], wrong)[0], frame, split_by_date(frame.dates(), 28), 0)
