"""`lcm-ml export-user`: all that is held of one user."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress


def export_user(
    user_id: Annotated[str, typer.Argument(help="The user, as the tables have it.")],
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="A new folder. Default: one in the exports folder beside the warehouse."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write all that is held of a user, and of visitors linked to it: one JSON file for each table, and an index.

    Example: `lcm-ml export-user customer-4711 --out customer-4711`
    """
    with command(as_json):
        from lcm_ml.privacy.export import export_user as write

        with progress("export", as_json) as advance:
            result = write(user_id, out_folder, advance, notify)
        emit(result, as_json, _show)


def _show(result: dict[str, Any]) -> None:
    for name, n in result["rows"].items():
        out.print(f"{n:>12,}  {name}")
    out.print(f"written      {result['folder']} (start with index.md)")
