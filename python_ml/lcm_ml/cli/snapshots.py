"""`lcm-ml snapshots`: what was published, and the way back."""

from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress
from lcm_ml.cli.publish import SchemaOption, ToOption, show_loaded

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List published snapshots, check them, go back to one, remove old ones.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """Show the kept snapshots, newest first, and which one readers see.

    Example: `lcm-ml snapshots list`
    """
    with command(as_json):
        from lcm_ml.publishing.catalogue import list_snapshots

        emit({"snapshots": list_snapshots()}, as_json, _show_list)


@app.command()
def verify(
    snapshot_id: Annotated[str | None, typer.Argument(help="One of `snapshots list`. Default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read every file against its checksum. Exit code 1 when one is missing or was changed.

    Example: `lcm-ml snapshots verify`
    """
    with command(as_json):
        from lcm_ml.publishing.catalogue import verify

        found = verify(snapshot_id)
        emit({"snapshots": found}, as_json, _show_verified)
    if any(row["problem"] for row in found):
        raise typer.Exit(1)


@app.command()
def rollback(
    snapshot_id: Annotated[
        str | None, typer.Argument(help="One of `snapshots list`. Default: the one before the present one.")
    ] = None,
    to: ToOption = None,
    schema: SchemaOption = "lcm",
    as_json: JsonOption = False,
) -> None:
    """Let an earlier snapshot serve, when all its checksums are right; a second call goes further back.

    It is the swap of a publish, so readers see one snapshot or the other. The next publish moves on; a job that is
    running is not waited for. To come back, name the newer one.

    Example: `lcm-ml snapshots rollback`
    """
    with command(as_json):
        from lcm_ml.publishing.catalogue import publishing_lock, roll_back
        from lcm_ml.publishing.postgres import Server

        server = Server.of(to, schema) if to else None
        with (
            publishing_lock("lcm-ml snapshots rollback", notify) as folder,
            progress("rollback", as_json) as advance,
        ):
            before, path = roll_back(folder, snapshot_id)
            loaded = server.load(path, advance) if server else None
        emit({"snapshot_id": path.name, "before": before, "loaded": loaded}, as_json, _show_change)


@app.command()
def prune(
    keep: Annotated[
        int | None, typer.Option(help="So many of the newest stay. Default: the var kept_snapshots.", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove all but the newest snapshots. The one that readers see stays, however old it is.

    Example: `lcm-ml snapshots prune --keep 2`
    """
    with command(as_json):
        from lcm_ml.publishing.catalogue import prune, publishing_lock
        from lcm_ml.warehouse import state
        from lcm_ml.warehouse.connection import connect

        if keep is None:
            with connect(read_only=True, notify=notify) as con:
                keep = state.settings(con)["kept_snapshots"]
        with publishing_lock("lcm-ml snapshots prune", notify) as folder:
            removed = prune(folder, keep)
        emit({"removed": removed, "keep": keep}, as_json, _show_pruned)


def _show_list(result: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    if not result["snapshots"]:
        out.print("nothing was published yet; next: lcm-ml publish")
        return
    table = Table("", "snapshot", "published", "scores as of", "relations", "rows", "MB", box=box.SIMPLE_HEAD)
    for row in result["snapshots"]:
        table.add_row(
            ">" if row["is_current"] else "",
            row["snapshot_id"],
            row["created_at"] or "-",
            row["scores_as_of_date"] or "-",
            str(row["relations"]),
            f"{row['rows']:,}",
            f"{row['bytes'] / 1e6:.1f}",
        )
    out.print(table)
    out.print("> is what readers see")
    for row in result["snapshots"]:
        if row["problem"]:
            out.print(f"{row['snapshot_id']} cannot serve: {row['problem']}", style="yellow")


def _show_verified(result: dict[str, Any]) -> None:
    for row in result["snapshots"]:
        out.print(f"{'>' if row['is_current'] else ' '} {row['snapshot_id']}  {row['problem'] or 'ok'}")


def _show_change(result: dict[str, Any]) -> None:
    out.print(f"readers see {result['snapshot_id']} now, before it was {result['before']}")
    show_loaded(result["loaded"])


def _show_pruned(result: dict[str, Any]) -> None:
    out.print(f"removed {', '.join(result['removed']) or 'nothing'}; up to {result['keep']} of the newest are kept")
