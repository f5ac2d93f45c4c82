"""`lcm-ml act` in a warehouse: what it decides, hands out and records, and how results come back as touches."""

import json
import os
import shutil
import stat
from pathlib import Path

import polars as pl
import pytest
from click.testing import Result
from lifecycle import WITHOUT_TESTS, build, change, dbt, lcm, query, warehouse_at
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.decisions import options
from lcm_ml.decisions.actions import deciding, lists
from lcm_ml.sources import sent_actions
from lcm_ml.sources.simulate import SimulationConfig, simulate, write

LAST = "2025-12-30"
"""The end of the data of the first load; the second one brings one more day."""
SENT = ["--sent-at", f"{LAST}T09:00:00"]


def call(path: Path, *arguments: str) -> Result:
    with warehouse_at(path):
        return CliRunner().invoke(app, list(arguments))


def load(path: Path, folder: Path, *more: str) -> None:
    names = {file.stem: str(file) for file in folder.glob("*.parquet")}
    tables = [part for name, file in names.items() for part in (f"--{name.replace('_', '-')}", file)]
    lcm(path, "load", "files", *tables, *more)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A shop that was loaded up to LAST and built; and the folder with what comes the day after."""
    folder = tmp_path_factory.mktemp("shop")
    simulated = simulate(SimulationConfig(users=220, days=200, seed=5, dirty=0.0))
    write(simulated, folder / "all", "parquet")
    shutil.rmtree(folder / "all" / "truth")
    (folder / "late").mkdir()
    events = pl.read_parquet(folder / "all" / "events.parquet")
    is_late = pl.col("event_time").cast(pl.String).str.slice(0, 10) > LAST
    events.filter(is_late).write_parquet(folder / "late" / "events.parquet")
    events.filter(~is_late).write_parquet(folder / "all" / "events.parquet")
    path = folder / "built" / "lcm.duckdb"
    path.parent.mkdir()
    load(path, folder / "all")
    build(path, *WITHOUT_TESTS)
    return path, folder / "late"


@pytest.fixture
def path(shop: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the shop's warehouse, which a test may change."""
    return Path(shutil.copy(shop[0], tmp_path / "lcm.duckdb"))


def listed(folder: Path) -> set[tuple[str, str]]:
    """channel and user_id of all lists."""
    return {
        (file.name.split(".")[0], user_id)
        for file in folder.glob("*.parquet")
        if not file.name.startswith("campaign")
        for user_id in pl.read_parquet(file)["user_id"]
    }


@pytest.mark.slow
def test_what_was_sent_comes_back_as_touches(shop: tuple[Path, Path], path: Path) -> None:
    before = query(path, "select count(*) as n from marts.campaign_touches").item()
    told = lcm(path, "act", *SENT)
    assert told["as_of_date"] == LAST
    assert told["contacts"] > 20
    assert 0 < told["held_back"] < told["contacts"]
    sent = query(path, "select * from ml.actions_sent order by campaign_id, user_id")
    assert sent["run_id"].unique().to_list() == [told["run_id"]]
    folder = path.parent / "lcm.actions" / LAST
    treated = sent.filter(pl.col("arm") == "treatment")
    assert listed(folder) == set(treated.select("channel", "user_id").iter_rows())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {file.stem for file in folder.iterdir()} == {*treated["channel"], "campaigns", "campaign_touches"}

    # A second call sends nothing, and hands the same lists out.
    lists_before = {file.name: file.read_bytes() for file in folder.iterdir()}
    again = lcm(path, "act")
    assert f"{sent.height} users are on record" in again["note"]
    assert query(path, "select count(*) as n from ml.actions_sent").item() == sent.height
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == lists_before

    # The next day's data: the touches are facts of the shop, with their arms.
    load(path, shop[1], "--append")
    build(path, *WITHOUT_TESTS)
    assert dbt(path, "test", "--select", "rows_add_up").success
    touches = query(
        path,
        "select campaign_id, user_id, arm, kind, channel, cost, touched_at from marts.campaign_touches "
        "where campaign_id like 'act-%' order by campaign_id, user_id",
    )
    assert touches.select("campaign_id", "user_id", "arm").equals(sent.select("campaign_id", "user_id", "arm"))
    assert touches["kind"].equals(sent["campaign_kind"].rename("kind"))
    assert touches["channel"].equals(sent["channel"])
    assert touches["cost"].cast(pl.Float64).to_list() == pytest.approx(sent["contact_cost"].to_list())
    assert str(touches["touched_at"][0]).startswith(f"{LAST} 09:00:00")
    assert query(path, "select count(*) as n from marts.campaign_touches").item() == before + sent.height
    shown = query(path, "select user_id, campaign_id from marts.user_contacts where campaign_id like 'act-%'")
    assert set(shown.iter_rows()) == set(treated.select("user_id", "campaign_id").iter_rows())
    # And they count: nobody is contacted through that channel again a day later, held back or not.
    later = lcm(path, "act", "--dry-run")
    assert later["as_of_date"] > LAST
    repeated = listed(path.parent / "lcm.actions" / f"{later['as_of_date']}.dry-run")
    assert not repeated & set(sent.select("channel", "user_id").iter_rows())
    # What the shop loads says how fresh its data is; what act adds does not.
    sources = query(path, "select source, mode from raw.loads order by load_id")
    assert sources.rows() == [("files", "replace"), ("act", "append"), ("files", "append")]


