"""The command line: `lcm-ml`. Commands live one to a module and import what is heavy when they run."""

import os
from typing import Annotated

import typer

import lcm_ml
from lcm_ml import logs
from lcm_ml.cli import (
    act,
    backup,
    budget,
    cohorts,
    doctor,
    enrich,
    evaluate,
    experiment,
    export_user,
    fairness,
    fit,
    forecast,
    forget,
    load,
    models,
    monitor,
    paths,
    profile,
    prune,
    publish,
    recommend,
    report,
    response,
    rules,
    run,
    runs,
    score,
    segment,
    similar,
    simulate,
    snapshots,
    status,
    strategy,
    support,
    threshold,
    uplift,
    value,
    watch,
    words,
)

app = typer.Typer(
    name="lcm-ml",
    help="Load a shop's events, train churn models, score users and publish the tables.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(load.app, name="load")
app.add_typer(models.app, name="models")
app.add_typer(runs.app, name="runs")
app.add_typer(experiment.app, name="experiment")
app.add_typer(act.app, name="act")
app.add_typer(similar.app, name="similar")
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(support.app, name="support")
app.command()(load.pseudonym)
app.command()(simulate.simulate)
app.command()(fit.fit)
app.command()(score.score)
app.command()(evaluate.evaluate)
app.command()(threshold.threshold)
app.command()(monitor.monitor)
app.command()(fairness.fairness)
app.command()(rules.rules)
app.command()(paths.paths)
app.command()(cohorts.cohorts)
app.command()(enrich.enrich)
app.command()(profile.profile)
app.command()(value.value)
app.command()(forecast.forecast)
app.command()(words.words)
app.command()(segment.segment)
app.command()(recommend.recommend)
app.command()(response.response)
app.command()(uplift.uplift)
app.command()(budget.budget)
app.command()(strategy.strategy)
app.command("run")(run.run)
app.command()(watch.watch)
app.command()(publish.publish)
app.command()(report.report)
app.command()(status.status)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(backup.upgrade)
app.command()(forget.forget)
app.command()(prune.prune)
app.command("export-user")(export_user.export_user)
app.command()(doctor.doctor)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"lcm-ml {lcm_ml.__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    log: Annotated[
        str | None,
        typer.Option(help="Append what happens to this file, as JSON lines; - is stderr.", envvar=logs.VARIABLE),
    ] = None,
) -> None:
    """Load a shop's events, train churn models, score users and publish the tables."""
    # What is written here, by dbt and DuckDB too (write-ahead log, locks), is for its owner alone.
    os.umask(os.umask(0o077) | 0o077)
    logs.name_command(f"lcm-ml {context.invoked_subcommand}")
    if log:
        os.environ[logs.VARIABLE] = log


def entry_point() -> None:
    """Entry point of the `lcm-ml` script."""
    # Threads that spin while they wait for each other make XGBoost eight times slower where another process wants the
    # cores. Read when OpenMP is loaded, so it is set before anything heavy is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app()
