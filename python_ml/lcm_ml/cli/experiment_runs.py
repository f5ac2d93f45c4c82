"""What the commands of `lcm-ml experiment` do: read, compute, write, tell."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcm_ml.cli.console import notify
from lcm_ml.errors import LcmError, UsageError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from lcm_ml.decisions.experiments.design import Baseline
    from lcm_ml.decisions.experiments.planning import Plan, Request


def run_design(
    request: "Request",
    as_of: datetime | None,
    given: tuple[float | None, float | None, float],
    is_dry: bool,
    advance: Any,
) -> dict[str, Any]:
    """Measure the metric in the past, work out size and duration, write the design.

    Args:
        request: what was asked for.
        as_of: one of marts.as_of_dates; the end of the data where None.
        given: the metric's level, spread and correlation with its past, where the user gives them.
        is_dry: only tell.
        advance: tells the progress.

    Raises:
        LcmError: when there is too little history, or the warehouse cannot be read or written.
        UsageError: for a design that cannot be.
    """
    import polars as pl

    from lcm_ml.decisions.experiments.assignment import free_slot, within_slot
    from lcm_ml.decisions.experiments.design import given_baseline
    from lcm_ml.decisions.experiments.metrics import metric_named
    from lcm_ml.decisions.experiments.planning import checked, plan
    from lcm_ml.frames.experiments import ARRIVAL_WEEKS, STRATA, eligible_users, experiments, traffic
    from lcm_ml.frames.frame import resolve_as_of
    from lcm_ml.registry.runs import Run, failure_recorded, record
    from lcm_ml.warehouse.connection import connect

    request = checked(request, STRATA)
    run = Run("experiment", {"action": "design", "as_of": as_of.date() if as_of else None, **vars(request)})
    told: dict[str, Any] = {}

    def design(con: "duckdb.DuckDBPyConnection") -> dict[str, pl.DataFrame]:
        day = resolve_as_of(con, as_of.date() if as_of else None)
        others = [other for other in experiments(con) if other.experiment_id != request.experiment_id]
        for same in experiments(con):
            if same.experiment_id == request.experiment_id and same.status != "designed":
                raise UsageError(
                    f"{same.experiment_id} is {same.status}", "take another name: a design stays as it ran"
                )
        holders = [
            other for other in others if other.layer == request.layer and other.status in ("designed", "running")
        ]
        slot = free_slot([other.slot for other in holders], request.traffic)
        if slot is None:
            names = ", ".join(f"{other.experiment_id} ({other.slot[1] - other.slot[0]:.0%})" for other in holders)
            raise UsageError(
                f"layer {request.layer} has no room for {request.traffic:.0%} of its users: {names}",
                "lower --traffic, take another --layer, or `lcm-ml experiment stop` one",
            )
        advance("measuring the past", 0.2)
        if given[0] is None:
            baseline, measured_at = _measured(con, request, day)
        else:
            baseline, measured_at = given_baseline(metric_named(request.metric), given[0], given[1], given[2]), None
        advance("counting users", 0.7)
        users = within_slot(eligible_users(con, day, request.stages, request.needs_consent), request.layer, slot)
        per_day, per_week = traffic(con, day, users)
        new = float(users["is_new"].sum()) / ARRIVAL_WEEKS
        made = plan(request, baseline, slot, users.height, new, day)
        told.update(
            run_id=run.run_id,
            as_of_date=day,
            is_stored=not is_dry,
            measured_at=measured_at,
            baseline_users=baseline.users,
            users_per_day=per_day,
            users_per_week=per_week,
            new_users_per_week=new,
            **_told_plan(made),
        )
        return {} if is_dry else {"experiments": made.experiment.row(day, run.run_id)}

    advance("reading", 0.0)
    if is_dry:
        with connect(read_only=True, notify=notify) as con:
            design(con)
    else:
        # Under the writer's lock from the start, so that two designs cannot take the same slot.
        with failure_recorded(run, notify):
            record(run, design, notify)
    return told


def _measured(con: "duckdb.DuckDBPyConnection", request: "Request", day: date) -> tuple["Baseline", date]:
    import polars as pl

    from lcm_ml.decisions.experiments.design import baseline_of
    from lcm_ml.decisions.experiments.metrics import measure, metric_named
    from lcm_ml.frames.experiments import eligible_users, measured_date, midnight, user_days

    past = measured_date(con, day, request.window_days)
    users = eligible_users(con, past, request.stages, request.needs_consent) if past else None
    if past is None or users is None or users.is_empty():
        raise LcmError(
            f"no user could have taken part {request.window_days} days before {day}, so nothing can be measured",
            "give --baseline (and --sd), a shorter --window-days, or load more history",
        )
    start = pl.lit(midnight(con, past))
    then = users.select("user_id", assigned_on=pl.lit(past), assigned_at=start)
    days = user_days(con, then, day, request.window_days, request.pre_days)
    metric = metric_named(request.metric)
    values = measure(metric, users["user_id"], days, request.window_days, request.pre_days, day)
    return baseline_of(values), past


def _told_plan(made: "Plan") -> dict[str, Any]:
    experiment, size = made.experiment, made.size
    note = None
    if experiment.n_available is not None and made.needed_days is None:
        shown = f"{experiment.mde_available:.1%}" if experiment.mde_available else "none"
        note = (
            f"the shop has {experiment.n_available:,} of the {size.total:,} users that this takes, and too few come "
            f"anew; with these the smallest effect that can be shown is {shown} of control's"
        )
    return {
        "experiment_id": experiment.experiment_id,
        "metric": experiment.metric,
        "baseline": experiment.baseline_mean,
        "sd": experiment.baseline_sd,
        "pre_correlation": experiment.pre_correlation,
        "mde_relative": experiment.mde,
        "mde_absolute": (experiment.mde or 0.0) * (experiment.baseline_mean or 0.0),
        "alpha": experiment.alpha,
        "power": experiment.power,
        "arms": dict(zip(experiment.arms, size.per_arm, strict=True)),
        "users": size.total,
        "users_plain": made.plain.total,
        "variance_reduction": size.reduction,
        "looks": experiment.looks,
        "looks_factor": size.factor,
        "layer": experiment.layer,
        "slot": list(experiment.slot),
        "users_now": experiment.n_available,
        "mde_users_now": experiment.mde_available,
        "needed_days": made.needed_days,
        "planned_days": experiment.planned_days,
        "note": note,
    }


def run_assign(experiment_id: str, as_of: datetime | None, out_file: Path | None, advance: Any) -> dict[str, Any]:
    """Give an arm to everybody who may take part and has none; nobody is assigned again.

    Raises:
        LcmError: when the warehouse cannot be read or written.
        UsageError: for an experiment that is not there or is over, or a file of another kind.
    """
    import polars as pl

    from lcm_ml.decisions.actions.lists import formula_warnings, write_file
    from lcm_ml.decisions.experiments.assignment import assign, within_slot
    from lcm_ml.decisions.experiments.design import started
    from lcm_ml.decisions.experiments.verdicts import sample_ratio
    from lcm_ml.frames import experiments as frames
    from lcm_ml.frames.frame import resolve_as_of
    from lcm_ml.registry.runs import Run, failure_recorded, record

    if out_file is not None and out_file.suffix not in (".csv", ".parquet"):
        raise UsageError(f"{out_file} is neither .csv nor .parquet", "name the file so")
    run = Run("experiment", {"action": "assign", "experiment_id": experiment_id, "as_of": as_of})
    told: dict[str, Any] = {}
    everybody: list[pl.DataFrame] = []

    def give(con: "duckdb.DuckDBPyConnection") -> dict[str, pl.DataFrame]:
        day = resolve_as_of(con, as_of.date() if as_of else None)
        plan = frames.find_experiment(con, experiment_id)
        if plan.status not in ("designed", "running"):
            raise UsageError(f"{experiment_id} is {plan.status}", "design another one")
        plan = started(plan, day)
        if day < plan.starts_on:
            raise UsageError(f"{experiment_id} started on {plan.starts_on}, after {day}", "take a later --as-of")
        before = frames.assigned(con, experiment_id)
        advance("reading users", 0.2)
        eligible = frames.eligible_users(con, day, plan.stages, plan.needs_consent)
        free = within_slot(eligible, plan.layer, plan.slot).join(
            frames.taken_users(con, plan), on="user_id", how="anti"
        )
        new = frames.with_stratum(free, plan.strata).join(before, on="user_id", how="anti")
        advance("assigning", 0.6)
        given = assign(new, plan.salt, plan.arms, plan.shares, together=before.is_empty())
        start = frames.midnight(con, day)
        everybody.append(pl.concat([before, given.with_columns(_on(day, start))], how="diagonal").sort("user_id"))
        counts = [int((everybody[0]["arm"] == arm).sum()) for arm in plan.arms]
        told.update(
            run_id=run.run_id,
            experiment_id=experiment_id,
            as_of_date=day,
            eligible=eligible.height,
            in_slot=free.height,
            already_assigned=before.height,
            newly_assigned=given.height,
            arms=dict(zip(plan.arms, counts, strict=True)),
            strata=everybody[0]["stratum"].n_unique(),
            sample_ratio_p=sample_ratio(counts, plan.shares),
            needed_per_arm=plan.n_per_arm,
            ends_on=plan.ends_on,
            out=str(out_file) if out_file else None,
            note=None if sum(counts) else "nobody may take part at this date",
        )
        rows = given.with_columns(
            experiment_id=pl.lit(experiment_id),
            as_of_date=pl.lit(day),
            assigned_at=pl.lit(start),
            run_id=pl.lit(run.run_id),
        )
        stored = {"experiments": plan.row(day, run.run_id)} if sum(counts) else {}
        return stored | {"experiment_assignments": rows}

    # Under the writer's lock from the start, so that two runs cannot give one user two arms.
    with failure_recorded(run, notify):
        record(run, give, notify)
    if out_file is not None:
        export = everybody[0].select(
            pl.lit(experiment_id).alias("experiment_id"), "user_id", "arm", "stratum", "assigned_on"
        )
        write_file(export, out_file)
        if out_file.suffix == ".csv" and (warned := formula_warnings([export])):
            told["note"] = "; ".join([*([told["note"]] if told["note"] else []), *warned])
    return told


def _on(day: date, start: datetime) -> list["pl.Expr"]:
    import polars as pl

    return [pl.lit(day).alias("assigned_on"), pl.lit(start).alias("assigned_at")]


def run_stop(experiment_id: str) -> dict[str, Any]:
    """End an experiment by hand; its layer is free again.

    Raises:
        LcmError: when the warehouse cannot be written.
        UsageError: when it is not there or already over.
    """
    from lcm_ml.frames.experiments import find_experiment
    from lcm_ml.registry.runs import Run, failure_recorded, record

    run = Run("experiment", {"action": "stop", "experiment_id": experiment_id})

    def stop(con: "duckdb.DuckDBPyConnection") -> dict[str, "pl.DataFrame"]:
        found = find_experiment(con, experiment_id)
        if found.status not in ("designed", "running"):
            raise UsageError(f"{experiment_id} is {found.status}", "nothing is left to stop")
        return {"experiments": replace(found, status="stopped").row(found.starts_on, run.run_id)}

    with failure_recorded(run, notify):
        record(run, stop, notify)
    return {"run_id": run.run_id, "experiment_id": experiment_id, "status": "stopped"}


def list_experiments() -> dict[str, Any]:
    """All experiments with their newest decision.

    Raises:
        LcmError: when the warehouse cannot be read.
    """
    from lcm_ml.warehouse.connection import connect, rows, table_exists

    with connect(read_only=True, notify=notify) as con:
        if not table_exists(con, "serving", "experiments_latest"):
            return {"experiments": []}
        return {"experiments": rows(con, "select * from serving.experiments_latest order by starts_on, experiment_id")}


def horizon_days() -> int:
    """The window of a metric where the user names none: the churn horizon.

    Raises:
        LcmError: when nothing is built.
    """
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        return int(built_settings(con)["churn_horizon_days"])