def test_a_dry_run_records_nothing_and_is_marked(path: Path) -> None:
    told = lcm(path, "act", "--dry-run", "--out", str(path.parent / "review"))
    folder = path.parent / "review" / f"{LAST}.dry-run"
    assert {file.name.split(".", 1)[1] for file in folder.iterdir()} == {"dry-run.csv", "dry-run.parquet"}
    assert told["recorded"] == "nothing: a dry run"
    for table in ("ml.actions_sent", "(select * from raw.campaign_touches where campaign_id like 'act-%')"):
        assert query(path, f"select count(*) as n from {table}").item() == 0
    assert query(path, "select count(*) as n from raw.loads").item() == 1
    # Run again it takes the place of the first, and says the same.
    before = listed(folder)
    lcm(path, "act", "--dry-run", "--out", str(path.parent / "review"))
    assert listed(folder) == before
    assert len(before) == told["contacts"]


def test_everybody_gets_one_action_and_nobody_without_consent_a_contact(path: Path) -> None:
    lcm(path, "act", "--dry-run")
    counts = query(
        path,
        """
        select
            count(*) as actions,
            count(distinct user_id) as users,
            (select count(*) from marts.user_lifecycle inner join marts.as_of_dates using (as_of_date)
             where is_scoring_date) as known
        from serving.next_best_actions_latest
        """,
    ).row(0, named=True)
    assert counts["actions"] == counts["users"] == counts["known"]
    contacted = query(
        path,
        """
        select actions.channel, accounts.marketing_consent, channels.needs_consent, actions.blocked_by
        from serving.next_best_actions_latest as actions
        inner join marts.contact_channels as channels on actions.channel = channels.channel
        left join staging.stg_users as accounts on actions.user_id = accounts.user_id
        where actions.action = 'contact'
        """,
    )
    assert contacted.height > 20
    assert contacted.filter(~(pl.col("marketing_consent").fill_null(~pl.col("needs_consent")))).is_empty()
    refused = query(
        path,
        "select blocked_by, why from serving.next_best_actions_latest inner join staging.stg_users using (user_id) "
        "where not marketing_consent and blocked_rule is not null",
    )
    assert refused.height > 3
    assert set(refused["blocked_by"]) <= {"no_consent", "no_gain", "suspected_bot"}


def test_who_was_contacted_often_is_left_alone(path: Path) -> None:
    lcm(path, "act", "--dry-run")
    user = query(path, "select min(user_id) as u from ml.next_best_actions where action = 'contact'").item()
    change(
        path,
        f"""
        insert into marts.campaign_touches by name
        select 'extra' || n as campaign_id, '{user}' as user_id, 'treatment' as arm, 'sms' as channel,
            date '{LAST}' - 20 as touched_date
        from range(4) as counted(n)
        """,
    )
    lcm(path, "act", "--dry-run")
    now = query(path, f"select action, blocked_by from ml.next_best_actions where user_id = '{user}'").row(0)
    assert now == ("none", "too_many_contacts")


def test_a_crash_before_the_record_is_whole_hands_out_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> str:
        raise RuntimeError("pulled the plug")

    folder = path.parent / "lcm.actions"
    with monkeypatch.context() as patched:
        patched.setattr(sent_actions, "add_to_raw", crash)
        assert call(path, "act", *SENT).exit_code != 0
    assert [file for file in folder.iterdir() if not file.name.startswith(".")] == []
    assert query(path, "select count(*) as n from ml.actions_sent").item() == 0
    assert query(path, "select count(*) as n from raw.loads").item() == 1
    told = lcm(path, "act", *SENT)
    assert query(path, "select count(*) as n from ml.actions_sent").item() == told["contacts"] + told["held_back"]
    assert [file.name for file in folder.iterdir()] == [LAST]


def test_lists_come_to_sight_only_with_their_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the record and the lists, the next call hands out what is on record, not what it would decide."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    folder = path.parent / "lcm.actions" / LAST
    with monkeypatch.context() as patched:
        patched.setattr(lists, "finish", crash)
        assert call(path, "act", *SENT).exit_code == 130
    assert not folder.exists()
    sent = query(path, "select channel, user_id from ml.actions_sent where arm = 'treatment'")
    assert sent.height > 20
    told = lcm(path, "act")
    assert "not handed out" in told["note"]
    assert listed(folder) == set(sent.iter_rows())
    assert [file for file in folder.parent.iterdir() if file.name.startswith(".")] == []


