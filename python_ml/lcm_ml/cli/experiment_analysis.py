"""What `lcm-ml experiment analyse` does: read who got what and what came of it, judge, write, tell."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lcm_ml.cli.console import notify
from lcm_ml.errors import UsageError

if TYPE_CHECKING:
    import duckdb

    from lcm_ml.decisions.experiments.analysis import Analysis
    from lcm_ml.decisions.experiments.design import Experiment


def run_analyse(
    experiment_id: str | None,
    as_of: datetime | None,
    advance: Any,
    *,
    touches: str | None = None,
    metric: str = "orders_per_user",
    secondary: tuple[str, ...] = ("conversion", "revenue_per_user"),
    window_days: int = 14,
    triggered: bool = False,
) -> dict[str, Any]:
    """Judge one experiment, a campaign's touches, or every running experiment.

    Raises:
        LcmError: when the warehouse cannot be read or written, or a campaign has no control.
        UsageError: for an experiment that is not there or has not begun, or a metric that there is not.
    """
    from lcm_ml.frames import experiments as frames
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        day = frames.analysis_date(con, as_of.date() if as_of else None)
        if touches is not None:
            from lcm_ml.decisions.experiments.planning import of_campaign

            users = frames.touched_users(con, touches, day, window_days)
            first, last = users["assigned_on"].min(), users["assigned_on"].max()
            assert isinstance(first, date)
            assert isinstance(last, date)
            over = last + timedelta(days=window_days)
            chosen = [of_campaign(touches, metric, secondary, window_days, first, over)]
        elif experiment_id is not None:
            chosen = [frames.find_experiment(con, experiment_id)]
            if chosen[0].status == "designed" or chosen[0].starts_on >= day:
                raise UsageError(
                    f"{experiment_id} has nothing to analyse before {day}: it is {chosen[0].status}, from "
                    f"{chosen[0].starts_on} on",
                    "`lcm-ml experiment assign` it, and wait for a day of data",
                )
        else:
            known = frames.experiments(con)
            chosen = [one for one in known if one.status == "running" and one.starts_on < day]
    found = []
    for done, experiment in enumerate(chosen):
        advance(experiment.experiment_id, done / len(chosen))
        found.append(_analyse(experiment, day, touches, triggered))
    note = None if found else "no experiment is running with a day of data: `lcm-ml experiment design` and `assign` one"
    return {"as_of_date": day, "experiments": found, "note": note}


def run_experiment(as_of: datetime | None, advance: Any) -> dict[str, Any]:
    """Judge every running experiment, as `lcm-ml run` does.

    Raises:
        LcmError: when the warehouse cannot be read or written.
    """
    return run_analyse(None, as_of, advance)


def _analyse(experiment: "Experiment", day: date, touches: str | None, triggered: bool) -> dict[str, Any]:
    import polars as pl

    from lcm_ml.decisions.experiments.analysis import analyse
    from lcm_ml.decisions.experiments.verdicts import FINAL
    from lcm_ml.frames import experiments as frames
    from lcm_ml.frames.frame import built_settings, inputs_fingerprint
    from lcm_ml.registry.runs import Run, failure_recorded, record
    from lcm_ml.warehouse.connection import connect

    run = Run("experiment", {"action": "analyse", "experiment_id": experiment.experiment_id, "triggered": triggered})
    scope = {"experiment_id": experiment.experiment_id, "as_of_date": day}

    def analysed(con: "duckdb.DuckDBPyConnection") -> "Analysis":
        if touches is None:
            users = frames.assigned(con, experiment.experiment_id).filter(pl.col("assigned_on") < day)
            past = frames.looks_so_far(con, experiment.experiment_id)
        else:
            users, past = frames.touched_users(con, touches, day, experiment.window_days), []
        days = frames.user_days(con, users, day, experiment.window_days, experiment.pre_days)
        if triggered:
            users = users.join(days.filter(pl.col("day") >= 0), on="user_id", how="semi")
        smallest = int(built_settings(con)["min_group_size"])
        return analyse(experiment, users, days, day, past, smallest)

    # Not run_capability: a look may fall on any day, on the grid or not.
    with failure_recorded(run, notify):
        with connect(read_only=True, notify=notify) as con:
            found = analysed(con)
            run.data_fingerprint = inputs_fingerprint(con, day)
        stamp = {name: pl.lit(value) for name, value in {**scope, "run_id": run.run_id}.items()}
        is_over = experiment.status == "running" and found.verdict in FINAL
        after = replace(experiment, status="finished") if is_over else experiment
        rows = {
            "experiments": after.row(experiment.starts_on, run.run_id),
            "experiment_results": found.rows.with_columns(**stamp),
        }
        record(run, lambda _: rows, notify, scope)
    return {
        "experiment_id": experiment.experiment_id,
        "run_id": run.run_id,
        "metric": experiment.metric,
        "arms": list(experiment.arms),
        "starts_on": experiment.starts_on,
        "ends_on": experiment.ends_on,
        "look": found.look,
        "looks": experiment.looks,
        "information_fraction": found.fraction,
        "alpha_at_look": found.alpha,
        "sample_ratio_p": found.srm,
        "verdict": found.verdict,
        "says": found.says,
        "results": found.rows.drop("look", "information_fraction", "srm_p_value", "decision").to_dicts(),
    }
