"""The command line: `lcm-ml`. Commands live one to a module and import what is heavy when they run."""

from typing import Annotated

import typer

import lcm_ml
from lcm_ml.cli import (
    cohorts,
    doctor,
    enrich,
    evaluate,
    experiment,
    fairness,
    fit,
    forecast,
    load,
    models,
    monitor,
    paths,
    profile,
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
    status,
    support,
    threshold,
    uplift,
    value,
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
app.add_typer(similar.app, name="similar")
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
app.command("run")(run.run)
app.command()(run.publish)
app.command()(report.report)
app.command()(status.status)
app.command()(doctor.doctor)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"lcm-ml {lcm_ml.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Load a shop's events, train churn models, score users and publish the tables."""


def entry_point() -> None:
    """Entry point of the `lcm-ml` script."""
    app()
