"""The strategy loop: outcomes of recorded actions beside who was held back, and what is proposed of them."""

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from strategy_world import COST, MARGIN, OFFERS, ORDER_VALUE, a_rule, effects, outcomes, rules_of

from lcm_ml.decisions.strategy.editing import apply_proposals
from lcm_ml.decisions.strategy.effects import compared, profit_of
from lcm_ml.decisions.strategy.proposals import proposals, undecided
from lcm_ml.errors import LcmError


def proposed(sent: pl.DataFrame, rules: pl.DataFrame, offers: pl.DataFrame | None = None) -> dict[str, str]:
    made = proposals(effects(sent, rules), sent, rules, OFFERS.clear() if offers is None else offers, 0.2)
    return dict(made.select("proposal_id", "new_value").iter_rows())


def test_the_profit_per_contact_is_the_true_one() -> None:
    """An added purchase with probability 0.2 earns 0.2 x 40 x 0.3 - 0.6 = 1.8."""
    sent = outcomes(1, n=40_000, added=lambda churn, _: np.minimum(churn, 0.2))
    whole = effects(sent, rules_of(a_rule("r"))).filter(pl.col("dimension") == "all").to_dicts()[0]
    assert whole["ci_low"] < 1.8 < whole["ci_high"]
    assert whole["ci_high"] - whole["ci_low"] < 0.4
    assert (whole["n_treated"], whole["n_control"]) == (
        sent.filter(pl.col("arm") == "treatment").height,
        sent.filter(pl.col("arm") == "control").height,
    )


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        sent = outcomes(seed, n=600, added=lambda churn, _: np.minimum(churn, 0.2))
        told = compared(sent, profit_of(sent, MARGIN))
        assert told is not None
        held += abs(told.effects[0] - 1.8) <= 1.96 * told.errors[0]
    assert 180 <= held <= 199  # 190 expected


def test_discounts_are_paid_on_orders_that_would_have_come_anyway() -> None:
    sent = outcomes(2, n=40_000, discount=0.1)
    row = effects(sent, rules_of(a_rule("r"))).row(0, named=True)
    rate = sent.filter(pl.col("arm") == "treatment")["is_purchased"].mean()
    assert row["profit"] == pytest.approx(-COST - 0.1 * ORDER_VALUE * rate, abs=0.25)


def test_a_rule_that_loses_is_stopped_and_one_that_earns_is_kept() -> None:
    sent = pl.concat([outcomes(3, "bad", 20_000), outcomes(4, "good", added=lambda churn, _: np.minimum(churn, 0.25))])
    assert proposed(sent, rules_of(a_rule("bad"), a_rule("good"))) == {"action_rules.bad.is_active": "false"}


def test_nothing_is_proposed_where_contacts_are_worth_what_they_cost() -> None:
    """The chance of any proposal is held below 5 % by the correction."""
    worth = COST / (MARGIN * ORDER_VALUE)
    rules = rules_of(a_rule("r", min_churn_probability=0.2))
    wrong = sum(bool(proposed(outcomes(seed, n=800, added=worth), rules)) for seed in range(40))
    assert wrong <= 6  # 2 at most expected


def test_a_limit_moves_to_where_contacts_pay() -> None:
    sent = outcomes(5, n=24_000, added=lambda churn, _: np.where(churn > 0.45, 0.3, 0.0))
    found = proposed(sent, rules_of(a_rule("r")))
    assert list(found) == ["action_rules.r.min_churn_probability"]
    assert 0.4 <= float(found["action_rules.r.min_churn_probability"]) <= 0.55


def test_a_limit_that_still_earns_is_widened() -> None:
    sent = outcomes(6, n=12_000, added=lambda churn, _: np.minimum(churn, 0.3)).filter(
        pl.col("churn_probability") >= 0.5
    )
    found = proposed(sent, rules_of(a_rule("r", min_churn_probability=0.5)))
    assert 0.2 <= float(found["action_rules.r.min_churn_probability"]) < 0.5


def test_a_stage_that_loses_leaves_the_rule() -> None:
    sent = outcomes(7, n=12_000, added=lambda churn, stages: np.where(stages == "loyal", 0.0, np.minimum(churn, 0.3)))
    assert proposed(sent, rules_of(a_rule("r"))) == {"action_rules.r.stages": "active"}


def test_what_a_rule_no_longer_does_is_not_held_against_it() -> None:
    loses = outcomes(3, n=20_000)
    assert proposed(loses, rules_of(a_rule("r"))) == {"action_rules.r.is_active": "false"}
    for changed in ({"offer": "another"}, {"stages": "dormant"}, {"min_churn_probability": 1.0}, {"is_active": False}):
        assert proposed(loses, rules_of(a_rule("r", **changed))) == {}


def test_a_success_rate_that_was_assumed_wrongly_is_corrected() -> None:
    sent = outcomes(8, n=20_000, added=lambda churn, _: 0.3 * churn)
    found = proposed(sent, rules_of(a_rule("r", is_active=False)), OFFERS)
    assert float(found["offers.o.assumed_success_rate"]) == pytest.approx(0.3, abs=0.04)
    right = OFFERS.with_columns(assumed_success_rate=pl.lit(0.3))
    assert proposed(sent, rules_of(a_rule("r", is_active=False)), right) == {}


def test_too_few_users_are_said_to_be_too_few() -> None:
    sent = outcomes(9, n=60, held=0.1)
    found = effects(sent, rules_of(a_rule("r")))
    assert found["profit"].null_count() == found.height
    assert "too few to compare" in undecided(found)[0]
    assert proposed(sent, rules_of(a_rule("r"))) == {}


RULES_CSV = """rule_id,is_active,min_churn_probability,stages,description
keep,true,0.50,active|loyal,"Worth keeping, and ""likely"" to leave"
inform,true,,,News
"""


def a_change(name: str, parameter: str, old: str | None, new: str) -> dict[str, str | None]:
    return {
        "proposal_id": f"action_rules.{name}.{parameter}",
        "target": "action_rules",
        "name": name,
        "parameter": parameter,
        "old_value": old,
        "new_value": new,
    }


def test_applying_changes_the_cells_named_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "action_rules.csv"
    path.write_text(RULES_CSV, encoding="utf-8")
    changes = [
        a_change("keep", "min_churn_probability", "0.5", "0.6"),
        a_change("inform", "is_active", "true", "false"),
        a_change("inform", "stages", None, "active"),
    ]
    assert apply_proposals(tmp_path, pl.DataFrame(changes)) == [path]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["keep", "true", "0.6", "active|loyal", 'Worth keeping, and "likely" to leave']
    assert rows[2] == ["inform", "false", "", "active", "News"]


@pytest.mark.parametrize(
    "change",
    [a_change("keep", "min_churn_probability", "0.4", "0.6"), a_change("gone", "is_active", "true", "false")],
)
def test_a_file_that_is_not_as_the_warehouse_has_it_stays_as_it_is(
    tmp_path: Path, change: dict[str, str | None]
) -> None:
    path = tmp_path / "action_rules.csv"
    path.write_text(RULES_CSV, encoding="utf-8")
    with pytest.raises(LcmError, match="nothing was changed"):
        apply_proposals(tmp_path, pl.DataFrame([change]))
    assert path.read_text(encoding="utf-8") == RULES_CSV
