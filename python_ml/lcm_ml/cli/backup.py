"""`lcm-ml backup`, `restore` and `upgrade`: keep the state of the warehouse, and bring it back or along."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, confirm, emit, notify, out, progress
from lcm_ml.errors import UsageError


def backup(
    target: Annotated[
        Path | None, typer.Argument(help="The archive (.tar), or a folder for it. Default: <warehouse>.backups.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="Make none: check this one, every file and every table's row count.")
    ] = None,
    keep: Annotated[int | None, typer.Option(help="Remove older ones of that folder but so many.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the warehouse, its models and the published snapshot in one archive with checksums.

    Writers wait meanwhile; readers do not. Keys of pseudonyms and of forgotten users are not in it: keep these apart.

    Example: `lcm-ml backup /mnt/backups/ --keep 7`, then `lcm-ml backup --verify /mnt/backups/lcm-20260101T030000.tar`
    """
    with command(as_json):
        from lcm_ml.warehouse import backup as backups

        if verify:
            if target or keep:
                raise UsageError("--verify takes no other argument", "e.g. lcm-ml backup --verify backup.tar")
            with progress("verify", as_json) as advance:
                manifest = backups.verify(verify, advance)
            emit({"path": verify} | manifest, as_json, _show_verified)
            return
        with progress("backup", as_json) as advance:
            result = backups.back_up(target, advance, notify, keep=keep)
        emit(result, as_json, _show)


def restore(
    path: Annotated[Path, typer.Argument(help="An archive of `lcm-ml backup`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a backup the warehouse again. It is verified first; the state before is kept under another name.

    Example: `lcm-ml restore warehouse/lcm.backups/lcm-20260101T030000.tar`
    """
    with command(as_json):
        from lcm_ml import project
        from lcm_ml.warehouse.restore import restore as put_back

        question = f"Replace {project.warehouse_path()} by {path}?"
        confirm(question, "restore replaces the warehouse, and nobody is there to ask", yes, as_json)
        with progress("restore", as_json) as advance:
            result = put_back(path, advance, notify)
        emit(result, as_json, _show_restored)


def upgrade(as_json: JsonOption = False) -> None:
    """Bring a warehouse of an earlier version along, after a backup. Commands that write do so by themselves.

    Example: `lcm-ml upgrade`, then `dbt build`
    """
    with command(as_json):
        from lcm_ml.warehouse.connection import connect
        from lcm_ml.warehouse.migrations import upgrade as bring_along

        result = bring_along(notify)
        # Refuses what is newer than this code.
        with connect(read_only=True, notify=notify):
            pass
        emit(result, as_json, _show_upgraded)


def _show(result: dict[str, Any]) -> None:
    published = result["snapshot_id"] or "none"
    out.print(
        f"backup     {result['path']}, {result['bytes'] / 2**20:,.1f} MiB: {result['tables']} tables, "
        f"{result['rows']:,} rows, {result['files']} files, published snapshot {published}",
    )
    for path in result["removed"]:
        out.print(f"removed    {path}")
    out.print("           keys (LCM_ID_KEY, LCM_FORGET_KEY, <warehouse>.privacy) are not in it: keep these apart")


def _show_verified(manifest: dict[str, Any]) -> None:
    out.print(
        f"ok         {manifest['path']}, made {manifest['made_at']}: {len(manifest['files'])} files as written, "
        f"{len(manifest['tables'])} tables with {sum(manifest['tables'].values()):,} rows",
    )


def _show_restored(result: dict[str, Any]) -> None:
    out.print(
        f"restored   {result['backup']}, made {result['made_at']}: {result['tables']} tables, {result['rows']:,} rows",
    )
    if result["snapshot_id"]:
        out.print(f"published  {result['snapshot_id']} is what readers see")
    if result["kept"]:
        out.print(f"kept       the state before is {result['kept']}: remove it when you need it no more")
    for note in result["notes"]:
        out.print(f"note       {note}")


def _show_upgraded(result: dict[str, Any]) -> None:
    if result["backup"] is None:
        out.print(f"layout     {result['after']}: nothing to do")
    else:
        out.print(f"layout     {result['after']}, before {result['before']}; backup {result['backup']}")
        out.print("next       lcm-ml run (or dbt build)")
