"""`lcm-ml rules`: what is bought together more often than chance."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcm_ml.cli.console import AsOfOption, JsonOption, command, emit, notify, out, progress

if TYPE_CHECKING:
    import polars as pl

LEVELS = ("category", "product")
MIN_CONFIDENCE, MAX_SIZE = 0.1, 3
SHOWN = 10


def rules(
    as_of: AsOfOption = None,
    level: Annotated[
        Literal["category", "product"] | None, typer.Option(help="What the rules are about. Default: both.")
    ] = None,
    min_support: Annotated[
        float | None,
        typer.Option(help="Smallest share of baskets with a set. Default: the var rules_min_support.", min=0, max=1),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="Smallest confidence of a rule.", min=0, max=1)
    ] = MIN_CONFIDENCE,
    max_size: Annotated[int, typer.Option(help="Items in a rule, both sides together.", min=2, max=5)] = MAX_SIZE,
    as_json: JsonOption = False,
) -> None:
    """Find sets of categories or products that are bought together, and the rules in them that chance does not explain.

    Example: `lcm-ml rules --level product --min-support 0.001`
    """
    with command(as_json):
        levels = (level,) if level else LEVELS
        with progress("rules", as_json) as advance:
            result = run_rules(as_of, advance, levels, min_support, min_confidence, max_size)
        emit(result, as_json, _show)


def run_rules(
    as_of: datetime | None,
    advance: Any,
    levels: tuple[str, ...] = LEVELS,
    min_support: float | None = None,
    min_confidence: float = MIN_CONFIDENCE,
    max_size: int = MAX_SIZE,
) -> dict[str, Any]:
    """Count, test, write, level by level; each level is a run of its own.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    found = []
    for done, level in enumerate(levels):
        advance(level, done / len(levels))
        found.append(_run_level(as_of, level, min_support, min_confidence, max_size))
    return {"as_of_date": found[0]["as_of_date"], "levels": found}


def _run_level(
    as_of: datetime | None, level: str, min_support: float | None, min_confidence: float, max_size: int
) -> dict[str, Any]:
    from lcm_ml.frames.baskets import baskets_before, item_names
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.insights.itemsets import frequent_sets
    from lcm_ml.insights.rules import itemset_rows, rule_rows
    from lcm_ml.registry.runs import Run, run_capability

    wanted = {"level": level, "min_support": min_support, "min_confidence": min_confidence, "max_size": max_size}
    run = Run("rules", wanted)

    def compute(con: Any, day: date) -> "tuple[dict[str, pl.DataFrame], dict[str, Any]]":
        limits = built_settings(con)["rules_min_support"]
        support = float(limits[level]) if min_support is None else min_support
        sets = frequent_sets(baskets_before(con, day, level), support, max_size)
        names = item_names(con, level, sets.items)
        rows = rule_rows(sets, names, min_confidence)
        told = {
            "baskets": sets.baskets,
            "min_support": support,
            "min_baskets": sets.min_baskets,
            "itemsets": len(sets.counts),
            "tests": sum(size * tried for size, tried in sets.candidates.items()),
            "rules": rows.height,
            "top": rows.unique("consequent", keep="first", maintain_order=True).head(SHOWN).to_dicts(),
            "note": _note(sets.baskets, sets.min_baskets, rows.height, level),
        }
        return {"frequent_itemsets": itemset_rows(sets, names), "association_rules": rows}, told

    day, told = run_capability(run, as_of, compute, notify, level=level)
    return {"level": level, "run_id": run.run_id, "as_of_date": day, **told}


def _note(baskets: int, least: int, rules: int, level: str) -> str | None:
    if not baskets:
        return f"no purchase before this date has a {level}"
    if not rules:
        return (
            f"no rule: no set of items is in at least {least:,} of {baskets:,} baskets and goes together more than "
            "chance explains; lower --min-support, or wait for more baskets"
        )
    return None


def _show(result: dict[str, Any]) -> None:
    for found in result["levels"]:
        out.print(
            f"{found['level']}, before {found['as_of_date']}: {found['baskets']:,} baskets, {found['itemsets']:,} "
            f"frequent sets (in at least {found['min_baskets']:,} baskets), {found['rules']:,} rules of "
            f"{found['tests']:,} tested"
        )
        if found["note"]:
            out.print(f"  {found['note']}")
        for rule in found["top"]:
            out.print(f"  {rule['antecedent_names']} -> {rule['consequent_name']}", style="bold")
            out.print(
                f"    {rule['confidence']:.1%} ({rule['ci_low']:.1%} to {rule['ci_high']:.1%}) of their baskets have "
                f"it, {rule['consequent_support']:.1%} of all: lift {rule['lift']:.1f}, {rule['baskets']:,} baskets"
            )
