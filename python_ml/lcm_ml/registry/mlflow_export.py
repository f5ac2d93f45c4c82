"""Runs for MLflow: one MLflow run for each run and model, written once."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

import lcm_ml
from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.registry import artefacts
from lcm_ml.registry.card import model_card
from lcm_ml.registry.history import flat, metrics_of
from lcm_ml.registry.versions import find_version
from lcm_ml.warehouse.connection import rows

Advance = Callable[[str, float], None]
KEY = "lcm.key"
BATCH = 500
LONGEST = 5000
FIGURES = (("", "value"), (".ci_low", "ci_low"), (".ci_high", "ci_high"))
QUIET = {
    # Before the import: mlflow reports its use to its makers unless it is told not to.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # mlflow 3.14 and later refuses folders, which need no database library, unless it is told that they are meant.
    "MLFLOW_ALLOW_FILE_STORE": "true",
}


@dataclass(frozen=True)
class Metric:
    """A number of an MLflow run. `step` is the date as yyyymmdd, or the iteration of a curve."""

    key: str
    value: float
    step: int


@dataclass(frozen=True)
class Export:
    """What an MLflow run holds."""

    key: str
    name: str
    started_at: datetime
    finished_at: datetime
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[Metric]
    card: str | None


def store_uri(given: str | None) -> str:
    """Where to export to: a URI as it is, a folder as one; else MLFLOW_TRACKING_URI, else beside the warehouse."""
    named = given or os.environ.get("MLFLOW_TRACKING_URI")
    if named and "://" in named:
        return named
    folder = Path(named) if named else project.beside_warehouse("mlflow")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.absolute().as_uri()


def collect(con: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> list[Export]:
    """One Export for each model that the run has metrics of, baselines among them.

    Args:
        con: an open connection.
        run: from history.find_run.
    """
    metrics = metrics_of(con, run["run_id"])
    curves = rows(con, "select * from ml.training_curves where run_id = ? order by all", [run["run_id"]])
    exports = []
    for model in dict.fromkeys(row["model_name"] for row in metrics):
        own = [row for row in metrics if row["model_name"] == model]
        version = next((row["model_version"] for row in own if row["model_version"]), None)
        settings, card = _artefact(con, version)
        parameters = flat(run["parameters"]) | {f"model.{name}": value for name, value in flat(settings).items()}
        tags = {
            KEY: f"{run['run_id']}/{model}",
            "lcm.run_id": run["run_id"],
            "lcm.command": run["command"],
            "lcm.model_name": model,
            "lcm.model_version": version,
            "lcm.data_fingerprint": run["data_fingerprint"],
            "lcm.seed": run["seed"],
            "lcm.version": lcm_ml.__version__,
        }
        exports.append(
            Export(
                key=tags[KEY],
                name=f"{model} {run['run_id']}",
                started_at=run["started_at"],
                finished_at=run["finished_at"],
                params={name: str(value)[:LONGEST] for name, value in parameters.items()},
                tags={name: str(value) for name, value in tags.items() if value is not None},
                metrics=[*_figures(own), *_curve([row for row in curves if row["model_name"] == model])],
                card=card,
            )
        )
    return exports


def _artefact(con: duckdb.DuckDBPyConnection, version: str | None) -> tuple[dict[str, Any], str | None]:
    """Settings and card of a saved model; nothing of a baseline, or where the files are gone."""
    if version is None:
        return {}, None
    try:
        row = find_version(con, version)
        return artefacts.load(row["artefact"], row["artefact_hash"])[1]["settings"], model_card(con, version)
    except LcmError:
        return {}, None


def _figures(metrics: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    for row in metrics:
        day = row["as_of_date"]
        place = row["split"] if day else f"{row['split']}_mean"
        for suffix, name in FIGURES:
            if row[name] is not None:
                yield Metric(f"{place}.{row['metric']}{suffix}", row[name], int(f"{day:%Y%m%d}") if day else 0)


def _curve(curves: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    for row in curves:
        yield Metric(f"curve.{row['split']}.log_loss", row["log_loss"], row["iteration"])


def export(exports: Sequence[Export], uri: str, experiment: str, advance: Advance) -> dict[str, Any]:
    """Write what the store does not hold yet. A run that an earlier export left half done is written anew.

    Returns:
        uri, experiment, exported and skipped counts.

    Raises:
        LcmError: when mlflow is not installed, or the store refuses.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise LcmError(
            "the export needs mlflow-skinny, which is not installed", "pip install 'lcm-ml[mlflow]'"
        ) from None
    written = 0
    try:
        client = MlflowClient(tracking_uri=uri)
        place = _experiment(client, experiment, uri)
        for done, each in enumerate(exports):
            advance(each.name, done / len(exports))
            written += _write(client, place, each)
    except (MlflowException, ImportError, OSError) as error:
        raise LcmError(
            f"the MLflow store {uri} refused: {str(error).splitlines()[0]}",
            "check --uri: a folder, http(s)://... of a tracking server, or sqlite:///... with sqlalchemy installed",
        ) from error
    return {"uri": uri, "experiment": experiment, "exported": written, "skipped": len(exports) - written}


def _experiment(client: Any, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A database would put artefacts into the folder that the command happens to run in.
    beside = project.beside_warehouse("mlflow").absolute().as_uri() if uri.startswith("sqlite:") else None
    return str(client.create_experiment(name, artifact_location=beside))


def _write(client: Any, experiment_id: str, each: Export) -> bool:
    """Write one run, unless it is there; its status says FINISHED last."""
    from mlflow.entities import Metric as MlflowMetric
    from mlflow.entities import Param

    for known in client.search_runs([experiment_id], f"tags.`{KEY}` = '{each.key}'"):
        if known.info.status == "FINISHED":
            return False
        client.delete_run(known.info.run_id)
    ended = _milliseconds(each.finished_at)
    run_id = client.create_run(
        experiment_id, start_time=_milliseconds(each.started_at), tags=each.tags, run_name=each.name
    ).info.run_id
    params = [Param(name, value) for name, value in each.params.items()]
    metrics = [MlflowMetric(metric.key, metric.value, ended, metric.step) for metric in each.metrics]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    if each.card:
        client.log_text(run_id, each.card, "model_card.md")
    client.set_terminated(run_id, "FINISHED", ended)
    return True


def _milliseconds(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000)
