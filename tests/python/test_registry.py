"""Artefacts come back as they were, or not at all."""

import hashlib
import json
from datetime import date

import duckdb
import numpy as np
import polars as pl
import pytest
from synthetic import churn_frame

from lcm_ml import project
from lcm_ml.churn.estimator import ESTIMATORS, recipes
from lcm_ml.churn.model import fit_model
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.splits import split_by_date
from lcm_ml.registry import artefacts
from lcm_ml.registry.runs import Run, failure_recorded, record
from lcm_ml.registry.versions import find_version, succeeded_by, version_row
from lcm_ml.warehouse.connection import connect


@pytest.fixture(autouse=True)
def warehouse(tmp_path, monkeypatch):
    monkeypatch.setenv("LCM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    return tmp_path / "w.duckdb"


@pytest.fixture(scope="module")
def frame():
    return churn_frame(dates=4)


@pytest.fixture(scope="module", params=["logistic", "xgboost", "extra_trees", "ensemble"])
def model(request, frame):
    return fit_model(recipe(request.param), frame, split_by_date(frame.dates(), 28), 5).model


def recipe(name):
    own = {"extra_trees": {"class": "sklearn.ensemble.ExtraTreesClassifier", "parameters": {"n_estimators": 20}}}
    return recipes([name], own)[0]


def quiet(message):
    raise AssertionError(f"nothing should be told: {message}")


def test_a_loaded_model_predicts_the_same(frame, model):
    saved = artefacts.save(model, "v1", {"run_id": "r"})
    loaded, manifest = artefacts.load("v1", saved.artefact_hash)
    assert np.array_equal(loaded.predict(frame.data), model.predict(frame.data))
    assert np.array_equal(loaded.estimator.importance(), model.estimator.importance())
    assert (loaded.trained_on, loaded.horizon_days, loaded.constant) == (model.trained_on, 28, ("same",))
    assert manifest["seed"] == 5
    assert manifest["run_id"] == "r"
    assert {column["name"] for column in manifest["columns"]} == set(frame.features) - {"same"}
    assert "no purchase" in manifest["label"]["definition"]


def test_a_model_of_the_first_format_predicts_the_same(frame, model, warehouse):
    if model.name not in ESTIMATORS:
        pytest.skip("the first format had no estimators of one's own")
    artefacts.save(model, "v1", {})
    path = warehouse.parent / "w.artefacts" / "v1" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["kind"]
    path.write_text(json.dumps(manifest | {"format": 1}), encoding="utf-8")
    loaded, _ = artefacts.load("v1", hashlib.sha256(path.read_bytes()).hexdigest())
    assert np.array_equal(loaded.predict(frame.data), model.predict(frame.data))


def test_artefacts_are_private_and_hold_no_pickle(model):
    artefacts.save(model, "v1", {})
    folder = project.beside_warehouse("artefacts") / "v1"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"manifest.json", "calibration.json"} < {path.name for path in files}
    assert {path.suffix for path in files} <= {".json", ".skops", ".ubj"}
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600
        assert not path.read_bytes().startswith(b"\x80")  # how every pickle of protocol 2 and later starts
    assert [path.name for path in folder.parent.iterdir()] == ["v1"]


def test_any_change_is_noticed(model):
    saved = artefacts.save(model, "v1", {})
    folder = project.beside_warehouse("artefacts") / "v1"
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(LcmError, match=f"{path.name} was changed"):
            artefacts.load("v1", saved.artefact_hash)
        path.write_bytes(before)
    artefacts.load("v1", saved.artefact_hash)
    (folder / "calibration.json").unlink()
    with pytest.raises(LcmError, match=r"calibration.json is missing"):
        artefacts.load("v1", saved.artefact_hash)
    with pytest.raises(LcmError, match="is missing"):
        artefacts.load("v2", saved.artefact_hash)
    with pytest.raises(LcmError, match="no name of an artefact"):
        artefacts.load("../v1", saved.artefact_hash)


def test_a_failed_save_leaves_nothing_behind(model, monkeypatch):
    def full(folder):
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model.estimator, "save", full)
    with pytest.raises(OSError, match="No space left"):
        artefacts.save(model, "v1", {})
    assert list(project.beside_warehouse("artefacts").iterdir()) == []


def test_unknown_types_are_never_loaded(tmp_path):
    import os

    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    from lcm_ml.churn.logistic import Logistic
    from lcm_ml.churn.pipeline import FILE

    skops.io.dump(FunctionTransformer(os.system), tmp_path / FILE)
    with pytest.raises(LcmError, match="types that no model of ours has"):
        Logistic.load(tmp_path, 0, {})


def test_versions_follow_each_other(frame):
    model = fit_model(recipe("logistic"), frame, split_by_date(frame.dates(), 28), 5).model
    saved = artefacts.Saved("v", "h")
    for k in (1, 2):
        run = Run("fit", {})
        new = [
            version_row(model, f"e{k}", saved, run, "evaluated"),
            version_row(model, f"c{k}", saved, run, "champion", f"e{k}"),
            version_row(model, f"x{k}", saved, run, "challenger"),
        ]
        record(run, lambda con, new=new: {"model_versions": succeeded_by(con, new)}, quiet)
    with connect(read_only=True) as con:
        status = dict(con.execute("select model_version, status from ml.model_versions").fetchall())
        assert status == {
            "e1": "evaluated",
            "c1": "archived",
            "x1": "archived",
            "e2": "evaluated",
            "c2": "champion",
            "x2": "challenger",
        }
        assert find_version(con)["model_version"] == "c2"
        assert find_version(con, "c1")["evaluated_version"] == "e1"
        assert find_version(con)["trained_to"] == date(2017, 12, 4)
        with pytest.raises(LcmError, match="no model version 'c9'"):
            find_version(con, "c9")


def test_no_champion_is_named():
    with duckdb.connect() as con, pytest.raises(LcmError, match="no champion yet") as caught:
        find_version(con)
    assert "lcm-ml fit" in caught.value.next_step


def test_a_run_writes_everything_or_nothing():
    run = Run("fit", {"seed": 1}, 1)
    scores = pl.DataFrame({"nonsense": [1]})
    with pytest.raises(LcmError, match="do not fit its contract"):
        record(run, lambda _: {"churn_scores": scores}, quiet)
    record(Run("score", {}), lambda _: {}, quiet)
    with connect(read_only=True) as con:
        assert con.execute("select command, status from ml.model_runs").fetchall() == [("score", "ok")]


def test_failures_are_recorded_and_wrong_use_is_not():
    run = Run("fit", {"seed": 1}, 1)
    with pytest.raises(LcmError), failure_recorded(run, quiet):
        raise LcmError("one class only")
    with pytest.raises(ZeroDivisionError), failure_recorded(Run("score", {}), quiet):
        _ = 1 / 0
    with pytest.raises(UsageError), failure_recorded(Run("fit", {}), quiet):
        raise UsageError("no such model")
    with connect(read_only=True) as con:
        found = con.execute("select run_id, status, message, parameters from ml.model_runs order by 1").fetchall()
    assert found[0] == (run.run_id, "failed", "one class only", json.dumps({"seed": 1}))
    assert [row[2] for row in found] == ["one class only", "ZeroDivisionError: division by zero"]
