"""ONNX files score like the models they were made of, say how to encode users, and are small where they should be."""

import json
import re
import stat
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import polars as pl
import pytest
from lifecycle import ROOT
from synthetic import LAST, churn_frame
from threadpoolctl import threadpool_limits

from lcm_ml.churn import onnx_export
from lcm_ml.churn.calibration import Calibration, fit_calibration
from lcm_ml.churn.compact import TOLERANCE, Pair, pruned, student
from lcm_ml.churn.encoding import Encoding, learn_encoding
from lcm_ml.churn.estimator import ESTIMATORS, recipes
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.model import ChurnModel, refit
from lcm_ml.churn.onnx_export import to_onnx
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import make_frame
from lcm_ml.frames.splits import split_by_date
from lcm_ml.registry import artefacts, export
from lcm_ml.registry.export import convert, largest_difference, onnx_scorer
from lcm_ml.registry.runs import Run, record
from lcm_ml.registry.versions import version_row
from lcm_ml.warehouse.connection import connect

SMALL = {
    "xgboost": {"n_trees": 100, "min_child_weight": 1.0},
    "random_forest": {"n_trees": 60},
    "gradient_boosting": {"max_iter": 40},
    "decision_tree": {"max_depth": 4},
    "neural_network": {"epochs": 5},
}
STEP = Calibration("isotonic", (0.0, 0.2, 0.3, 0.6, 1.0), (0.05, 0.1, 0.4, 0.5, 0.9))
MEMBERS = ["logistic", "xgboost", "random_forest", "neural_network"]
SMALL["ensemble"] = {
    "members": MEMBERS,
    "settings": {name: SMALL.get(name, {}) for name in MEMBERS},
    "calibrations": {"xgboost": STEP.to_dict(), "logistic": Calibration("sigmoid", (0.1,), (0.8,)).to_dict()},
}
OWN = {
    "extra_trees": {"class": "sklearn.ensemble.ExtraTreesClassifier", "parameters": {"n_estimators": 10}},
    "ranked_network": {
        "class": "sklearn.neural_network.MLPClassifier",
        "prepare": "rank",
        "parameters": {"activation": "tanh", "hidden_layer_sizes": [8, 4], "max_iter": 20},
    },
    "own_boosting": {"class": "xgboost.XGBClassifier", "prepare": "none", "parameters": {"n_estimators": 10}},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other take longer than these small fits."""
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("LCM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def frame():
    """As in churn_frame, with gaps in the flag, ties in a count, a far value, and a level of an empty name."""
    data = churn_frame(dates=4, users=400).data
    rows = pl.int_range(pl.len())
    return make_frame(
        data.with_columns(
            pl.when(rows % 9 == 0).then(None).otherwise("uses_app").alias("uses_app"),
            pl.when(rows % 11 == 0).then(None).otherwise("channel").alias("channel"),
            (pl.col("noise") * 1e6 + 1e7).alias("far"),
            pl.when(rows % 2 == 0).then(pl.lit("")).otherwise(pl.lit("named")).alias("label"),
        ),
        28,
    )


@pytest.fixture(scope="module")
def odd(frame):
    """Users as training never saw them: new levels, nothing known, and values beyond all of training's."""
    test = frame.at(LAST).data
    return pl.concat(
        [
            test,
            test.head(20).with_columns(channel=pl.lit("kiosk"), label=pl.lit(None, pl.String)),
            test.head(3).with_columns(pl.lit(None, test.schema[name]).alias(name) for name in frame.features),
            test.head(3).with_columns(days_since_last_purchase=pl.lit(1e9), orders=pl.lit(-1e9), far=pl.lit(np.inf)),
        ]
    )


@pytest.fixture(scope="module")
def fitted(frame):
    made = {}

    def fit(name):
        if name not in made:
            train = frame.at(*frame.dates()[:-1])
            recipe = recipes([name], OWN)[0]
            estimator = replace(recipe, settings={**recipe.settings, **SMALL.get(name, {})}).make(3)
            encoding, constant = learn_encoding(train.data, train.features)
            estimator.fit(encoding.matrix(train.data), train.labels())
            made[name] = ChurnModel(
                encoding, estimator, Calibration(), tuple(train.dates()), frame.horizon_days, tuple(constant)
            )
        return made[name]

    return fit


def calibrations(model, frame):
    """One of each kind; the isotonic steps are learnt from rounded predictions, so that none are near."""
    test = frame.at(LAST)
    predicted = model.estimator.predict_proba(model.encoding.matrix(test.data))
    isotonic = fit_calibration("isotonic", predicted.round(2), test.labels())
    assert len(isotonic.inputs) > 3
    return [Calibration(), Calibration("sigmoid", (0.3,), (1.4,)), isotonic]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", [*ESTIMATORS, *OWN])
def test_scores_agree_for_every_estimator_and_calibration(frame, odd, fitted, name):
    model = fitted(name)
    seen = []
    for calibration in calibrations(model, frame):
        calibrated = replace(model, calibration=calibration)
        content = to_onnx(calibrated, "v1", "full")
        x = calibrated.encoding.matrix(odd)
        expected = calibrated.predict(odd)
        assert np.isnan(x).any()
        assert np.abs(onnx_scorer(content)(x) - expected).max() <= 1e-5
        assert largest_difference(content, calibrated, x) <= 1e-5
        seen.append(expected)
    assert np.abs(seen[0] - seen[1]).max() > 0.01
    assert np.abs(seen[0] - seen[2]).max() > 0.01


@pytest.mark.parametrize("name", ["xgboost", "random_forest", "gradient_boosting", "decision_tree"])
def test_trees_agree_to_the_last_digit_where_a_calibration_is_steep(odd, fitted, name):
    model = fitted(name)
    # Enough rows for threads to share: each number of them would add up in another order.
    x = np.tile(model.encoding.matrix(odd), (5, 1))
    at = float(np.median(model.predict(odd)))
    steep = Calibration("isotonic", (0.0, at - 1e-8, at + 1e-8, 1.0), (0.1, 0.2, 0.8, 0.9))
    calibrated = replace(model, calibration=steep)
    assert largest_difference(to_onnx(calibrated, "v1", "full"), calibrated, x) <= 1e-5


def test_infinite_values_count_as_missing(odd, fitted):
    model = fitted("xgboost")
    content, x = to_onnx(model, "v1", "full"), model.encoding.matrix(odd)
    infinite = np.where(np.isnan(x), np.float32(np.inf), x)
    assert np.array_equal(onnx_scorer(content)(infinite), onnx_scorer(content)(x))


def test_metadata_say_how_to_encode(fitted):
    model = fitted("logistic")
    session = onnxruntime.InferenceSession(to_onnx(model, "v1", "student"))
    told = session.get_modelmeta().custom_metadata_map
    assert Encoding.from_dict(json.loads(told["columns"])) == model.encoding
    assert json.loads(told["matrix_columns"]) == model.encoding.names
    assert (told["model_name"], told["model_version"], told["variant"]) == ("logistic", "v1", "student")
    assert told["horizon_days"] == "28"
    assert [(i.name, i.shape[1]) for i in session.get_inputs()] == [("features", len(model.encoding.names))]


def test_what_has_no_onnx_form_is_named(frame):
    own = {"process": {"class": "sklearn.semi_supervised.LabelPropagation"}}
    train = frame.at(frame.dates()[0])
    encoding, _ = learn_encoding(train.data, train.features)
    estimator = recipes(["process"], own)[0].make(0)
    estimator._pipeline = estimator.make_pipeline(400).fit(encoding.matrix(train.data), train.labels())
    with pytest.raises(LcmError, match="LabelPropagation") as caught:
        to_onnx(ChurnModel(encoding, estimator, Calibration(), (LAST,), 28), "v1", "full")
    assert "gradient_boosting" in caught.value.next_step


@pytest.fixture(scope="module")
def shop():
    return churn_frame(dates=4, users=1200, seed=3)


@pytest.fixture(scope="module")
def split(shop):
    return split_by_date(shop.dates(), 28)


def pair(name, frame, split, settings):
    """A model as fit leaves it: evaluated without the test date, and refitted on all dates."""
    encoding, _ = learn_encoding(frame.data, frame.features)
    recipe = replace(recipes([name])[0], settings=settings)
    settled = ChurnModel(encoding, recipe.make(1), Calibration(), split.fitted, 28)
    return Pair(refit(settled, frame), refit(settled, frame.at(*split.fitted)))


@pytest.fixture(scope="module")
def whole(shop, split):
    return pair("xgboost", shop, split, {"n_trees": 300, "min_child_weight": 20.0})


@pytest.mark.parametrize("make", [pruned, student])
def test_smaller_models_are_smaller_and_stay_near(shop, split, whole, make):
    found = make(whole, shop, split)
    assert 0 < found.expected_cost <= TOLERANCE
    assert found.validation_log_loss <= found.whole_log_loss + TOLERANCE
    test = shop.at(split.test)
    size = len(convert(whole.served, "v1", "full", test)[0])
    content, _ = convert(found.pair.served, "v1", make.__name__, test)
    assert len(content) < 0.8 * size
    y, base = test.labels(), test.labels().mean()
    large, small = (mean_log_loss(y, each.evaluated.predict(test.data)) for each in (whole, found.pair))
    assert small < large + 0.01
    assert small < mean_log_loss(y, np.full(len(y), base)) - 0.05
    assert found.pair.evaluated.trained_on == split.fitted
    assert found.pair.served.trained_on == tuple(shop.dates())


@pytest.mark.parametrize("make", [pruned, student])
def test_outcomes_of_the_test_date_choose_nothing(shop, split, whole, make):
    is_test = pl.col("as_of_date") == split.test
    turned = make_frame(shop.data.with_columns(is_churned=pl.col("is_churned") ^ is_test), 28)
    found = [make(whole, frame, split) for frame in (shop, turned)]
    assert found[0].size == found[1].size
    assert found[0].validation_log_loss == found[1].validation_log_loss
    ours, theirs = (each.pair.evaluated.predict(shop.data) for each in found)
    assert np.array_equal(ours, theirs)


def test_an_ensemble_is_pruned_in_its_members_and_a_regression_not_at_all(shop, split):
    members = {"members": ["logistic", "random_forest"], "settings": {"random_forest": {"n_trees": 64}}}
    found = pruned(pair("ensemble", shop, split, members), shop, split)
    trees = found.pair.served.estimator.settings["settings"]["random_forest"]["n_trees"]
    assert trees < 64
    assert found.size == f"random_forest n_trees {trees}"
    assert pruned(pair("logistic", shop, split, {}), shop, split) is None


@pytest.fixture
def saved(warehouse, monkeypatch, shop, split, whole):
    """A warehouse with a champion and the version that was evaluated in its place; marts are stood in for."""
    facts = {"validation_date": str(split.validation), "test_date": str(split.test)}
    run = Run("fit", {})
    evaluated, served = (
        artefacts.save(model, name, facts) for model, name in ((whole.evaluated, "x-evaluated"), (whole.served, "x"))
    )
    rows = [
        version_row(whole.evaluated, "x-evaluated", evaluated, run, "evaluated"),
        version_row(whole.served, "x", served, run, "champion", "x-evaluated"),
    ]
    frame = pl.DataFrame(rows, schema_overrides={"evaluated_version": pl.String})
    record(run, lambda _: {"model_versions": frame}, print)
    monkeypatch.setattr(export, "training_frame", lambda con: shop)
    return warehouse.parent / "lcm.exports"


def exports():
    with connect(read_only=True) as con:
        return con.sql("select * from ml.model_exports order by variant").pl()


def test_the_command_writes_files_and_rows(cli, saved, shop, split, whole):
    result = cli("models", "export", "--format", "onnx", "--variant", "all", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["measured_on"] == "x-evaluated"
    assert told["as_saved"]["bytes"] > 0
    rows = exports()
    assert rows["variant"].to_list() == ["full", "pruned", "student"]
    assert (rows["max_difference"] <= 1e-5).all()
    assert (rows["microseconds_per_user"] > 0).all()
    assert rows["bytes"].to_list() == [(saved / file).stat().st_size for file in rows["file"]]
    assert {path.name for path in saved.iterdir()} == set(rows["file"])
    test = shop.at(split.test)
    # Figures are out of time, the file is the model that serves.
    assert rows["log_loss"][0] == pytest.approx(mean_log_loss(test.labels(), whole.evaluated.predict(test.data)))
    score = onnx_scorer((saved / "x-full.onnx").read_bytes())
    x = whole.served.encoding.matrix(test.data)
    assert np.abs(score(x) - whole.served.predict(test.data)).max() <= 1e-5
    assert np.abs(score(x) - whole.evaluated.predict(test.data)).max() > 1e-3
    for path in [saved, *saved.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    shown = cli("models", "export")
    assert shown.exit_code == 0
    assert "log loss less full" in shown.stdout
    assert exports().height == 3


def test_a_file_that_scores_otherwise_is_not_kept(cli, saved, monkeypatch):
    honest = onnx_export.to_onnx
    monkeypatch.setattr(onnx_export, "to_onnx", lambda model, *more: honest(replace(model, calibration=STEP), *more))
    result = cli("models", "export")
    assert result.exit_code == 1
    assert "is not kept" in result.output
    assert not saved.exists()
    with connect(read_only=True) as con:
        assert con.execute("select status from ml.model_runs where command = 'export'").fetchall() == [("failed",)]
        assert con.execute("select count(*) from ml.model_exports").fetchall() == [(0,)]


def test_wrong_use_and_a_missing_extra_are_told(cli, saved, tmp_path, monkeypatch):
    assert cli("models", "export", "--variant", "all", "--out", tmp_path / "x.onnx").exit_code == 2
    assert cli("models", "export", "--out", tmp_path / "no" / "x.onnx").exit_code == 2
    assert cli("models", "export", "--format", "pmml").exit_code == 2
    missing = cli("models", "export", "y")
    assert missing.exit_code == 1
    assert "no model version 'y'" in missing.output
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = cli("models", "export")
    assert result.exit_code == 1
    assert "lcm-ml[onnx]" in result.output
    assert not saved.exists()


def test_the_guide_scores_as_the_model_does(cli, saved, tmp_path, monkeypatch, odd, frame, fitted):
    """The snippet of docs/export.md, on users with gaps, new levels and a level of an empty name."""
    monkeypatch.chdir(tmp_path)
    model = fitted("xgboost")
    (tmp_path / "churn.onnx").write_bytes(to_onnx(model, "v1", "full"))
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    names = {"users": odd}
    exec(snippet[1], names)
    assert np.abs(names["probability"] - model.predict(odd)).max() <= 1e-5
