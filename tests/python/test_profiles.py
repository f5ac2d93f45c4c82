"""What is known of one user: interests against the simulator's truth, the card, and texts that would break out."""

import json
import shutil
from pathlib import Path

import polars as pl
from click.testing import Result
from lifecycle import change, lcm, query, warehouse_at
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.sources.simulate import SAMPLE, simulate

HOSTILE = "[bold]<script>alert(1)</script>"


def call(path: Path, *arguments: str) -> Result:
    with warehouse_at(path):
        return CliRunner().invoke(app, list(arguments))


def truth() -> pl.DataFrame:
    users = simulate(SAMPLE).truth.users.filter(pl.col("user_type") == "regular")
    return users.select("user_id", "preferred_category", "drift_category", "drifted_at")


def test_the_strongest_interest_is_the_preferred_category(sample: Path) -> None:
    interests = query(sample, "select *, sum(signals) over (partition by user_id) as n from marts.user_interests")
    top = interests.filter((pl.col("interest_rank") == 1) & (pl.col("n") >= 10)).join(truth(), on="user_id")
    assert top.height > 150
    now = pl.coalesce("drift_category", "preferred_category")
    # By chance it would be 1 of 12 categories.
    assert top.select((pl.col("category") == now).mean()).item() > 0.75


def test_an_interest_that_grew_is_told_from_one_that_stayed(sample: Path) -> None:
    compared = query(sample, "select * from marts.user_interests where trend is not null").join(truth(), on="user_id")
    grows = pl.col("trend").is_in(["new", "rising"]).mean()
    drifted = compared.filter(pl.col("category") == pl.col("drift_category"))
    stayed = compared.filter(pl.col("drifted_at").is_null() & (pl.col("category") == pl.col("preferred_category")))
    assert drifted.height > 20
    assert stayed.height > 80
    assert drifted.select(grows).item() > 0.4
    assert stayed.select(grows).item() < 0.12


def test_every_user_has_one_profile_and_one_stay_that_lasts(sample: Path) -> None:
    counts = query(
        sample,
        """
        select
            (select count(*) from serving.user_profiles) as profiles,
            (select count(*) from serving.lifecycle_current) as users,
            (select count(*) from marts.user_stage_history where to_date is null) as present_stages,
            (select count(*) from serving.user_profiles where orders_total > 0 and top_categories is null) as without
        """,
    ).row(0, named=True)
    assert counts["profiles"] == counts["users"] == counts["present_stages"] > 300
    assert counts["without"] == 0


def test_the_card_tells_what_the_tables_hold(sample: Path) -> None:
    user = query(
        sample,
        "select * from serving.user_profiles where orders_total > 3 and last_contact_date is not null "
        "order by user_id limit 1",
    ).row(0, named=True)
    found = lcm(sample, "profile", user["user_id"])
    assert found["profile"]["orders_total"] == user["orders_total"]
    assert [row["category"] for row in found["interests"]][:3] == user["top_categories"].split(", ")
    printed = " ".join(call(sample, "profile", user["user_id"]).stdout.split())
    for text in (
        f"user {user['user_id']}", f"stage {user['stage']} for", f"{user['orders_total']}, {user['amount_total']:,.2f}",
        "age band (sensitive)", user["top_brands"], str(user["last_contact_date"]), "What it likes",
    ):  # fmt: skip
        assert text in printed


def test_an_unknown_user_is_named(sample: Path) -> None:
    result = call(sample, "profile", "nobody", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)
    assert "'nobody' in serving.user_profiles" in error["error"]
    assert "lcm-ml pseudonym" in error["next_step"]


def test_texts_of_the_shop_stay_texts_on_the_card_and_in_the_report(sample: Path, tmp_path: Path) -> None:
    user = query(sample, "select min(user_id) from marts.user_interests where interest_rank = 3").item()
    change(
        sample,
        f"update marts.user_interests set category = '{HOSTILE}' where user_id = '{user}' and interest_rank = 1",
        f"update marts.user_preferences set top_brands = '{HOSTILE}' where user_id = '{user}'",
    )
    printed = call(sample, "profile", user).stdout
    assert HOSTILE in printed
    out = tmp_path / "one.html"
    lcm(sample, "report", "--user", user, "--out", str(out))
    page = out.read_text(encoding="utf-8")
    assert f"User {user}" in page
    assert "[bold]&lt;script&gt;" in page
    assert "<script>" not in page


def test_what_was_found_for_a_date_that_is_not_there_any_more_is_not_the_latest(
    sample_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(sample_run, path)
    tables = {"churn_scores": "churn_scores_latest", "user_segments": "user_segments_latest"}
    before = {view: query(path, f"select * from serving.{view} order by user_id") for view in tables.values()}
    for table, view in tables.items():
        assert before[view].height > 100
        later = f"select * replace (date '2099-01-01' as as_of_date) from ml.{table}"
        change(path, f"insert into ml.{table} {later}")
        assert query(path, f"select * from serving.{view} order by user_id").equals(before[view])


def test_a_whole_run_fills_the_profile(sample_run: Path) -> None:
    known = query(
        sample_run,
        """
        select
            count(segment_name), count(lifetime_value), count(next_products), count(churn_reasons), count(rfm_segment)
        from serving.user_profiles where risk_band is not null
        """,
    ).row(0)
    assert min(known) > 150