def test_lists_without_a_record_may_have_been_sent(path: Path) -> None:
    folder = path.parent / "lcm.actions" / LAST
    folder.mkdir(parents=True)
    (folder / "push.csv").write_text("user_id\n")
    found = call(path, "act")
    assert found.exit_code == 1
    assert "no record" in found.output
    assert [file.name for file in folder.iterdir()] == ["push.csv"]


def test_wrong_use_is_refused(path: Path) -> None:
    early = call(path, "act", "--sent-at", "2025-12-29")
    assert (early.exit_code, "lies before 2025-12-30" in early.output) == (2, True)
    past = query(path, "select min(as_of_date) as d from marts.as_of_dates").item()
    assert call(path, "act", "--as-of", str(past)).exit_code == 2
    assert call(path, "act", "--as-of", str(past), "--dry-run").exit_code == 0
    change(path, "update marts.action_rules set stages = 'lojal' where rule_id = 'inform'")
    broken = call(path, "act", "--dry-run")
    assert broken.exit_code == 1
    assert "row inform, column stages: there is no 'lojal'" in broken.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_records_nothing(path: Path) -> None:
    locked = path.parent / "locked"
    locked.mkdir(mode=0o500)
    assert call(path, "act", "--out", str(locked)).exit_code == 1
    assert query(path, "select count(*) as n from ml.actions_sent").item() == 0


def test_the_sample_gets_no_rows_in_raw(sample: Path) -> None:
    told = lcm(sample, "act")
    assert "staging reads the sample" in told["recorded"]
    assert query(sample, "select count(*) as n from ml.actions_sent").item() == told["contacts"] + told["held_back"]
    assert query(sample, "select count(*) as n from raw.loads").item() == 0
    assert query(sample, "select count(*) as n from raw.campaign_touches").item() == 0
    touches = pl.read_parquet(sample.parent / "lcm.actions" / told["as_of_date"] / "campaign_touches.parquet")
    assert touches.columns == ["campaign_id", "user_id", "touched_at", "arm", "responded_at"]
    assert touches.height == told["contacts"] + told["held_back"]


def test_rules_are_counted_and_checked_on_examples(sample_build: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(sample_build, tmp_path / "lcm.duckdb"))
    counted = lcm(path, "act", "rules")
    assert [row["priority"] for row in counted["rules"]] == sorted(row["priority"] for row in counted["rules"])
    assert sum(row["decides"] for row in counted["rules"]) == counted["users"] > 300
    last = counted["rules"][-1]
    assert last["fits"] == counted["users"]
    assert call(path, "profile", last["example"]).exit_code == 0
    checked = call(path, "act", "check")
    assert checked.exit_code == 0
    assert "FAIL" not in checked.output
    change(
        path,
        "update marts.action_rules set min_churn_probability = 0.9 where rule_id = 'keep_valuable'",
        "insert into marts.action_rules by name select * replace ('extra' as rule_id, 95 as priority) "
        "from marts.action_rules where rule_id = 'wait'",
    )
    checked = call(path, "act", "check")
    assert checked.exit_code == 1
    assert "FAIL  leaving: persuade decides, expected keep_valuable" in checked.output
    assert "the rule extra has no example" in checked.output


def test_a_run_decides_every_time_and_sends_nothing(sample_run: Path) -> None:
    told = json.loads(sample_run.with_name("run.json").read_text(encoding="utf-8"))
    decided = told["insights"]["done"]["act"]
    assert decided["users"] == query(sample_run, "select count(*) as n from serving.next_best_actions_latest").item()
    assert query(sample_run, "select count(*) as n from ml.actions_sent").item() == 0
    assert not (sample_run.parent / "lcm.actions").exists()
    profile = query(
        sample_run,
        "select count(*) as n from serving.user_profiles where next_action is null or next_action_why is null",
    )
    assert profile.item() == 0


def test_users_in_parts_are_decided_as_all_at_once(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("recommend", "uplift"):
        lcm(path, command)
    other = Path(shutil.copy(path, tmp_path / "in-parts.duckdb"))
    tables = {
        "ml.next_best_actions": "user_id",
        "ml.budget_allocations": "user_id",
        "ml.budget_policies": "budget, policy",
    }

    def found(warehouse: Path) -> list[pl.DataFrame]:
        told = [lcm(warehouse, *words) for words in (["budget", "--budget", "3"], ["act", "rules"])]
        lcm(warehouse, "act", "--dry-run", "--out", str(tmp_path / warehouse.stem))
        rows = [query(warehouse, f"select * exclude run_id from {name} order by {key}") for name, key in tables.items()]
        return [*rows, pl.DataFrame(told[1]["rules"]), pl.DataFrame(told[0]["allocations"])]

    whole = found(path)
    assert whole[0].height > 200
    assert whole[1].height > 10
    monkeypatch.setattr(options, "USERS_AT_ONCE", 30)
    monkeypatch.setattr(deciding, "USERS_AT_ONCE", 7)
    for one, other_one in zip(whole, found(other), strict=True):
        assert_frame_equal(one, other_one)
