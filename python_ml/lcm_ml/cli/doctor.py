"""`lcm-ml doctor`: what may keep the jobs from working, and how to mend it."""

from typing import Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, line, out


def doctor(as_json: JsonOption = False) -> None:
    """Check versions, file access, locks, contracts and the state of the build; say how to mend each.

    Exits with 1 when a check failed.

    Example: `lcm-ml doctor`
    """
    with command(as_json):
        from lcm_ml.warehouse import checks

        results = checks.run()
        failed = [check for check in results if check["status"] == "failed"]
        emit({"checks": results, "failed": len(failed)}, as_json, _show)
        if failed:
            raise typer.Exit(1)


def _show(result: dict[str, Any]) -> None:
    styles = {"ok": "green", "note": "yellow", "failed": "bold red"}
    for check in result["checks"]:
        line(check["status"], f"{check['check']}: {check['detail']}", styles[check["status"]], width=8)
        if check["mend"]:
            out.print(f"        next: {check['mend']}")
