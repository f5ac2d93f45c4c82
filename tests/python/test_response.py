"""Who responds: point in time, known truth, and the tables."""

from datetime import date, timedelta

import duckdb
import polars as pl
import pytest
from lifecycle import change, lcm, query

from lcm_ml.decisions.response import respond
from lcm_ml.frames.touches import (
    known_users,
    rows_to_score,
    touch_features,
    touches_before,
    touching_share,
    with_features,
    with_outcomes,
)

# Every third user responds to three offers in four; the others never do.
OFFERS = """
    insert into marts.campaign_touches
    select
        'offer ' || as_of_date, 'offer', 'email', as_of_date + 3, user_id, as_of_date, as_of_date, 'treatment',
        case when hash(user_id) % 3 = 0 and hash(user_id || as_of_date) % 4 > 0 then as_of_date + 1 end, 0.05
    from marts.user_features
    where as_of_date < date '2025-12-20'
"""


@pytest.fixture(scope="module")
def offered(sample):
    change(sample, "delete from marts.campaign_touches", OFFERS)
    return sample


def test_the_models_find_who_responds_and_say_so_beside_the_baselines(offered):
    found = lcm(offered, "response", "--days", "14")
    assert found["note"] is None
    rows = {(row["model_name"], row["metric"]): row for row in found["metrics"] if row["target"] == "response"}
    chosen = found["chosen"]["response"]
    assert rows[chosen, "auc"]["ci_low"] > 0.8
    assert rows["base_rate", "auc"]["value"] == 0.5
    assert rows[chosen, "log_loss"]["ci_high"] < rows["base_rate", "log_loss"]["ci_low"]
    assert {name for name, _ in rows} == {"linear", "tree", "xgboost", "mlp", "base_rate", "past_rate"}
    assert abs(found["base_rate"] - 1 / 4) < 0.06
    scores = query(offered, "select * from serving.response_scores_latest")
    assert scores.height == found["scored"]
    assert scores["response_probability"].is_between(0, 1).all()
    assert (scores["expected_spend"] >= 0).all()
    assert scores["response_decile"].is_between(1, 10).all()
    means = scores.group_by("response_decile").agg(pl.col("response_probability").mean()).sort("response_decile")
    assert means["response_probability"].is_sorted(descending=True)
    assert scores["is_open"].not_().all()
    # Not what a model that knows nothing would give: who responded before has the highest scores.
    responded = query(offered, "select distinct user_id from marts.campaign_touches where responded_date is not null")
    top = scores.filter(pl.col("response_decile") <= 2)
    assert top["user_id"].is_in(responded["user_id"].implode()).mean() > 0.9


def test_what_came_later_is_not_known_at_a_touch(offered):
    as_of = date(2025, 12, 31)
    with duckdb.connect(str(offered), read_only=True) as con:
        touches = touches_before(con, as_of)
        rows = with_features(con, with_outcomes(con, touches, as_of, 14))
        assert touches_before(con, date(2025, 12, 1))["touched_date"].max() < date(2025, 12, 1)
        masked = touches_before(con, date(2025, 11, 25)).filter(touched_date=date(2025, 11, 24))
        assert masked.height > 0
        assert masked["responded_date"].null_count() == masked.height
        assert (rows["touched_date"] + timedelta(days=14) <= as_of).all()
        bought = con.sql("select user_id, purchase_date, orders, amount from marts.purchase_days").pl()
        row = rows.filter(pl.col("orders") > 0, pl.col("touch_orders_28d") > 0, pl.col("touch_responses") > 0).row(
            0, named=True
        )
        own = bought.filter(user_id=row["user_id"])
        day = row["touched_date"]
        before = own.filter(pl.col("purchase_date") < day)
        assert row["touch_days_since_last_purchase"] == (day - before["purchase_date"].max()).days
        recent = before.filter(pl.col("purchase_date") >= day - timedelta(days=28))
        assert row["touch_orders_28d"] == recent["orders"].sum()
        after = own.filter(pl.col("purchase_date") >= day, pl.col("purchase_date") < day + timedelta(days=14))
        assert row["orders"] == after["orders"].sum()
        assert row["spend"] == pytest.approx(float(after["amount"].sum()))
        earlier = touches.filter(pl.col("user_id") == row["user_id"], pl.col("touched_date") < day)
        assert row["touch_contacts"] == earlier.height
        assert row["touch_responses"] == earlier.filter(pl.col("responded_date") < day).height
        users = with_features(con, known_users(con, as_of))
    assert users["user_id"].n_unique() == users.height
    told = set(touch_features(rows))
    assert not told & {"orders", "spend", "is_responded", "is_purchased", "responded_date", "arm", "touched_date"}


def test_of_many_touches_a_share_of_the_users_is_learned_from_with_all_of_theirs(offered, monkeypatch):
    as_of = date(2025, 12, 31)
    with duckdb.connect(str(offered), read_only=True) as con:
        everything = touches_before(con, as_of)
        most = everything.height // 3
        share = touching_share(con, as_of, most)
        drawn = touches_before(con, as_of, share)
        assert share in (0.5, 0.25)
        assert touching_share(con, as_of, None) == touching_share(con, as_of, everything.height) == 1
        assert 0 < drawn.height < everything.height / 2
        theirs = everything.join(drawn.select("user_id").unique(), on="user_id", how="semi", maintain_order="left")
        assert drawn.equals(theirs)
        everybody = with_features(con, theirs)
        # What others were sent, and in which part a user is scored, changes nothing.
        assert with_features(con, drawn).equals(everybody)
        whole = pl.concat(rows_to_score(con, as_of))
        monkeypatch.setattr("lcm_ml.frames.touches.USERS_AT_ONCE", 7)
        parts = list(rows_to_score(con, as_of))
    assert len(parts) > 3
    assert pl.concat(parts).equals(whole)


def test_too_few_touches_give_a_note_and_no_rows(offered):
    empty = pl.DataFrame(schema={"touched_date": pl.Date})
    assert "load campaigns" in respond(empty, [], 14).note
    change(offered, "delete from marts.campaign_touches where touched_date > date '2025-07-08'")
    found = lcm(offered, "response")
    assert "only one campaign" in found["note"]
    assert query(offered, "select count(*) as n from ml.response_scores").item() == 0
