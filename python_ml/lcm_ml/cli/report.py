"""`lcm-ml report`: what the warehouse knows, as one page for people."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import Advance, JsonOption, command, emit, notify, out, progress


def report(
    out_path: Annotated[
        Path | None, typer.Option("--out", help="The file. Default: report.html beside the published snapshots.")
    ] = None,
    user_id: Annotated[
        str | None, typer.Option("--user", help="Put this user's card into it; give it a file of its own with --out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report: one HTML file that works offline, on a phone and in print; and the model cards beside it.

    Example: `lcm-ml report --out lifecycle.html`
    """
    with command(as_json):
        with progress("report", as_json) as advance:
            result = run_report(out_path, advance, user_id)
        emit(result, as_json, _show)


def run_report(out_path: Path | None, advance: Advance, user_id: str | None = None) -> dict[str, Any]:
    """Write the report from the warehouse as it is; it names the snapshot that readers see.

    Raises:
        LcmError: when nothing is built, or there is no such user.
    """
    from lcm_ml.publishing.catalogue import current_manifest
    from lcm_ml.reporting.report import write_report
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        path = write_report(con, current_manifest(), out_path, advance, user_id)
    cards = sorted((path.parent / "model_cards").glob("*.md"))
    return {"report": path, "bytes": path.stat().st_size, "model_cards": cards}


def _show(result: dict[str, Any]) -> None:
    out.print(f"report       {result['report']} ({result['bytes'] / 1e6:.1f} MB)")
    for card in result["model_cards"]:
        out.print(f"model card   {card}")
