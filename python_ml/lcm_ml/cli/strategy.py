"""`lcm-ml strategy`: what recorded actions brought, and which rules to change."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import Advance, AsOfOption, JsonOption, command, emit, notify, out, progress

if TYPE_CHECKING:
    import polars as pl

WINDOW_DAYS = 84
SHOWN = ("all", "rule", "offer", "channel")
NOTHING_SENT = (
    "no recorded action has its days behind it yet: `lcm-ml act` records who was contacted and who was held back"
)


def strategy(
    window: Annotated[
        int, typer.Option(help="Days of actions to look at, up to the newest whose outcome is known.", min=1)
    ] = WINDOW_DAYS,
    days: Annotated[
        int | None,
        typer.Option(help="Outcomes within so many days of a contact. Default: the var churn_horizon_days.", min=1),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the proposals to seeds/decisions/.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="With --apply: this proposal alone; again for several.")
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare recorded actions with the users held back, and propose changed rules, limits and assumptions.

    Nothing changes without --apply.

    Examples: `lcm-ml strategy`, `lcm-ml strategy --apply --only action_rules.persuade.is_active`
    """
    with command(as_json):
        with progress("strategy", as_json) as advance:
            result = run_strategy(as_of, advance, window, days, apply, tuple(only or ()))
        emit(result, as_json, _show)


def run_strategy(
    as_of: datetime | None,
    advance: Advance,
    window: int = WINDOW_DAYS,
    days: int | None = None,
    apply: bool = False,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Read, compare, propose, write; with `apply` change the seeds' files first.

    Raises:
        LcmError: when the marts cannot be read, a file is not as the warehouse has it, or nothing can be written.
        UsageError: when `only` names no proposal.
    """
    from lcm_ml import project
    from lcm_ml.decisions.gains import Economics
    from lcm_ml.decisions.options import rules_of
    from lcm_ml.decisions.strategy.editing import apply_proposals
    from lcm_ml.decisions.strategy.effects import effects_of
    from lcm_ml.decisions.strategy.proposals import proposals, undecided
    from lcm_ml.errors import UsageError
    from lcm_ml.frames.decisions import setting_table
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.sent import sent_actions
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("strategy", {"window": window, "days": days, "apply": apply, "only": list(only)})

    def compute(con: Any, day: date) -> "tuple[dict[str, pl.DataFrame], dict[str, Any]]":
        import polars as pl

        advance("reading", 0.0)
        settings = built_settings(con)
        economics = Economics.from_settings(settings)
        horizon = days or int(settings["churn_horizon_days"])
        sent = sent_actions(con, day, window, horizon)
        if sent.is_empty():
            if only:
                raise UsageError(f"there is no proposal {only[0]}: {NOTHING_SENT}")
            empty = dict.fromkeys(("strategy_effects", "strategy_proposals"), pl.DataFrame())
            return empty, {"note": NOTHING_SENT, "effects": [], "proposals": [], "undecided": [], "changed": []}
        advance("comparing", 0.3)
        effects = effects_of(sent, rules_of(con), economics.margin, horizon)
        advance("proposing", 0.8)
        rows, offers = setting_table(con, "action_rules"), setting_table(con, "offers")
        made = proposals(effects, sent, rows, offers, economics.success_rate)
        if unknown := sorted(set(only) - set(made["proposal_id"])):
            listed = ", ".join(made["proposal_id"]) or "none"
            raise UsageError(f"there is no proposal {unknown[0]}: there are {listed}", "take --only from these")
        chosen = pl.col("proposal_id").is_in(list(only)) if only else pl.lit(True)
        made = made.with_columns(is_applied=chosen & pl.lit(apply))
        changed = apply_proposals(project.root() / "seeds" / "decisions", made.filter("is_applied"))
        told = effects.drop("low", "high")
        return {"strategy_effects": told, "strategy_proposals": made}, {
            "note": None,
            "effects": told.to_dicts(),
            "proposals": made.to_dicts(),
            "undecided": undecided(effects),
            "changed": changed,
        }

    day, found = run_capability(run, as_of, compute, notify)
    return {"run_id": run.run_id, "as_of_date": day, **found}


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    if result["note"]:
        out.print(f"nothing to compare at {result['as_of_date']}: {result['note']}")
        return
    table = Table("", "contacted", "held back", "purchases", "held back's", "expected", "profit per contact", "p")
    for row in result["effects"]:
        if row["dimension"] in SHOWN:
            table.add_row(*_cells(row))
    out.print(table)
    out.print("profit per contact beside the held back, base currency, 95 % intervals; p corrected by Holm")
    for told in result["undecided"]:
        out.print(f"undecided  {told}", style="dim")
    for proposal in result["proposals"]:
        old = "empty" if proposal["old_value"] is None else proposal["old_value"]
        done = "applied " if proposal["is_applied"] else "proposed"
        out.print(f"{done}  {proposal['proposal_id']}: {old} -> {proposal['new_value']}", style="bold")
        out.print(f"          {proposal['evidence']}")
    if not result["proposals"]:
        out.print("no change is proposed")
    for path in result["changed"]:
        out.print(f"changed   {path}; `lcm-ml run` decides by it from now on")
    if result["proposals"] and not result["changed"]:
        out.print("nothing was changed: --apply writes the proposals to seeds/decisions/")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    expected = "-" if row["expected_profit"] is None else f"{row['expected_profit']:+.2f}"
    profit = "-" if row["profit"] is None else f"{row['profit']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})"
    name = row["level"] if row["dimension"] == "all" else f"{row['dimension']} {row['level']}"
    return (
        name,
        f"{row['n_treated']:,}",
        f"{row['n_control']:,}",
        share(row["purchase_rate_treated"]),
        share(row["purchase_rate_control"]),
        expected,
        profit,
        "-" if row["p_value_adjusted"] is None else f"{row['p_value_adjusted']:.3f}",
    )
