"""`lcm-ml prune`: old events and old scores go, their totals stay."""

from typing import Annotated, Any

import typer

from lcm_ml.cli.console import Advance, JsonOption, command, confirm, emit, notify, out, progress


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove events and churn scores that are older than the vars event_retention_days and score_retention_days.

    What features, stages and labels of all dates need of these events stays, by order, session and day, so no build
    computes anything anew. docs/privacy.md says what goes for good. `lcm-ml run` does the same after each scoring.

    Example: `lcm-ml prune --dry-run`, then `lcm-ml prune --yes`
    """
    with command(as_json):
        result = run_prune(dry_run, yes, as_json)
        emit(result, as_json, _show_plan if dry_run else show_pruned)


def run_prune(dry_run: bool, yes: bool, as_json: bool) -> dict[str, Any]:
    """Look what is too old, ask, and prune it.

    Raises:
        UsageError: when there is nobody to ask.
        LcmError: when a setting is too small, or a step fails.
    """
    from lcm_ml.privacy import retention
    from lcm_ml.warehouse.connection import connect, writer_lock

    if dry_run:
        with connect(read_only=True, notify=notify) as con:
            return retention.survey(con).described
    with writer_lock("lcm-ml prune", notify):
        with connect(read_only=True, notify=notify) as con:
            plan = retention.survey(con)
        if plan.rows:
            confirm(
                "Prune them? This cannot be undone.",
                "pruning cannot be undone, and nobody can be asked here",
                yes,
                as_json,
                lambda: _show_plan(plan.described),
            )
        with progress("prune", as_json) as advance:
            advance("pruning", 0.1)
            pruned = retention.prune(plan, notify)
    return pruned | {"elsewhere": retention.elsewhere()}


def run_retention(advance: Advance) -> dict[str, Any] | None:
    """Prune as a step of `lcm-ml run`, under its lock; None where everything is kept.

    Raises:
        LcmError: when the warehouse cannot be written.
    """
    from lcm_ml.privacy import retention
    from lcm_ml.warehouse.connection import connect
    from lcm_ml.warehouse.state import settings

    with connect(read_only=True, notify=notify) as con:
        if not retention.limits(settings(con)).any:
            return None
        plan = retention.survey(con, asked=False)
    advance("prune", 0.0)
    return retention.prune(plan, notify, always_compact=False)


def _show_plan(plan: dict[str, Any]) -> None:
    for what, setting, before in (
        ("events", "event_retention_days", plan["events_before"]),
        ("scores", "score_retention_days", plan["scores_before"]),
    ):
        if plan[setting] is None:
            out.print(f"{what}: kept for good ({setting} is null)")
        else:
            out.print(f"{what}: " + (f"those before {before} go" if before else "pruned up to the setting already"))
    for name, n in plan["rows"].items():
        out.print(f"{n:>12,}  {name}")
    if not plan["rows"]:
        out.print("nothing to prune")


def show_pruned(result: dict[str, Any]) -> None:
    """What was pruned, and what still holds it."""
    _show_plan(result)
    for name, n in result["kept"].items():
        out.print(f"{n:>12,}  kept in {name}")
    if result["compacted"]:
        out.print(f"the file took {result['bytes_before'] / 2**20:,.1f} MiB, now {result['bytes'] / 2**20:,.1f}")
    if result["rows"]:
        for place in result.get("elsewhere", []):
            out.print(f"old rows may be left: {place['what']}; next: {place['next']}")
