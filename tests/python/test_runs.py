"""Past runs are listed, shown, compared and exported, from the tables alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from synthetic import churn_frame

from lcm_ml.churn import records
from lcm_ml.churn.estimator import Recipe
from lcm_ml.churn.evaluation import Fold, compare, draws_for, means, measure_folds, predict_folds, rolling_splits
from lcm_ml.churn.metrics import measure_auc
from lcm_ml.frames.frame import Frame
from lcm_ml.registry import artefacts
from lcm_ml.registry.mlflow_export import QUIET
from lcm_ml.registry.runs import Run, failure_recorded, record
from lcm_ml.registry.versions import version_row
from lcm_ml.warehouse.connection import connect

Cli = Callable[..., Result]
MODELS = [Recipe("logistic", "logistic", {"C": 0.1}), Recipe("decision_tree", "decision_tree")]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports mlflow first here, it reports nothing to anybody."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


def quiet(_: str) -> None:
    return None


@pytest.fixture(scope="module")
def frame() -> Frame:
    return churn_frame(dates=5, users=200)


@pytest.fixture(scope="module")
def folds(frame: Frame) -> list[Fold]:
    return predict_folds(frame, rolling_splits(frame, 2), MODELS, 0, lambda *_: None)


def evaluated(frame: Frame, folds: list[Fold], **parameters: Any) -> str:
    """A run of evaluate, recorded from these folds."""
    run = Run("evaluate", {"models": ["logistic", "decision_tree"], "seed": 0, **parameters}, 0, frame.fingerprint())
    figures = measure_folds(folds, draws_for(folds, 0, 60), lambda *_: None)
    models = [recipe for recipe in MODELS if recipe.name in folds[0].fitted]
    metrics = [
        *records.metric_rows(run.run_id, "fold", figures),
        *records.mean_rows(run.run_id, "fold", figures, means(figures)),
    ]
    tables = {
        "model_metrics": records.rows_frame(metrics),
        "model_comparisons": records.rows_frame(records.comparison_rows(run.run_id, compare(figures, models))),
        "evaluation_predictions": pl.concat([records.prediction_rows(run.run_id, fold) for fold in folds]),
    }
    record(run, lambda _: tables, quiet)
    return run.run_id


def fitted(frame: Frame, fold: Fold) -> str:
    """A run of fit with a saved model, a curve and two trials."""
    run = Run("fit", {"models": ["logistic"], "seed": 3, "own": {"depth": 2}}, 3, frame.fingerprint())
    model = fold.fitted["logistic"].model
    version = f"logistic-{run.stamp}"
    figures = measure_folds([fold], draws_for([fold], 0, 60), lambda *_: None)
    facts = {"run_id": run.run_id, "data_fingerprint": run.data_fingerprint, "test_date": str(fold.split.test)}
    saved = artefacts.save(model, version, facts)
    curve = {"run_id": run.run_id, "model_name": "logistic"}
    losses = {"train": [0.6, 0.5, 0.4], "validation": [0.61, 0.55, 0.58]}
    trial = {"study": "s", "run_id": run.run_id, "model_name": "logistic", "fold_log_losses": "[]", "seconds": 1.0}
    tables = {
        "model_versions": pl.DataFrame([version_row(model, version, saved, run, "champion")]).cast(
            {"evaluated_version": pl.String}
        ),
        "model_metrics": records.rows_frame(
            records.metric_rows(run.run_id, "test", figures, {"logistic": version})
        ),
        "training_curves": pl.DataFrame(
            [
                {**curve, "split": split, "iteration": iteration, "log_loss": loss}
                for split, own in losses.items()
                for iteration, loss in enumerate(own, start=1)
            ]
        ),
        "tuning_trials": pl.DataFrame(
            [
                {**trial, "trial": 0, "settings": '{"C": 1}', "log_loss": 0.5, "status": "complete", "is_best": False},
                {**trial, "trial": 1, "settings": '{"C": 9}', "log_loss": 0.4, "status": "complete", "is_best": True},
            ]
        ),
    }  # fmt: skip
    record(run, lambda _: tables, quiet)
    return run.run_id


def ask(cli: Cli, *arguments: object) -> dict[str, Any]:
    result = cli("runs", *arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_runs_are_listed_newest_first(cli: Cli, warehouse: Path, frame: Frame, folds: list[Fold]) -> None:
    first, second = fitted(frame, folds[-1]), evaluated(frame, folds)
    with pytest.raises(RuntimeError), failure_recorded(Run("fit", {}), quiet):
        raise RuntimeError("the disk is on fire")
    listed = ask(cli, "list")["runs"]
    assert [row["run_id"] for row in listed[1:]] == [second, first]
    assert [row["status"] for row in listed] == ["failed", "ok", "ok"]
    assert listed[1]["best_model"] in ("logistic", "decision_tree")
    assert (listed[1]["split"], listed[2]["split"]) == ("fold", "test")
    assert [row["run_id"] for row in ask(cli, "list", "--command", "evaluate")["runs"]] == [second]
    assert len(ask(cli, "list", "--limit", 1)["runs"]) == 1
    printed = cli("runs", "list").output
    assert first in printed
    assert "the disk is on fire" in printed


def test_nothing_ran_yet(cli: Cli, warehouse: Path) -> None:
    with connect():
        pass
    assert "nothing ran yet" in cli("runs", "list").output
    assert cli("runs", "show", "2026").exit_code == 2
    assert cli("runs", "export").exit_code == 1


def test_a_run_is_shown_with_all_that_it_left(cli: Cli, warehouse: Path, frame: Frame, folds: list[Fold]) -> None:
    run_id = fitted(frame, folds[-1])
    shown = ask(cli, "show", run_id[:18])
    assert shown["run_id"] == run_id
    assert shown["parameters"]["own"] == {"depth": 2}
    auc = {row["model_name"]: row for row in shown["metrics"] if row["metric"] == "auc"}
    assert {"logistic", "decision_tree", "recency"} <= set(auc)
    assert auc["logistic"]["ci_low"] < auc["logistic"]["value"] < auc["logistic"]["ci_high"]
    outcome = folds[-1].outcomes["logistic"]
    assert auc["logistic"]["value"] == pytest.approx(measure_auc(outcome.y, outcome.score))
    validation = next(row for row in shown["curves"] if row["split"] == "validation")
    assert [validation[name] for name in ("iterations", "first", "lowest", "lowest_at", "last")] == [
        3, 0.61, 0.55, 2, 0.58,
    ]  # fmt: skip
    printed = cli("runs", "show", run_id).output
    for words in ("(baseline)", "0.6100 -> 0.5800 after 3 iterations, lowest 0.5500 at 2", '{"C": 9}', "(champion)"):
        assert words in printed


def test_a_start_must_name_one_run(cli: Cli, warehouse: Path, frame: Frame, folds: list[Fold]) -> None:
    first, second = evaluated(frame, folds), evaluated(frame, folds)
    same = first[: next(place for place in range(len(first)) if first[place] != second[place])]
    result = cli("runs", "show", same)
    assert result.exit_code == 2
    assert first in result.output.replace("\n", "")
    assert cli("runs", "show", "1999").exit_code == 2
    assert cli("runs", "compare", first, first).exit_code == 2


def test_the_difference_of_two_runs_is_paired(cli: Cli, warehouse: Path, frame: Frame, folds: list[Fold]) -> None:
    """A run whose predictions are noise loses by what the two AUCs differ by, and the interval says so."""
    rng = np.random.default_rng(0)
    noise = [
        Fold(
            fold.split,
            {"logistic": fold.fitted["logistic"]},
            {
                "logistic": type(own)(own.users, own.y, score := rng.random(len(own.y)), score),
                **{name: other for name, other in fold.outcomes.items() if name not in fold.fitted},
            },
        )
        for fold in folds
        for own in [fold.outcomes["logistic"]]
    ]
    good, bad = evaluated(frame, folds), evaluated(frame, noise, resamples=60)
    found = ask(cli, "compare", good, bad)
    assert found["same_data"]
    assert found["parameters"] == {"resamples": [None, 60]}
    row = next(row for row in found["differences"] if row["metric"] == "auc")
    assert (row["run_id"], row["reference_run_id"]) == (bad, good)
    assert (row["model_name"], row["reference_name"], row["n_dates"]) == ("logistic", "logistic", 2)
    expected = np.mean(
        [
            measure_auc(mine.outcomes["logistic"].y, mine.outcomes["logistic"].score)
            - measure_auc(theirs.outcomes["logistic"].y, theirs.outcomes["logistic"].score)
            for mine, theirs in zip(noise, folds, strict=True)
        ]
    )
    assert row["value"] == pytest.approx(expected)
    assert row["ci_low"] < row["value"] < row["ci_high"] < 0
    same = ask(cli, "compare", good, evaluated(frame, folds))
    assert same["parameters"] == {}
    assert {(row["value"], row["ci_low"]) for row in same["differences"]} == {(0.0, 0.0)}
    printed = cli("runs", "compare", good, bad).output
    assert "logistic of B less logistic of A, 2 dates, 400 users: AUC -0." in printed
    assert "differs: resamples: A None, B 60" in printed


def test_other_data_other_dates_and_other_users_are_told(
    cli: Cli, warehouse: Path, frame: Frame, folds: list[Fold]
) -> None:
    whole, one_date = evaluated(frame, folds), evaluated(frame, folds[-1:])
    found = ask(cli, "compare", whole, one_date)
    assert "means are over other dates" in found["notes"][0]
    assert all(row["as_of_date"] for row in found["metrics"])
    other = churn_frame(dates=5, users=190)
    others = evaluated(other, predict_folds(other, rolling_splits(other, 1), MODELS, 0, lambda *_: None))
    found = ask(cli, "compare", whole, others)
    assert not found["same_data"]
    assert found["differences"] == []
    assert any("predicted other users" in note for note in found["notes"])
    assert "not comparable" in cli("runs", "compare", whole, others).output.replace("\n", " ")


def test_an_export_can_be_read_back_and_adds_nothing_twice(
    cli: Cli, warehouse: Path, tmp_path: Path, frame: Frame, folds: list[Fold]
) -> None:
    from mlflow.tracking import MlflowClient

    fit, run_id = fitted(frame, folds[-1]), evaluated(frame, folds)
    store = tmp_path / "store"
    exported = ask(cli, "export", "--to", "mlflow", "--uri", store)
    models = len(folds[0].outcomes)
    assert (exported["exported"], exported["skipped"]) == (2 * models, 0)
    again = ask(cli, "export", "--to", "mlflow", "--uri", store)
    assert (again["exported"], again["skipped"]) == (0, 2 * models)

    client = MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("lcm").experiment_id
    assert len(client.search_runs([experiment])) == 2 * models
    read = client.search_runs([experiment], f"tags.`lcm.key` = '{fit}/logistic'")[0]
    assert read.info.status == "FINISHED"
    assert read.data.params["own.depth"] == "2"
    assert read.data.params["model.C"] == "0.1"
    assert read.data.tags["lcm.data_fingerprint"] == frame.fingerprint()
    assert read.data.tags["lcm.model_version"].startswith("logistic-")
    outcome = folds[-1].outcomes["logistic"]
    history = client.get_metric_history(read.info.run_id, "test.auc")
    assert [(point.step, point.value) for point in history] == [
        (int(f"{folds[-1].split.test:%Y%m%d}"), pytest.approx(measure_auc(outcome.y, outcome.score)))
    ]
    curve = client.get_metric_history(read.info.run_id, "curve.validation.log_loss")
    assert sorted((point.step, point.value) for point in curve) == [(1, 0.61), (2, 0.55), (3, 0.58)]
    card = Path(client.download_artifacts(read.info.run_id, "model_card.md")).read_text()
    assert card.startswith("# Model card: logistic-")
    fold = client.search_runs([experiment], f"tags.`lcm.key` = '{run_id}/recency'")[0]
    assert "fold_mean.auc" in fold.data.metrics
    assert len(client.get_metric_history(fold.info.run_id, "fold.auc")) == 2


def test_a_half_written_run_is_written_anew(
    cli: Cli, warehouse: Path, tmp_path: Path, frame: Frame, folds: list[Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    run_id = fitted(frame, folds[-1])
    store = tmp_path / "store"
    write = MlflowClient.log_text
    monkeypatch.setattr(MlflowClient, "log_text", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    failed = cli("runs", "export", run_id, "--uri", store)
    assert failed.exit_code == 1
    assert "no space left" in failed.output
    monkeypatch.setattr(MlflowClient, "log_text", write)
    assert ask(cli, "export", run_id, "--uri", store)["exported"] > 0
    client = MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("lcm").experiment_id
    written = client.search_runs([experiment])
    assert {run.info.status for run in written} == {"FINISHED"}
    assert sorted(run.data.tags["lcm.model_name"] for run in written) == sorted(folds[-1].outcomes)


def test_without_mlflow_the_export_says_what_to_install(
    cli: Cli, warehouse: Path, frame: Frame, folds: list[Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(frame, folds)
    for name in ("mlflow", "mlflow.exceptions", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)
    result = cli("runs", "export")
    assert result.exit_code == 1
    assert "lcm-ml[mlflow]" in result.output
    assert cli("runs", "export", "--to", "wandb").exit_code == 2


def test_telemetry_is_off_before_mlflow_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom lcm_ml.registry.mlflow_export import export\n"
        "assert 'mlflow' not in sys.modules\n"
        f"export([], {tmp_path.as_uri()!r}, 'e', lambda *_: None)\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\nprint(is_telemetry_disabled())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DO_NOT"))}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert ended.stdout.strip() == "True"


def test_every_runs_command_has_an_example(cli: Cli, warehouse: Path) -> None:
    for name in ("list", "show", "compare", "export"):
        text = cli("runs", name, "--help").output
        assert "Example" in text
        assert "--json" in text
