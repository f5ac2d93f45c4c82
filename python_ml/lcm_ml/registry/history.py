"""What past runs did: their parameters, figures, curves and trials, and how they differ."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import polars as pl

from lcm_ml.churn.baselines import BASELINES
from lcm_ml.churn.ceiling import CEILING
from lcm_ml.churn.metrics import COMPARED, Outcome, Resamples, figure, mean_over_dates, measure_outcome
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import read
from lcm_ml.warehouse.connection import rows, table_exists

Advance = Callable[[str, float], None]
RESAMPLES = 500
LIST = "see `lcm-ml runs list --limit 100`"


def list_runs(con: duckdb.DuckDBPyConnection, command: str | None, limit: int) -> list[dict[str, Any]]:
    """Runs, newest first. A fit or an evaluation names its best model, with what that reached.

    The best of a fit is the one that it chose, on its test date; of an evaluation the lowest mean log loss.
    """
    if not table_exists(con, "ml", "model_runs"):
        return []
    return rows(
        con,
        """
        with chosen as (
            select run_id, any_value(model_name) as model_name
            from ml.model_versions
            where evaluated_version is not null
            group by run_id
        ),

        reached as (
            select
                run_id,
                model_name,
                split,
                as_of_date,
                max(value) filter (where metric = 'auc') as auc,
                max(value) filter (where metric = 'log_loss') as log_loss
            from ml.model_metrics
            where (split = 'test' or (split = 'fold' and as_of_date is null)) and not list_contains(?, model_name)
            group by run_id, model_name, split, as_of_date
        ),

        best as (
            select reached.*
            from reached
            left join chosen on reached.run_id = chosen.run_id
            qualify row_number() over (
                partition by reached.run_id
                order by reached.split desc, reached.model_name = chosen.model_name desc nulls last, reached.log_loss
            ) = 1
        )

        select
            runs.run_id, runs.command, runs.status, runs.started_at, runs.finished_at, runs.data_fingerprint,
            runs.message, best.model_name as best_model, best.split, best.auc, best.log_loss
        from ml.model_runs as runs
        left join best on runs.run_id = best.run_id
        where ? is null or runs.command = ?
        order by runs.run_id desc
        limit ?
        """,
        [[*BASELINES, CEILING], command, command, limit],
    )


def find_run(con: duckdb.DuckDBPyConnection, given: str) -> dict[str, Any]:
    """The run with this id, or the only one whose id starts so, with its parameters as a dictionary.

    Raises:
        UsageError: when there is none, or more than one.
    """
    found = []
    if table_exists(con, "ml", "model_runs"):
        found = rows(con, "select * from ml.model_runs where starts_with(run_id, ?) order by run_id desc", [given])
    exact = [row for row in found if row["run_id"] == given] or found
    if not exact:
        raise UsageError(f"there is no run {given!r}", LIST)
    if len(exact) > 1:
        listed = ", ".join(row["run_id"] for row in exact[:5])
        raise UsageError(f"{given!r} is the start of {len(exact)} runs: {listed}", "give more of the id")
    return exact[0] | {"parameters": json.loads(exact[0]["parameters"] or "{}")}


def find_runs(con: duckdb.DuckDBPyConnection, given: Sequence[str]) -> list[dict[str, Any]]:
    """The runs, each once, in the order given.

    Raises:
        UsageError: from find_run.
    """
    found = [find_run(con, name) for name in given]
    return list({row["run_id"]: row for row in found}.values())


def metrics_of(con: duckdb.DuckDBPyConnection, run_id: str) -> list[dict[str, Any]]:
    """The run's rows of ml.model_metrics."""
    return rows(
        con,
        "select * from ml.model_metrics where run_id = ? order by split, as_of_date nulls first, model_name, metric",
        [run_id],
    )


def describe_run(con: duckdb.DuckDBPyConnection, given: str) -> dict[str, Any]:
    """All that a run left: row, metrics, comparisons, a summary of its curves, its trials and versions.

    Raises:
        UsageError: from find_run.
    """
    run = find_run(con, given)
    run_id = [run["run_id"]]
    return run | {
        "metrics": metrics_of(con, run["run_id"]),
        "comparisons": rows(con, "select * from ml.model_comparisons where run_id = ? order by all", run_id),
        "curves": rows(
            con,
            """
            select
                model_name, split, max(iteration) as iterations, arg_min(log_loss, iteration) as first,
                min(log_loss) as lowest, arg_min(iteration, log_loss) as lowest_at, arg_max(log_loss, iteration) as last
            from ml.training_curves
            where run_id = ?
            group by model_name, split
            order by model_name, split
            """,
            run_id,
        ),
        "trials": rows(con, "select * from ml.tuning_trials where run_id = ? order by study, trial", run_id),
        "versions": rows(
            con,
            "select model_version, model_name, status from ml.model_versions where run_id = ? order by model_version",
            run_id,
        ),
    }


