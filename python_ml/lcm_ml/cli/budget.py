"""`lcm-ml budget`: whom to contact, through which channel and with what offer, under a budget."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import Advance, AsOfOption, JsonOption, command, emit, notify, out, progress, with_interval

if TYPE_CHECKING:
    import polars as pl

    from lcm_ml.decisions.budget.planning import Plan


def budget(
    budget: Annotated[
        float | None,
        typer.Option(
            help="Money for contacts and the discounts expected of them, base currency. Default: the least at which "
            "nothing more pays.",
            min=0,
        ),
    ] = None,
    as_of: AsOfOption = None,
    seed: Annotated[int, typer.Option(help="Of the order in which contact_all goes through users.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Spend a budget where it brings most, within consent, contact limits and what channels can carry.

    A linear programme maximises the expected profit, beside contacting all, by churn risk and by uplift with the same
    money. What contacts bring comes from `lcm-ml uplift`; where it measured nothing, from the rates in offers.csv.
    Channels and offers are in seeds/decisions.

    Example: `lcm-ml budget --budget 500`
    """
    with command(as_json):
        with progress("budget", as_json) as advance:
            result = run_budget(as_of, advance, budget, seed)
        emit(result, as_json, _show)


def run_budget(as_of: datetime | None, advance: Advance, budget: float | None = None, seed: int = 0) -> dict[str, Any]:
    """Read, plan, write, tell.

    Raises:
        LcmError: when the marts cannot be read, no allocation is found, or the warehouse cannot be written.
    """
    import polars as pl

    from lcm_ml.decisions.budget.planning import OPTIMISED, plan_budget
    from lcm_ml.decisions.gains import ASSUMED
    from lcm_ml.decisions.options import narrow, permitted, situations_at
    from lcm_ml.frames.decisions import setting_table
    from lcm_ml.registry.runs import Run, run_capability

    run = Run("budget", {"budget": budget}, seed)

    def compute(con: Any, day: date) -> "tuple[dict[str, pl.DataFrame], tuple[Plan, dict[str, Any]]]":
        channels, offers = setting_table(con, "contact_channels"), setting_table(con, "offers")
        risks, allowed = [], []
        for some in situations_at(con, day, lambda what, share: advance(what, 0.3 * share)):
            risks.append(some.users.select("user_id", "churn_probability"))
            allowed.append(narrow(permitted(some.options), offers, channels))
        users, options = pl.concat(risks), pl.concat(allowed)
        del risks, allowed
        plan = plan_budget(options, users, channels, budget, seed, advance)
        advance("writing", 0.97)
        contacts = plan.contacts.filter(policy=OPTIMISED).drop("policy")
        counts = {
            "users": users.height,
            "reachable": options["user_id"].n_unique(),
            "assumed": contacts.filter(gain_source=ASSUMED).height,
            "allocations": contacts.group_by("offer", "channel")
            .agg(
                n_contacts=pl.len(),
                contact_cost=pl.col("contact_cost").sum(),
                discount_cost=pl.col("discount_cost").sum(),
                expected_profit=pl.col("expected_profit").sum(),
            )
            .sort("expected_profit", "offer", descending=[True, False])
            .to_dicts(),
        }
        return {"budget_policies": plan.policies, "budget_allocations": contacts}, (plan, counts)

    day, (plan, counts) = run_capability(run, as_of, compute, notify)
    policies = plan.policies.filter("is_asked").drop("is_asked", "budget").to_dicts()
    return {
        "run_id": run.run_id,
        "as_of_date": day,
        "budget": plan.budget,
        "most_that_pays": plan.most,
        "usual_offer": plan.usual_offer,
        "policies": policies,
        **counts,
        "note": None if counts["allocations"] else _nothing(plan, counts),
    }


def _nothing(plan: "Plan", counts: dict[str, Any]) -> str:
    if not counts["reachable"]:
        return "nobody may be contacted through a channel whose effect is known: see consent and contact limits"
    return "no contact earns its cost" if plan.most == 0 else "the budget pays for no contact that earns its cost"


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    optimised = result["policies"][0]
    out.print(
        f"{result['users']:,} users as of {result['as_of_date']}, {result['reachable']:,} of them may be contacted; "
        f"budget {result['budget']:,.2f} (nothing pays beyond {result['most_that_pays']:,.2f})",
    )
    table = Table("policy", "contacts", "for contacts", "for discounts", "expected profit")
    for row in result["policies"]:
        figures = [f"{row[name]:,.2f}" for name in ("contact_cost", "discount_cost")]
        profit = with_interval(row, ",.2f", "expected_profit")
        table.add_row(row["policy"].replace("_", " "), f"{row['n_contacts']:,}", *figures, profit)
    out.print(table)
    for row in result["allocations"]:
        out.print(
            f"{row['offer']} by {row['channel']}: {row['n_contacts']:,} contacts, "
            f"expected profit {row['expected_profit']:,.2f}",
        )
    out.print(f"one more unit of budget would bring {optimised['shadow_price']:,.2f}")
    if result["usual_offer"]:
        out.print(f"contact all and by risk send {result['usual_offer']}")
    if result["note"]:
        out.print(f"note: {result['note']}", style="yellow")
    if result["assumed"]:
        out.print(
            f"note: {result['assumed']:,} of the contacts rest on assumed rates (seeds/decisions/offers.csv), not on "
            "effects that `lcm-ml uplift` measured: no interval can be told",
            style="yellow",
        )
