"""What the outcomes speak for: rules to stop or to narrow, limits to move, assumptions to correct."""

from typing import Any

import numpy as np
import polars as pl

from lcm_ml.decisions.actions.rules import BETWEEN, CONTACT, listed_words
from lcm_ml.decisions.strategy.effects import LEVEL, RULE, WITHIN_RULE, compared, within
from lcm_ml.insights.significance import holm

SMALLEST_CHANGE = 0.005
"""Of a success rate: less is not worth a change."""

Row = dict[str, Any]


def proposals(
    effects: pl.DataFrame, sent: pl.DataFrame, rules: pl.DataFrame, offers: pl.DataFrame, success_rate: float
) -> pl.DataFrame:
    """Changes of marts.action_rules and marts.offers.

    A rule that loses money, with none of its groups earning any, is stopped. Where only some of its groups lose, its
    limits exclude them: thirds by churn probability from either end, stages, uplift segments. Where the group at a
    limit earns money, the limit moves on by the group's width, which goes beyond what was tried. Each rests on a test
    at 5 %, corrected for all rules and their groups together. A rule gets one change at a time, the one with the
    smallest p-value: its groups overlap, and what is left is told anew once it is changed. An offer's
    assumed_success_rate is replaced by the one measured, where they differ beyond chance.

    Args:
        effects: as of effects_of.
        sent: as of frames.sent.sent_actions.
        rules: marts.action_rules.
        offers: marts.offers.
        success_rate: the var contact_success_rate, for offers without one of their own.

    Returns:
        proposal_id, target, name, parameter, old_value, new_value, evidence, profit, ci_low, ci_high, p_value_adjusted,
        n_treated, n_control; sorted by proposal_id.
    """
    rows = effects.to_dicts()
    found: list[Row] = []
    for rule in rules.filter(pl.col("is_active") & (pl.col("action") == CONTACT)).to_dicts():
        whole = next((row for row in rows if row["dimension"] == RULE and row["level"] == rule["rule_id"]), None)
        if whole is not None:
            parts = {kind: [r for r in rows if r["dimension"] == within(rule["rule_id"], kind)] for kind in WITHIN_RULE}
            found += sorted(_of_rule(rule, whole, parts), key=lambda row: row["p_value_adjusted"])[:1]
    found += _success_rates(sent, offers, success_rate)
    return pl.DataFrame(found, schema=SCHEMA).sort("proposal_id")


SCHEMA = {
    **dict.fromkeys(
        ("proposal_id", "target", "name", "parameter", "old_value", "new_value", "evidence"), pl.String
    ),
    **dict.fromkeys(("profit", "ci_low", "ci_high", "p_value_adjusted"), pl.Float64),
    **dict.fromkeys(("n_treated", "n_control"), pl.Int64),
}  # fmt: skip


def _is_told(row: Row) -> bool:
    return row["p_value_adjusted"] is not None and row["p_value_adjusted"] <= LEVEL


def _loses(row: Row) -> bool:
    return _is_told(row) and row["profit"] < 0


def _earns(row: Row) -> bool:
    return _is_told(row) and row["profit"] > 0


def _of_rule(rule: Row, whole: Row, parts: dict[str, list[Row]]) -> list[Row]:
    every = [row for rows in parts.values() for row in rows]
    if _loses(whole) and not any(map(_earns, every)):
        return [_change(rule, "is_active", "true", "false", whole, "contacts by this rule lose money")]
    found = _limits(rule, parts["risk"])
    found += _listed(rule, "stages", parts["stage"])
    found += _listed(rule, "uplift_segments", parts["uplift_segment"])
    return found


def _limits(rule: Row, thirds: list[Row]) -> list[Row]:
    found = []
    for parameter, ordered, edge, sign in (
        ("min_churn_probability", thirds, "high", -1),
        ("max_churn_probability", thirds[::-1], "low", 1),
    ):
        losing = 0
        while losing < len(ordered) and _loses(ordered[losing]):
            losing += 1
        old = rule[parameter]
        if 0 < losing < len(ordered):
            last = ordered[losing - 1]
            found.append(
                _change(
                    rule, parameter, _text_or_none(old), _text(last[edge]), last, f"users at {last['level']} lose money"
                )
            )
        elif old is not None and ordered and _earns(ordered[0]):
            first = ordered[0]
            new = round(min(1.0, max(0.0, old + sign * (first["high"] - first["low"]))), 2)
            told = f"users at {first['level']}, next to the limit, earn money; how far that goes on is not known yet"
            if new != old:
                found.append(_change(rule, parameter, _text(old), _text(new), first, told))
    return found


