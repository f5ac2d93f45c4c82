"""`lcm-ml status`: what is loaded, built, trained, scored and published."""

from typing import Any

from rich import box
from rich.table import Table

from lcm_ml import project
from lcm_ml.cli.console import JsonOption, command, emit, line, notify, out


def status(as_json: JsonOption = False) -> None:
    """Show what is loaded, built, trained, scored and published, and from when.

    Example: `lcm-ml status --json | jq .stages`
    """
    with command(as_json):
        from lcm_ml.warehouse import status as warehouse_status
        from lcm_ml.warehouse.connection import connect

        with connect(read_only=True, notify=notify) as con:
            result = warehouse_status.collect(con)
        emit({"warehouse": project.warehouse_path(), "report": _report()} | result, as_json, show)


def _report() -> str | None:
    path = project.beside_warehouse("published") / "report.html"
    return str(path) if path.exists() else None


def show(result: dict[str, Any]) -> None:
    """Print the state of the warehouse for people."""
    line("warehouse", f"{result['warehouse']}")
    _show_loads(result)
    _show_rows(result["rows"])
    _show_stages(result)
    _show_metrics(result)
    _show_scores(result)
    _show_published(result)
    _show_failures(result["failures"])


def _show_loads(result: dict[str, Any]) -> None:
    for load in result["loads"]:
        line("loaded", f"{load['source']}, {load['events_in']:,} events, {load['loaded_at']:%F %H:%M} UTC")
    if not result["loads"]:
        line("loaded", "nothing: the build reads the sample seeds (or your own tables)")
    build = result["build"]
    if build is None:
        line("built", "nothing yet; next: lcm-ml run")
        return
    line("built", f"{build['status']}, from {build['source_mode']}, {build['started_at']:%F %H:%M} UTC")


def _show_rows(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    totals = {
        kind: sum(row["row_count"] for row in rows if row["kind"] == kind)
        for kind in ("rows_in", "kept", "duplicate", "quarantined", "suppressed", "pruned")
    }
    line(
        "rows",
        f"{totals['rows_in']:,} in = {totals['kept']:,} kept"
        f" + {totals['duplicate']:,} duplicates + {totals['quarantined']:,} quarantined"
        + (f" + {totals['suppressed']:,} of forgotten users" if totals["suppressed"] else "")
        + (f" + {totals['pruned']:,} pruned" if totals["pruned"] else ""),
    )
    for row in rows:
        if row["kind"] in ("duplicate", "quarantined", "noted"):
            out.print(f"           {row['row_count']:>9,}  {row['rule']}{' (kept)' if row['kind'] == 'noted' else ''}")


def _show_stages(result: dict[str, Any]) -> None:
    if not result["stages"]:
        return
    total = sum(row["users"] for row in result["stages"])
    title = f"users per lifecycle stage, {result['stages'][0]['as_of_date']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("stage")
    table.add_column("users", justify="right")
    table.add_column("share", justify="right")
    for row in result["stages"]:
        table.add_row(row["stage"], f"{row['users']:,}", f"{row['users'] / total:.1%}")
    out.print(table)


def _show_metrics(result: dict[str, Any]) -> None:
    metrics = result["metrics"]
    if not metrics:
        if result["build"]:
            line("trained", "nothing yet; next: lcm-ml fit")
        return
    from lcm_ml.cli.metric_table import metric_table, model_figures

    first = metrics[0]
    name = result["champion"]["model_name"] if result["champion"] else None
    title = f"out of time, test date {first['as_of_date']}, {first['n_users']:,} users (95 % intervals)"
    out.print(metric_table(title, model_figures(metrics), name))
    champion = result["champion"]
    if champion:
        line(
            "champion",
            f"{champion['model_name']}, version {champion['model_version']}, "
            f"trained on {champion['trained_from']} to {champion['trained_to']}",
        )


def _show_scores(result: dict[str, Any]) -> None:
    if result["scores"]:
        bands = ", ".join(f"{row['users']:,} {row['risk_band']}" for row in result["scores"])
        line("scored", f"as of {result['scores'][0]['as_of_date']}: {bands}")
    elif result["champion"]:
        line("scored", "nothing yet; next: lcm-ml score")


def _show_failures(failures: list[dict[str, Any]]) -> None:
    for failure in failures:
        when = f"{failure['started_at']:%F %H:%M} UTC"
        line("failed", f"{failure['command']}, {when}: {failure['message']}", "bold red")
        if failure["next_step"]:
            out.print(f"           next: {failure['next_step']}")
        if failure["run_id"]:
            out.print(f"           run:  {failure['run_id']}")


def _show_published(result: dict[str, Any]) -> None:
    published = result["published"]
    if published is None:
        line("published", "nothing yet; next: lcm-ml run")
        return
    folder = project.beside_warehouse("published")
    line("published", f"{published['snapshot_id']}: {folder}/current/*.parquet")
    out.print(f"           for BI: {folder}/lcm_published.duckdb")
    if result["report"]:
        line("report", f"{result['report']}")
