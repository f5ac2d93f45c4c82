"""`lcm-ml run`: build, fit when needed, score, publish: the whole loop in one command."""

from typing import Annotated, Any

import typer

from lcm_ml.cli.console import Advance, JsonOption, Laps, command, emit, err, notify, out, progress
from lcm_ml.cli.monitor import show_alerts
from lcm_ml.cli.publish import SchemaOption, ToOption, run_publish, show_published

# Shares of the progress bar, from where the time goes on The Complete Journey.
BUILT, FITTED, SCORED, KNOWN = 0.3, 0.6, 0.65, 0.95


def run(
    full_refresh: Annotated[bool, typer.Option(help="Rebuild all tables rather than what changed.")] = False,
    refit: Annotated[bool, typer.Option(help="Fit, and run all insights, even when they are up to date.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the fit.", min=0)] = 0,
    to: ToOption = None,
    schema: SchemaOption = "lcm",
    as_json: JsonOption = False,
) -> None:
    """Build the tables, fit when there is no champion or it is stale, score, know the users, monitor, prune, publish.

    The var insights says what it finds out about users besides the scores; what has seen this data is not run again.
    Critical alerts are shown, and no failure: the exit code 3 is that of `lcm-ml monitor`. It reads what was loaded;
    before any load, the sample.

    Example: `lcm-ml run` (hourly, from a scheduler: `lcm-ml run --json >> run.log`)
    """
    with command(as_json):
        from lcm_ml.warehouse.connection import writer_lock

        with writer_lock("lcm-ml run", notify), progress("run", as_json) as advance:
            result = run_all(advance, full_refresh=full_refresh, refit=refit, seed=seed, to=to, schema=schema)
        emit(result, as_json, _show)
    if result["insights"]["failed"]:
        raise typer.Exit(1)


def run_all(
    advance: Advance, *, full_refresh: bool, refit: bool, seed: int, to: str | None = None, schema: str = "lcm"
) -> dict[str, Any]:
    """Run the steps one after another. Each is atomic: a failure leaves what the steps before it made.

    An insight that fails is told, and what it wrote last is published again: the scores must not wait for it.

    Raises:
        LcmError: from the step that failed.
    """
    from lcm_ml.churn.training import FitOptions
    from lcm_ml.cli.enrich import run_refresh
    from lcm_ml.cli.fit import run_fit
    from lcm_ml.cli.insights import run_insights
    from lcm_ml.cli.monitor import run_monitor
    from lcm_ml.cli.prune import run_retention
    from lcm_ml.cli.score import run_score
    from lcm_ml.privacy.retention import limits
    from lcm_ml.registry.staleness import why_stale
    from lcm_ml.warehouse.build import build
    from lcm_ml.warehouse.connection import connect
    from lcm_ml.warehouse.state import settings

    laps = Laps()
    built = build(lambda what, share: advance(f"build {what}", BUILT * share), notify, full_refresh=full_refresh)
    run_refresh(lambda *_: None)
    laps.end("build")
    with connect(read_only=True, notify=notify) as con:
        # A setting that cannot be meant is told before an hour of work.
        limits(settings(con))
        reason = "asked for" if refit else why_stale(con)
    fitted = None
    if reason:
        fitted = run_fit(
            FitOptions(seed=seed), lambda what, share: advance(f"fit {what}", BUILT + (FITTED - BUILT) * share)
        )
        laps.end("fit")
    scored = run_score(None, None, lambda what, share: advance(f"score {what}", FITTED + (SCORED - FITTED) * share))
    laps.end("score")
    insights = run_insights(lambda what, share: advance(what, SCORED + (KNOWN - SCORED) * share), laps, again=refit)
    watched = run_monitor(None, lambda what, _: advance(f"monitor {what}", KNOWN))
    laps.end("monitor")
    pruned = run_retention(lambda what, _: advance(what, KNOWN))
    laps.end("prune")
    published = run_publish(
        lambda what, share: advance(f"publish {what}", KNOWN + (1 - KNOWN) * share), to=to, schema=schema
    )
    laps.end("publish")
    return {
        "seconds": laps.seconds,
        "built": built,
        "fit_because": reason,
        "fitted": fitted,
        "scored": scored,
        "insights": insights,
        "watched": watched,
        "pruned": pruned,
        "published": published,
    }


def _show(result: dict[str, Any]) -> None:
    out.print(f"built      {result['built']['source']}; {result['built']['nodes']} nodes")
    for line in result["built"]["rebuilt"]:
        out.print(f"           {line}")
    if result["fitted"]:
        fitted = result["fitted"]
        outcome = "" if fitted["is_promoted"] else f"; not promoted: {fitted['verdict']}"
        out.print(f"fitted     {fitted['version']} ({result['fit_because']}{outcome})")
    else:
        out.print("fitted     no need: the champion is up to date")
    scored = result["scored"]
    out.print(f"scored     {scored['users']:,} users as of {scored['as_of_date']}")
    _show_insights(result["insights"])
    show_alerts([alert for alert in result["watched"]["alerts"] if alert["severity"] != "info"])
    if result["pruned"] and result["pruned"]["rows"]:
        rows = ", ".join(f"{n:,} of {name}" for name, n in result["pruned"]["rows"].items())
        out.print(f"pruned     {rows}")
    show_published(result["published"])


def _show_insights(insights: dict[str, Any]) -> None:
    if insights["done"]:
        out.print(f"found      {', '.join(insights['done'])}")
    if insights["current"]:
        out.print(f"           nothing new for {', '.join(insights['current'])}")
    for name, result in insights["done"].items():
        if result.get("note"):
            out.print(f"           {name}: {result['note']}")
    for name, message in insights["failed"].items():
        err.print(f"error: {name}: {message}", style="bold red")
        # `lcm-ml act` alone would send.
        err.print(f"  next: lcm-ml {'act --dry-run' if name == 'act' else name}")