def _listed(rule: Row, parameter: str, groups: list[Row]) -> list[Row]:
    losing = [row for row in groups if _loses(row)]
    listed = listed_words(rule[parameter]) or [row["level"] for row in groups]
    kept = [level for level in listed if level not in {row["level"] for row in losing}]
    if not losing or not kept:
        return []
    worst = min(losing, key=lambda row: row["p_value_adjusted"])
    told = f"{' and '.join(row['level'] for row in losing)} lose money"
    return [_change(rule, parameter, rule[parameter], BETWEEN.join(kept), worst, told)]


def _change(rule: Row, parameter: str, old: str | None, new: str, row: Row, told: str) -> Row:
    return _proposal("action_rules", rule["rule_id"], parameter, old, new, row, f"{told}: {_figures(row)}")


def _figures(row: Row) -> str:
    return (
        f"{row['profit']:+.2f} per contact ({row['ci_low']:+.2f} to {row['ci_high']:+.2f}), {row['n_treated']:,} "
        f"contacted beside {row['n_control']:,} held back, p {row['p_value_adjusted']:.3f}"
    )


def _proposal(target: str, name: str, parameter: str, old: str | None, new: str, row: Row, evidence: str) -> Row:
    figures = ("profit", "ci_low", "ci_high", "p_value_adjusted", "n_treated", "n_control")
    return {
        "proposal_id": f"{target}.{name}.{parameter}",
        "target": target,
        "name": name,
        "parameter": parameter,
        "old_value": old,
        "new_value": new,
        "evidence": evidence,
        **{figure: row.get(figure) for figure in figures},
    }


def _text(value: float) -> str:
    return f"{value:.6g}"


def _text_or_none(value: float | None) -> str | None:
    return None if value is None else _text(value)


def _success_rates(sent: pl.DataFrame, offers: pl.DataFrame, success_rate: float) -> list[Row]:
    """Of the users that would have purchased no more, the share that contacts with each offer kept."""
    from scipy.special import ndtr

    measured = []
    for offer in offers.to_dicts():
        rows = sent.filter(pl.col("offer") == offer["offer"])
        if rows.is_empty():
            continue
        effects = compared(rows, (~rows["is_purchased"]).cast(pl.Float64))
        if effects is None or not effects.relative_errors[0] > 0:
            continue
        kept, error = -float(effects.relative[0]), float(effects.relative_errors[0])
        own = offer["assumed_success_rate"]
        p = 2 * float(ndtr(-abs(kept - (success_rate if own is None else own)) / error))
        control, treated = (int(n) for n in effects.users)
        measured.append((offer["offer"], own, kept, error, p, treated, control))
    adjusted = holm(np.array([row[4] for row in measured]))
    found = []
    for (offer, own, kept, error, _, treated, control), p in zip(measured, adjusted, strict=True):
        assumed, new = success_rate if own is None else own, round(min(1.0, max(0.0, kept)), 3)
        if p > LEVEL or abs(new - assumed) < SMALLEST_CHANGE:
            continue
        evidence = (
            f"contacts kept {kept:.1%} ({kept - 1.96 * error:.1%} to {kept + 1.96 * error:.1%}) of those who would not "
            f"have purchased, {assumed:.1%} was assumed: {treated:,} contacted beside {control:,} held back, p {p:.3f}"
        )
        row = {"p_value_adjusted": float(p), "n_treated": treated, "n_control": control}
        found.append(_proposal("offers", offer, "assumed_success_rate", _text_or_none(own), _text(new), row, evidence))
    return found


def undecided(effects: pl.DataFrame) -> list[str]:
    """What cannot be told yet of each rule, and how much it would take to tell the profit that was expected."""
    told = []
    for row in effects.filter(pl.col("dimension") == RULE).to_dicts():
        if row["profit"] is None:
            told.append(
                f"{row['level']}: {row['n_treated']:,} contacted and {row['n_control']:,} held back are too few to "
                "compare: a larger action_holdout_share, or more periods with --window"
            )
        elif not _is_told(row):
            error = (row["ci_high"] - row["ci_low"]) / (2 * 1.96)
            expected = abs(row["expected_profit"] or 0.0)
            # 80 % power at 5 %: the effect is 2.8 standard errors.
            times = (2.8 * error / expected) ** 2 if expected else float("inf")
            more = (
                f"; telling the {expected:.2f} expected would take about {times:,.0f} times as many"
                if 1 < times < 1e6
                else ""
            )
            told.append(
                f"{row['level']}: profit {row['profit']:+.2f} ({row['ci_low']:+.2f} to {row['ci_high']:+.2f}){more}"
            )
    return told
