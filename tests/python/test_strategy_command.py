"""`lcm-ml strategy` in a warehouse: what was recorded, beside what its users did; nothing changes without --apply."""

import shutil
from pathlib import Path

import pytest
from click.testing import Result
from lifecycle import ROOT, change, lcm, query, warehouse_at
from typer.testing import CliRunner

from lcm_ml.cli.main import app

# The sample's campaigns, as if the rules had sent them.
SENT = """
    insert into ml.actions_sent by name
    select
        'r' as run_id, touched_date as as_of_date, campaign_id, user_id, arm, touched_at as sent_at,
        'inform' as rule_id, 'news' as offer, coalesce(channel, 'push') as channel,
        case when arm = 'control' then 0 else {cost} end as contact_cost, 0.0 as discount_share,
        0.5 as expected_profit, 'active' as stage, 0.3 as churn_probability, 'unknown' as uplift_segment
    from marts.campaign_touches
    qualify row_number() over (partition by campaign_id, user_id order by touched_at) = 1
"""
BY_HAND = """
    select
        sent.arm,
        count(*) as n,
        avg(cast(exists (
            from marts.purchase_days as p
            where
                coalesce(p.linked_user_id, p.user_id) = sent.user_id
                and p.purchase_date between cast(sent.sent_at as date) and cast(sent.sent_at as date) + 13
        ) as integer)) as purchase_rate
    from ml.actions_sent as sent
    where
        cast(sent.sent_at as date) + 14 <= (select as_of_date from marts.as_of_dates where is_scoring_date)
    group by sent.arm
"""


@pytest.fixture
def sent(sample: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copy(sample, tmp_path / "lcm.duckdb"))
    change(path, SENT.format(cost=500.0))
    return path


def test_nothing_to_compare_before_anything_was_sent(sample: Path) -> None:
    found = lcm(sample, "strategy")
    assert "lcm-ml act" in found["note"]
    assert query(sample, "select * from serving.strategy_effects_latest").is_empty()


def test_effects_are_counted_from_what_was_recorded(sent: Path) -> None:
    found = lcm(sent, "strategy", "--days", "14", "--window", "400")
    whole = next(row for row in found["effects"] if row["dimension"] == "all")
    by_hand = {row["arm"]: row for row in query(sent, BY_HAND).to_dicts()}
    assert (whole["n_treated"], whole["n_control"]) == (by_hand["treatment"]["n"], by_hand["control"]["n"])
    assert whole["purchase_rate_treated"] == pytest.approx(by_hand["treatment"]["purchase_rate"])
    assert whole["purchase_rate_control"] == pytest.approx(by_hand["control"]["purchase_rate"])
    served = query(sent, "select * from serving.strategy_effects_latest where dimension = 'all'").to_dicts()
    assert served[0]["profit"] == pytest.approx(whole["profit"])
    # The last 14 days, and the next ones, are not over.
    assert lcm(sent, "strategy", "--days", "400")["note"]


def test_a_rule_that_loses_is_stopped_by_apply_alone(
    sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contacts of 500 each cannot be earned back; the file is a copy of the project's."""
    copied = tmp_path / "project"
    shutil.copytree(ROOT / "seeds" / "decisions", copied / "seeds" / "decisions")
    for name in ("models", "dbt_project.yml"):
        (copied / name).symlink_to(ROOT / name)
    monkeypatch.setenv("LCM_PROJECT_DIR", str(copied))
    file = copied / "seeds" / "decisions" / "action_rules.csv"
    before = file.read_text(encoding="utf-8")
    found = lcm(sent, "strategy", "--days", "14", "--window", "400")
    assert [row["proposal_id"] for row in found["proposals"]] == ["action_rules.inform.is_active"]
    assert not found["proposals"][0]["is_applied"]
    assert file.read_text(encoding="utf-8") == before
    applied = lcm(sent, "strategy", "--days", "14", "--window", "400", "--apply")
    assert applied["proposals"][0]["is_applied"]
    changed = [line for line in file.read_text(encoding="utf-8").splitlines() if line not in before.splitlines()]
    assert len(changed) == 1
    assert changed[0].startswith("inform,50,false,")
    assert query(sent, "select is_applied from serving.strategy_proposals_latest")["is_applied"].to_list() == [True]
    # The warehouse still has the rule as it was: what was applied is not applied twice.
    again = refused(sent, "strategy", "--days", "14", "--window", "400", "--apply")
    assert again.exit_code == 1
    assert "dbt build" in again.output


def refused(path: Path, *arguments: str) -> Result:
    with warehouse_at(path):
        return CliRunner().invoke(app, list(arguments))


def test_an_unknown_proposal_is_wrong_use(sent: Path) -> None:
    result = refused(sent, "strategy", "--days", "14", "--apply", "--only", "action_rules.nothing.at_all")
    assert result.exit_code == 2
    assert "action_rules.nothing.at_all" in result.output
