"""`lcm-ml runs`: what was tried, with which settings, and what came of it."""

from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress
from lcm_ml.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, show and compare runs of fit, evaluate and the rest; export them to MLflow.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
RUN_HELP = "A run of `lcm-ml runs list`, or the start of its id."


@app.command("list")
def list_runs(
    only: Annotated[str | None, typer.Option("--command", help="fit, evaluate, score, monitor ...")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show runs, newest first, with the best model of each and what it reached.

    Example: `lcm-ml runs list --command fit --limit 10`
    """
    with command(as_json):
        from lcm_ml.registry.history import list_runs
        from lcm_ml.warehouse.connection import connect

        with connect(read_only=True, notify=notify) as con:
            found = list_runs(con, only, limit)
        emit({"runs": found}, as_json, _show_list)


@app.command()
def show(run_id: Annotated[str, typer.Argument(help=RUN_HELP)], as_json: JsonOption = False) -> None:
    """Show one run: parameters, figures with intervals beside the baselines, curves, trials and versions.

    Example: `lcm-ml runs show 20260101T12`
    """
    with command(as_json):
        from lcm_ml.registry.history import describe_run
        from lcm_ml.warehouse.connection import connect

        with connect(read_only=True, notify=notify) as con:
            found = describe_run(con, run_id)
        emit(found, as_json, _show_one)


@app.command()
def compare(run_ids: Annotated[list[str], typer.Argument(help=RUN_HELP)], as_json: JsonOption = False) -> None:
    """Compare runs with the first one: parameters that differ, figures side by side, paired differences.

    A paired difference, with its 95 % interval, is over users and dates that both runs predicted.

    Example: `lcm-ml runs compare 20260101T12 20260102T09`
    """
    with command(as_json):
        from lcm_ml.registry.history import compare_runs
        from lcm_ml.warehouse.connection import connect

        with progress("compare", as_json) as advance, connect(read_only=True, notify=notify) as con:
            found = compare_runs(con, run_ids, advance)
        emit(found, as_json, _show_comparison)


@app.command()
def export(
    run_ids: Annotated[list[str] | None, typer.Argument(help=f"{RUN_HELP} Default: all with metrics.")] = None,
    to: Annotated[str, typer.Option(help="mlflow.")] = "mlflow",
    uri: Annotated[
        str | None,
        typer.Option(help="A folder or a tracking URI. Default: MLFLOW_TRACKING_URI, else a folder by the warehouse."),
    ] = None,
    experiment: Annotated[str, typer.Option(help="Name of the MLflow experiment.")] = "lcm",
    as_json: JsonOption = False,
) -> None:
    """Write runs to MLflow: parameters, metrics, curves and the model card. What is there already is left alone.

    It needs `pip install 'lcm-ml[mlflow]'`. Nothing is sent anywhere but to the URI.

    Example: `lcm-ml runs export --to mlflow --uri mlruns`
    """
    with command(as_json):
        from lcm_ml.registry.history import exportable
        from lcm_ml.registry.mlflow_export import collect, export, store_uri
        from lcm_ml.warehouse.connection import connect

        if to != "mlflow":
            raise UsageError(f"runs cannot be exported to {to!r}", "--to mlflow")
        with progress("export", as_json) as advance:
            with connect(read_only=True, notify=notify) as con:
                found = [each for run in exportable(con, run_ids or []) for each in collect(con, run)]
            result = export(found, store_uri(uri), experiment, advance)
        emit(result, as_json, _show_export)


def _show_list(result: dict[str, Any]) -> None:
    from lcm_ml.cli.metric_table import run_table

    if not result["runs"]:
        out.print("nothing ran yet; next: lcm-ml fit")
        return
    out.print(run_table(result["runs"]))
    for row in result["runs"]:
        if row["message"]:
            out.print(f"{row['run_id']}: {row['message']}")


def _show_one(run: dict[str, Any]) -> None:
    from lcm_ml.cli.metric_table import comparison_lines, metric_table, model_figures, number

    for name in ("run_id", "command", "status", "started_at", "finished_at", "seed", "data_fingerprint", "message"):
        if run[name] is not None:
            out.print(f"{name:<18} {run[name]}")
    for name, value in run["parameters"].items():
        out.print(f"{name:<18} {value}")
    for version in run["versions"]:
        out.print(f"{'version':<18} {version['model_version']} ({version['status']})")
    for split, day in dict.fromkeys((row["split"], row["as_of_date"]) for row in run["metrics"]):
        rows = [row for row in run["metrics"] if (row["split"], row["as_of_date"]) == (split, day)]
        title = (
            f"{split}, {day or 'mean over the dates'}: {rows[0]['n_users']:,} users, {rows[0]['n_churned']:,} churned"
        )
        out.print(metric_table(title, model_figures(rows)))
    for model in dict.fromkeys(row["model_name"] for row in run["comparisons"]):
        for line in comparison_lines(run["comparisons"], model):
            out.print(line)
    for curve in run["curves"]:
        lowest = f"{number('log_loss', curve['lowest'])} at {curve['lowest_at']}"
        out.print(
            f"curve: {curve['model_name']}, {curve['split']}: log loss {number('log_loss', curve['first'])} -> "
            f"{number('log_loss', curve['last'])} after {curve['iterations']} iterations, lowest {lowest}"
        )
    for study in dict.fromkeys(row["study"] for row in run["trials"]):
        trials = [row for row in run["trials"] if row["study"] == study]
        best = next((row for row in trials if row["is_best"]), None)
        told = f"; best {number('log_loss', best['log_loss'])} with {best['settings']}" if best else ""
        out.print(f"search: {study}: {len(trials)} trials of this run{told}")


def _show_comparison(found: dict[str, Any]) -> None:
    from lcm_ml.cli.metric_table import difference_lines, side_by_side_table

    letters = {run["run_id"]: chr(ord("A") + place) for place, run in enumerate(found["runs"])}
    for run in found["runs"]:
        fingerprint = (run["data_fingerprint"] or "none")[:12]
        out.print(f"{letters[run['run_id']]}: {run['run_id']}, data {fingerprint}")
    if not found["same_data"]:
        out.print(
            "the runs read different data (their fingerprints differ): figures side by side are not comparable; "
            "paired differences are"
        )
    for name, values in found["parameters"].items():
        told = ", ".join(f"{letter} {value}" for letter, value in zip(letters.values(), values, strict=True))
        out.print(f"differs: {name}: {told}")
    if not found["parameters"]:
        out.print("the parameters are the same")
    out.print(side_by_side_table(found["metrics"], letters))
    for line in difference_lines(found["differences"], letters):
        out.print(line)
    for note in found["notes"]:
        out.print(f"note: {note}")


def _show_export(result: dict[str, Any]) -> None:
    out.print(f"{result['exported']:,} runs written, {result['skipped']:,} were there already")
    out.print(f"in {result['uri']}, experiment {result['experiment']}")
