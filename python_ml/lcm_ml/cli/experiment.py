"""`lcm-ml experiment`: plan a test, assign users, judge what came of it."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, progress
from lcm_ml.cli.experiment_table import show_analyses, show_assignment, show_design, show_list, show_stop
from lcm_ml.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Randomised experiments: their size, who gets which arm, and what came of it.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
Id = Annotated[str, typer.Argument(help="Name of the experiment.")]
AsOf = Annotated[
    datetime | None,
    typer.Option(help="One of marts.as_of_dates. Default: the end of the data.", formats=["%Y-%m-%d"]),
]
METRIC_HELP = (
    "conversion, retention, revenue_per_user, orders_per_user, order_value, sessions_per_user, ctr, cart_rate, "
    "refunds_per_user or tickets_per_user."
)


@app.command()
def design(
    experiment_id: Id,
    metric: Annotated[str, typer.Option(help=f"The primary metric, which decides: {METRIC_HELP}")] = "conversion",
    mde: Annotated[float, typer.Option(help="The smallest effect that matters, relative to control.")] = 0.05,
    absolute: Annotated[bool, typer.Option("--absolute", help="--mde is absolute.")] = False,
    baseline: Annotated[float | None, typer.Option(help="Level of the metric. Default: measured in the past.")] = None,
    sd: Annotated[float | None, typer.Option(help="With --baseline: its standard deviation over users.")] = None,
    correlation: Annotated[
        float, typer.Option(help="With --baseline: correlation with the pre-period.", min=0, max=0.999)
    ] = 0.0,
    power: Annotated[float, typer.Option(help="Probability of finding that effect.", min=0.5, max=0.999)] = 0.8,
    alpha: Annotated[float, typer.Option(help="Two-sided error probability.", min=0.0001, max=0.5)] = 0.05,
    arm: Annotated[list[str] | None, typer.Option(help="An arm, control first. Default: control, treatment.")] = None,
    allocation: Annotated[list[float] | None, typer.Option(help="Of each arm, e.g. 2 and 1. Default: equal.")] = None,
    secondary: Annotated[list[str] | None, typer.Option(help="A secondary metric.")] = None,
    guardrail: Annotated[
        list[str] | None, typer.Option(help="METRIC=MARGIN: must not get worse by more than this share.")
    ] = None,
    cuped: Annotated[bool, typer.Option(help="Take off what the pre-period tells.")] = True,
    looks: Annotated[int, typer.Option(help="Planned looks, at equal distances.", min=1, max=50)] = 1,
    window_days: Annotated[
        int | None, typer.Option(help="Days that count for each user. Default: the var churn_horizon_days.", min=1)
    ] = None,
    pre_days: Annotated[int, typer.Option(help="Days of the pre-period.", min=0)] = 84,
    strata: Annotated[
        list[str] | None,
        typer.Option(
            help="Balanced in the assignment: stage, value_band, activity_band, country, acquisition_channel."
        ),
    ] = None,
    stage: Annotated[list[str] | None, typer.Option(help="Only users in this lifecycle stage.")] = None,
    consent: Annotated[bool, typer.Option("--consent", help="Only users with marketing_consent.")] = False,
    layer: Annotated[str, typer.Option(help="Experiments of one layer share no user.")] = "default",
    traffic: Annotated[
        float, typer.Option(help="Share of the layer's users that may take part.", min=0.001, max=1)
    ] = 1.0,
    salt: Annotated[str, typer.Option(help="Of the hash that assigns. Default: the experiment's name.")] = "",
    days: Annotated[int | None, typer.Option(help="Planned days. Default: what the size takes.", min=1)] = None,
    hypothesis: Annotated[str, typer.Option(help="What you expect, in words.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; store nothing.")] = False,
    as_of: AsOf = None,
    as_json: JsonOption = False,
) -> None:
    """Work out how many users and days it takes, from the shop's own past, and store the design.

    Example: `lcm-ml experiment design free-shipping --metric conversion --mde 0.05 --guardrail refunds_per_user=0.1`
    """
    with command(as_json):
        from lcm_ml.cli.experiment_runs import horizon_days, run_design
        from lcm_ml.decisions.experiments.planning import Request

        if baseline is None and (sd is not None or correlation):
            raise UsageError("--sd and --correlation describe a --baseline", "give it too, or let all be measured")
        request = Request(
            experiment_id,
            hypothesis,
            metric,
            mde,
            absolute,
            tuple(secondary or ()),
            tuple(guardrail or ()),
            tuple(arm or ("control", "treatment")),
            tuple(allocation or ()),
            alpha,
            power,
            looks,
            cuped,
            window_days or horizon_days(),
            pre_days,
            tuple(strata or ("stage", "value_band")),
            tuple(stage or ()),
            consent,
            layer,
            traffic,
            salt,
            days,
        )
        with progress("design", as_json) as advance:
            result = run_design(request, as_of, (baseline, sd, correlation), dry_run, advance)
        emit(result, as_json, show_design)


@app.command()
def assign(
    experiment_id: Id,
    as_of: AsOf = None,
    out: Annotated[Path | None, typer.Option(help="Also write all assignments to this .csv or .parquet.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Give an arm to everybody who may take part. Who has one keeps it, however often this runs.

    Example: `lcm-ml experiment assign free-shipping --out arms.csv`
    """
    with command(as_json):
        from lcm_ml.cli.experiment_runs import run_assign

        with progress("assign", as_json) as advance:
            result = run_assign(experiment_id, as_of, out, advance)
        emit(result, as_json, show_assignment)


@app.command()
def analyse(
    experiment_id: Annotated[str | None, typer.Argument(help="Name of the experiment. Default: all running.")] = None,
    touches: Annotated[
        str | None, typer.Option(help="Instead: a campaign of raw.campaign_touches with a control arm.")
    ] = None,
    metric: Annotated[str, typer.Option(help=f"With --touches: {METRIC_HELP}")] = "orders_per_user",
    window_days: Annotated[int, typer.Option(help="With --touches: days that count after the touch.", min=1)] = 14,
    triggered: Annotated[
        bool, typer.Option("--triggered", help="Only users that came to the shop after their assignment.")
    ] = False,
    as_of: Annotated[
        datetime | None,
        typer.Option(help="Any day up to the end of the data, the default.", formats=["%Y-%m-%d"]),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the arms by what happened strictly before a date, and say what may be concluded.

    Example: `lcm-ml experiment analyse free-shipping`
    """
    with command(as_json):
        from lcm_ml.cli.experiment_analysis import run_analyse

        if experiment_id and touches:
            raise UsageError("an experiment and --touches are two different things", "give one of them")
        with progress("analyse", as_json) as advance:
            result = run_analyse(
                experiment_id,
                as_of,
                advance,
                touches=touches,
                metric=metric,
                window_days=window_days,
                triggered=triggered,
            )
        emit(result, as_json, show_analyses)


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """Show all experiments with their newest decision.

    Example: `lcm-ml experiment list`
    """
    with command(as_json):
        from lcm_ml.cli.experiment_runs import list_experiments

        emit(list_experiments(), as_json, show_list)


@app.command()
def stop(experiment_id: Id, as_json: JsonOption = False) -> None:
    """End an experiment by hand, so that others may have its users.

    Example: `lcm-ml experiment stop free-shipping`
    """
    with command(as_json):
        from lcm_ml.cli.experiment_runs import run_stop

        result: dict[str, Any] = run_stop(experiment_id)
        emit(result, as_json, show_stop)
