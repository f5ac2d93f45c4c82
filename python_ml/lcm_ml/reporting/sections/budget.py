"""Budgets: what money for contacts brings, by whom it is spent on."""

import duckdb
import polars as pl

from lcm_ml.reporting import charts_budget
from lcm_ml.reporting.section import (
    Figure,
    MakeSection,
    Section,
    Table,
    cell,
    count,
    plural,
    rows_of,
    two_digits,
    with_interval,
)

TITLES = {
    "optimised": "optimised",
    "by_uplift": "by uplift",
    "by_risk": "by risk",
    "contact_all": "contact all",
    "nobody": "nobody",
}


def budget(con: duckdb.DuckDBPyConnection) -> Section:
    """Profit by budget and policy, and what is sent through which channel."""
    title = "What a budget brings"
    text = (
        "The profit expected of contacts by the money spent on them and on their discounts. All policies have the same "
        "budget, consent, contact limits and channels. The dashed line is the budget that was asked for, or the least "
        "at which nothing more pays."
    )
    rows = rows_of(
        con,
        "serving.budget_policies_latest",
        "select * from serving.budget_policies_latest order by budget",
    )
    if rows.is_empty():
        return Section("budget", title, text, filled_by="lcm-ml budget")
    asked = {row["policy"]: row for row in rows.filter("is_asked").to_dicts()}
    best = asked["optimised"]
    others = [name for name in TITLES if name in ("by_uplift", "by_risk", "contact_all")]
    beside = ", ".join(f"{TITLES[name]} {two_digits(asked[name]['expected_profit'])}" for name in others)
    profit = with_interval(best, two_digits, "expected_profit")
    says = (
        f"A budget of {two_digits(best['budget'])} is expected to bring {profit} with "
        f"{plural(best['n_contacts'], 'contact')}; with the same money {beside}."
    )
    table = Table(
        f"Policies at a budget of {two_digits(best['budget'])}",
        ("policy", "contacts", "for contacts", "for discounts", "expected profit"),
        tuple(
            (
                TITLES[name],
                count(asked[name]["n_contacts"]),
                two_digits(asked[name]["contact_cost"]),
                two_digits(asked[name]["discount_cost"]),
                cell(asked[name], two_digits, "expected_profit"),
            )
            for name in TITLES
        ),
    )
    curves = rows.with_columns(name=pl.col("policy").replace(TITLES)).filter(pl.col("policy") != "nobody")
    names = [title for name, title in TITLES.items() if name != "nobody"]
    notes = [f"One more unit of budget would bring {two_digits(best['shadow_price'])}."]
    if best["n_contacts"] and best["ci_low"] is None:
        notes.append("Effects of some contacts are assumed rates, not measured: no interval can be told.")
    drawing = charts_budget.profit(curves, names, best["budget"])
    return Section("budget", title, text, (Figure(drawing, says, table),), table=_sent(con), notes=tuple(notes))


def _sent(con: duckdb.DuckDBPyConnection) -> Table | None:
    rows = rows_of(
        con,
        "serving.budget_allocations_latest",
        """
        select
            offer,
            channel,
            count(*) as contacts,
            sum(contact_cost) as contact_cost,
            sum(discount_cost) as discount_cost,
            sum(expected_profit) as expected_profit
        from serving.budget_allocations_latest
        group by offer, channel
        order by expected_profit desc, offer, channel
        """,
    )
    if rows.is_empty():
        return None
    money = ("contact_cost", "discount_cost", "expected_profit")
    return Table(
        "What the optimised policy sends",
        ("offer", "channel", "contacts", "for contacts", "for discounts", "expected profit"),
        tuple(
            (row["offer"], row["channel"], count(row["contacts"]), *(two_digits(row[name]) for name in money))
            for row in rows.to_dicts()
        ),
        labels=2,
    )


SECTIONS: tuple[MakeSection, ...] = (budget,)