def flat(parameters: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested parameters as one level, their names joined by dots; lists as JSON."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = json.dumps(value, default=str) if isinstance(value, list) else value
    return found


def compare_runs(con: duckdb.DuckDBPyConnection, given: Sequence[str], advance: Advance) -> dict[str, Any]:
    """Where runs differ: parameters, figures side by side, and the first one's models against each other's.

    Figures of runs that read different data are not comparable. A paired difference is all the same, where both
    predicted the same users at the same dates with the same outcomes: that is how a new feature is judged.

    Returns:
        runs; same_data; parameters that differ, each with one value a run; metrics with one figure a run, means only
        where all runs took them over the same dates; differences; notes.

    Raises:
        UsageError: when there are fewer than two runs, or from find_run.
    """
    runs = find_runs(con, given)
    if len(runs) < 2:
        raise UsageError("there is nothing to compare with: name two runs", LIST)
    settings = [{"command": run["command"], **flat(run["parameters"])} for run in runs]
    names = dict.fromkeys(name for own in settings for name in own)
    each = {name: [own.get(name) for own in settings] for name in names}
    metrics = {run["run_id"]: metrics_of(con, run["run_id"]) for run in runs}
    dates = [{row["as_of_date"] for row in own if row["split"] == "fold"} for own in metrics.values()]
    same_dates = all(own == dates[0] for own in dates)
    differences: list[dict[str, Any]] = []
    notes = [] if same_dates else ["the runs' means are over other dates, so that single dates are shown"]
    for done, run in enumerate(runs[1:]):
        advance(run["run_id"], done / (len(runs) - 1))
        found, why = paired_differences(con, run["run_id"], runs[0]["run_id"])
        differences += found
        notes += why
    return {
        "runs": [{name: run[name] for name in ("run_id", "command", "started_at", "data_fingerprint")} for run in runs],
        "same_data": len({run["data_fingerprint"] for run in runs}) == 1,
        "parameters": {name: values for name, values in each.items() if len(set(map(str, values))) > 1},
        "metrics": [row for row in _side_by_side(metrics) if row["as_of_date"] or same_dates],
        "differences": differences,
        "notes": notes,
    }


def _side_by_side(by_run: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Metric rows of several runs, one row for each split, date, model and metric."""
    keys = ("split", "as_of_date", "model_name", "metric")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run_id, own in by_run.items():
        for row in own:
            key = tuple(row[name] for name in keys)
            place = found.setdefault(key, dict(zip(keys, key, strict=True)) | {"figures": dict.fromkeys(by_run)})
            place["figures"][run_id] = {name: row[name] for name in ("value", "ci_low", "ci_high", "n_users")}
    return list(found.values())


def paired_differences(
    con: duckdb.DuckDBPyConnection, run_id: str, reference_id: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """A run's models less the reference run's, on the dates that both predicted for the same users and outcomes.

    A model is compared with that of the same name; where there is none, with each. Users are drawn for both together.

    Returns:
        Rows with run_id, model_name, reference_run_id, reference_name, metric, the figure, n_dates and n_users, and
        notes on dates that could not be used.
    """
    mine, theirs = (_outcomes(con, each) for each in (run_id, reference_id))
    pairs = [(name, other) for name in mine for other in ([name] if name in theirs else theirs)]
    found: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for name, reference in pairs:
        days = [day for day in mine[name] if day in theirs[reference]]
        usable = [day for day in days if _same_people(mine[name][day], theirs[reference][day])]
        for day in days:
            if day not in usable:
                notes[f"{day}: {run_id} and {reference_id} predicted other users, or know other outcomes"] = None
        if not usable:
            continue
        draws = Resamples([mine[name][day].users for day in usable], 0, RESAMPLES)
        means = [
            mean_over_dates([measure_outcome(outcomes[day], draws) for day in usable])
            for outcomes in (mine[name], theirs[reference])
        ]
        found += [
            {
                "run_id": run_id,
                "model_name": name,
                "reference_run_id": reference_id,
                "reference_name": reference,
                "metric": metric,
                **figure(means[0][metric].minus(means[1][metric])),
                "n_dates": len(usable),
                "n_users": sum(len(mine[name][day].y) for day in usable),
            }
            for metric in COMPARED
        ]
    if not found and not notes:
        notes[f"{run_id} and {reference_id} have no predictions of the same date in ml.evaluation_predictions"] = None
    return found, list(notes)


def _outcomes(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, dict[Any, Outcome]]:
    """What each model of the run said of each date, users in order."""
    frame = read(
        con,
        "select model_name, as_of_date, user_id, churn_probability, is_churned from ml.evaluation_predictions "
        "where run_id = $run_id order by model_name, as_of_date, user_id",
        {"run_id": run_id},
    )
    found: dict[str, dict[Any, Outcome]] = {}
    for (name, day), part in frame.group_by("model_name", "as_of_date", maintain_order=True):
        probability = part.get_column("churn_probability").to_numpy()
        y = part.get_column("is_churned").cast(pl.Float64).to_numpy()
        users = part.get_column("user_id").to_numpy()
        found.setdefault(str(name), {})[day] = Outcome(users, y, probability, probability)
    return found


def _same_people(mine: Outcome, theirs: Outcome) -> bool:
    return len(mine.y) == len(theirs.y) and bool((mine.users == theirs.users).all() and (mine.y == theirs.y).all())


def exportable(con: duckdb.DuckDBPyConnection, given: Sequence[str]) -> list[dict[str, Any]]:
    """The runs named, or all successful ones, that have metrics; oldest first.

    Raises:
        UsageError: from find_run.
        LcmError: when there are none.
    """
    measured: set[str] = set()
    if table_exists(con, "ml", "model_metrics"):
        measured = {run_id for (run_id,) in con.execute("select distinct run_id from ml.model_metrics").fetchall()}
    found = find_runs(con, given or sorted(measured))
    if missing := [run["run_id"] for run in found if run["run_id"] not in measured]:
        raise LcmError(f"{', '.join(missing)}: no metrics, so nothing to export", "name runs of fit or evaluate")
    if not found:
        raise LcmError("no run has metrics yet", "run `lcm-ml fit`")
    return sorted(found, key=lambda run: str(run["run_id"]))
