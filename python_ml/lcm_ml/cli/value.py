"""`lcm-ml value`: how much each user will purchase and spend, and what it is worth."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import Advance, AsOfOption, JsonOption, command, emit, notify, out, progress, with_interval

if TYPE_CHECKING:
    import duckdb

    from lcm_ml.insights.value_run import Values
    from lcm_ml.warehouse.packed import Rows

TITLES = {"naive": "same as last period", "bg_nbd": "BG/NBD + Gamma-Gamma", "xgboost": "XGBoost"}


def value(
    as_of: AsOfOption = None,
    seed: Annotated[int, typer.Option(help="Of the trees, simulations and resamples.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Expect purchases and spend per user in 30, 90 and 365 days, with 80 % intervals, and a discounted lifetime value.

    Two models are compared out of time with each other and with "the same as last period"; the better one serves each
    horizon. The year's discount rate is the var value_discount_rate.

    Example: `lcm-ml value --json | jq '.horizons[].served'`
    """
    with command(as_json):
        with progress("value", as_json) as advance:
            result = run_value(as_of, advance, seed)
        emit(result, as_json, _show)


def run_value(as_of: datetime | None, advance: Advance, seed: int = 0) -> dict[str, Any]:
    """Fit, evaluate, write, tell.

    Raises:
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    from lcm_ml.frames.frame import built_settings
    from lcm_ml.frames.purchase_history import PurchaseReader
    from lcm_ml.insights.value import HORIZONS
    from lcm_ml.insights.value_run import find_values, value_tables
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("value", {}, seed)

    def compute(con: "duckdb.DuckDBPyConnection", day: date) -> "tuple[dict[str, Rows], Values]":
        settings = built_settings(con)
        reader = PurchaseReader(con, HORIZONS, settings["non_model_features"])
        found = find_values(reader, day, float(settings["value_discount_rate"]), seed, advance)
        advance("writing", 0.9)
        return value_tables(found), found

    _, found = run_capability(run, as_of, compute, notify)
    return {"run_id": run.run_id, **_told(found)}


def _told(found: "Values") -> dict[str, Any]:
    from dataclasses import asdict

    from lcm_ml.insights.purchase_model import LIFETIME_MONTHS
    from lcm_ml.insights.value import concentration

    told: dict[str, Any] = {
        "as_of_date": found.as_of,
        "users": found.users.height if found.model else 0,
        "discount_rate": found.discount_rate,
        "refunded_share": found.refunded_share,
        "lifetime": None,
        "parameters": None,
        "horizons": [],
        "notes": [*found.notes, *(note for judged in found.judged for note in judged.notes)],
    }
    if found.model is None:
        return told
    model = found.model
    told["parameters"] = {
        "bg_nbd": {name: getattr(model.purchases, name) for name in ("r", "alpha", "a", "b")},
        "gamma_gamma": asdict(model.worth),
    }
    told["lifetime"] = {"months": LIFETIME_MONTHS, **concentration(found.lifetime)}
    for judged in found.judged:
        figures: dict[str, dict[str, Any]] = {}
        for row in judged.figures.to_dicts():
            interval = {key: row[key] for key in ("value", "ci_low", "ci_high")}
            figures.setdefault(row["model_name"], {})[row["metric"]] = interval
        told["horizons"].append(
            {
                "horizon_days": judged.horizon_days,
                "served": judged.served,
                "evaluated_at": judged.evaluated_at,
                "evaluated_users": judged.figures.item(0, "n_users") if judged.figures.height else 0,
                "expected_purchases": judged.expected_purchases,
                "expected_amount": judged.expected_amount,
                "figures": figures,
            }
        )
    return told


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    out.print(f"value of {result['users']:,} users who had purchased before {result['as_of_date']}")
    for horizon in result["horizons"]:
        out.print(
            f"\nnext {horizon['horizon_days']} days: {horizon['expected_purchases']:,.0f} days of purchase, "
            f"{horizon['expected_amount']:,.0f} spent; served by {TITLES[horizon['served']]}"
        )
        if not horizon["figures"]:
            continue
        table = Table("model", "expected / realised", "rank correlation", "mean error", "inside 80 % interval")
        for name, figures in horizon["figures"].items():
            table.add_row(
                TITLES[name],
                with_interval(figures["total_ratio"]),
                with_interval(figures["spearman"]),
                with_interval(figures["mae"], ".2f"),
                with_interval(figures.get("coverage_80"), ".1%"),
            )
        out.print(f"expected at {horizon['evaluated_at']} of {horizon['evaluated_users']:,} users, out of time")
        out.print(table)
    if lifetime := result["lifetime"]:
        out.print(
            f"\nlifetime value: {lifetime['total']:,.0f} in {lifetime['months']} months at "
            f"{result['discount_rate']:.0%} a year; the highest tenth of users holds {lifetime['top_tenth_share']:.0%}"
        )
    if result["refunded_share"]:
        out.print(f"refunds are not subtracted: they were {result['refunded_share']:.1%} of what was purchased")
    for note in result["notes"]:
        out.print(f"note: {note}")
