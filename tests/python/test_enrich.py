"""Candidate features: what tells is kept, noise is not, and a peek into the future shows."""

import json
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from cut import values_before_and_after
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import change, lcm, query, warehouse_at
from own_candidates import mood, noise, peek
from synthetic import churn_data
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import scoring_frame, training_frame
from lcm_ml.insights.candidates import CANDIDATES, candidates, make_features
from lcm_ml.insights.interests import drift_of_interests, interest_features
from lcm_ml.warehouse import contracts, writer

USERS, DATES, STEP = 250, 8, 28
DAYS = [date(2018, 1, 1) + timedelta(days=STEP * k) for k in range(DATES)]
"""The last one is the scoring date."""
OWN = {"mood": "own_candidates:mood", "noise": "own_candidates:noise"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Marts as dbt builds them, of a shop whose churn depends on the amount of the last purchase too."""
    path = tmp_path_factory.mktemp("enrich") / "lcm.duckdb"
    rng = np.random.default_rng(4)
    moods = rng.normal(size=(DATES, USERS))
    users = [f"u{k:04d}" for k in range(USERS)]
    features = (
        churn_data(DATES, USERS, seed=1)
        .drop("is_churned", "noise", "as_of_date")
        .with_columns(
            as_of_date=pl.Series(np.repeat(np.array(DAYS, dtype="datetime64[D]"), USERS)).cast(pl.Date),
            user_id=pl.Series(users * DATES),
            is_active_buyer=True,
            interest_drift=pl.Series(rng.random(DATES * USERS)),
        )
    )
    z = -1.5 + 0.04 * features["days_since_last_purchase"].to_numpy() + 1.2 * moods.ravel()
    labels = features.select("user_id", "as_of_date").with_columns(
        is_churned=pl.Series(rng.random(len(z)) < 1 / (1 + np.exp(-z))), horizon_days=STEP
    )
    events = pl.DataFrame(
        {
            "user_id": users * DATES,
            "event_date": [day - timedelta(days=3) for day in DAYS for _ in users],
            "amount": moods.ravel(),
            "category": [f"c{k}" for k in rng.integers(0, 5, DATES * USERS)],
            "event_type": "purchase",
        }
    ).with_columns(linked_user_id=pl.lit(None, pl.String), linked_date=pl.lit(None, pl.Date))
    known = {
        "churn_horizon_days": STEP, "as_of_count": 13, "max_training_rows": None, "active_window_days": 84,
        "non_model_features": [],
        "extra_feature_models": [], "candidate_features": OWN,
    }  # fmt: skip
    with duckdb.connect(str(path)) as con:
        con.execute("create schema marts; create schema meta")
        writer.ensure(con, contracts.tables("ml"))
        con.execute("create table meta.settings (name varchar, value varchar)")
        con.executemany("insert into meta.settings values (?, ?)", [[k, json.dumps(v)] for k, v in known.items()])
        con.execute(
            "create table meta.builds (started_at timestamp, status varchar, failed_nodes varchar);"
            "insert into meta.builds values (now()::timestamp, 'ok', null);"
            "create table meta.processed_loads (model_name varchar, load_id varchar)"
        )
        for name, frame in (
            ("user_features", features),
            ("user_churn_labels", labels.filter(pl.col("as_of_date") < DAYS[-1])),
            ("shop_events", events),
        ):
            con.register("incoming", frame.to_arrow())
            con.execute(f"create table marts.{name} as select * from incoming")
            con.unregister("incoming")
        con.execute(
            "create table marts.as_of_dates as select distinct as_of_date, as_of_date = $last as is_scoring_date, "
            "as_of_date < $last as is_labelled, 7 as input_hash from marts.user_features",
            {"last": DAYS[-1]},
        )
        con.execute(
            "create table marts.user_lifecycle as select user_id, as_of_date, 3 as purchase_days, "
            "as_of_date - 50 as first_purchase_date, as_of_date - 5 as last_purchase_date from marts.user_features"
        )
    return path


@pytest.fixture(scope="module")
def enriched(shop: Path) -> tuple[Path, dict]:
    change(
        shop,
        "insert into ml.user_extra_features (user_id, as_of_date, feature, value) "
        "values ('u0001', date '2018-01-01', 'own', 1)",
    )
    return shop, lcm(shop, "enrich", "--group", "mood", "--group", "noise", "--model", "logistic", "--resamples", "100")


def test_what_tells_is_kept_and_noise_is_not(enriched: tuple[Path, dict]) -> None:
    path, result = enriched
    assert result["kept"] == result["changed"] == ["mood"]
    effects = {(row["feature_group"], row["split"], row["metric"]): row for row in result["effects"]}
    assert effects["mood", "choice", "log_loss"]["ci_high"] < -0.02
    assert effects["mood", "choice", "auc"]["ci_low"] > 0.02
    # The date that had no say agrees.
    assert effects["mood", "last_date", "log_loss"]["difference"] < -0.02
    assert effects["noise", "choice", "log_loss"]["ci_high"] > 0
    assert effects["mood", "choice", "log_loss"]["n_dates"] == 4
    assert effects["mood", "last_date", "log_loss"]["n_dates"] == 1
    stored = query(path, "select * from ml.feature_ablation")
    assert set(stored.filter("is_kept")["feature_group"]) == {"mood"}
    found = stored.filter(feature_group="mood", metric="auc", split="choice").row(0, named=True)
    assert found["difference"] == pytest.approx(found["value_with"] - found["value_without"])


def test_frames_have_the_kept_features_and_rows_of_ones_own_stay(enriched: tuple[Path, dict]) -> None:
    path, result = enriched
    with duckdb.connect(str(path), read_only=True) as con:
        train, score = training_frame(con), scoring_frame(con, DAYS[-1])
    assert "mood" in train.features
    assert "mood" in score.features
    assert "noise_0" not in train.features
    assert train.data["mood"].null_count() == score.data["mood"].null_count() == 0
    assert result["values"] == USERS * DATES
    assert query(path, "select count(*) from ml.user_extra_features where feature_group is null").item() == 1


def test_refresh_computes_what_is_lacking_and_nothing_else(enriched: tuple[Path, dict], tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(enriched[0].read_bytes())
    assert lcm(path, "enrich", "--refresh")["computed"] == []
    change(path, f"delete from ml.user_extra_features where as_of_date = date '{DAYS[-1]}'")
    # Rows that came late change what the values of a date rest on.
    change(path, f"update marts.as_of_dates set input_hash = 8 where as_of_date = date '{DAYS[2]}'")
    again = lcm(path, "enrich", "--refresh")
    assert [row["as_of_date"] for row in again["computed"]] == [str(DAYS[2]), str(DAYS[-1])]
    values = "select user_id, as_of_date, feature, value from ml.user_extra_features order by all"
    assert query(path, values).equals(query(enriched[0], values))
    assert lcm(path, "enrich", "--refresh")["computed"] == []


def test_a_group_that_no_longer_helps_goes(enriched: tuple[Path, dict], tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(enriched[0].read_bytes())
    change(path, "update marts.shop_events set amount = hash(user_id, event_date) % 100")
    result = lcm(path, "enrich", "--group", "mood", "--model", "logistic", "--resamples", "60", "--folds", "2")
    assert (result["kept"], result["changed"]) == ([], ["mood"])
    assert query(path, "select feature from ml.user_extra_features")["feature"].to_list() == ["own"]
    assert lcm(path, "enrich", "--refresh")["note"] == "no candidate group is kept"


def test_two_groups_that_tell_the_same_help_little_beside_each_other(shop: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(shop.read_bytes())
    twin = json.dumps({"mood": OWN["mood"], "twin": "test_enrich:twin"})
    change(path, f"update meta.settings set value = '{twin}' where name = 'candidate_features'")
    result = lcm(
        path, "enrich", "--group", "mood", "--group", "twin", "--model", "logistic", "--resamples", "60", "--folds", "2"
    )
    assert result["kept"] == ["mood", "twin"]
    loss = {
        (row["feature_group"], row["comparison"]): row["difference"]
        for row in result["effects"]
        if (row["split"], row["metric"]) == ("choice", "log_loss")
    }
    assert abs(loss["mood", "beside_kept"]) < 0.2 * abs(loss["mood", "alone"])
    assert loss["(all kept)", "alone"] == pytest.approx(loss["mood", "alone"], rel=0.3)


def twin(con: duckdb.DuckDBPyConnection, dates: list[date]) -> pl.DataFrame:
    return mood(con, dates).with_columns(feature=pl.lit("twin"), value=2 * pl.col("value") + 1)


def test_a_peek_into_the_future_shows_when_later_rows_are_deleted(shop: Path, tmp_path: Path) -> None:
    for number, make in enumerate((mood, noise, interest_features)):
        whole, cut = values_before_and_after(shop, make, DAYS[4], tmp_path / f"{number}.duckdb")
        assert whole.height > USERS / 2
        assert whole.equals(cut)
    whole, cut = values_before_and_after(shop, peek, DAYS[4], tmp_path / "peek.duckdb")
    assert not whole.equals(cut)


def drift_of(rows: list[tuple[str, float, float, float]]) -> dict[str, float]:
    """Features of one user from category, spend of all, of 28 and of 84 days."""
    sums = pl.DataFrame(rows, schema=["category", "spend", "spend_28d", "spend_84d"], orient="row").with_columns(
        user_id=pl.lit("u"), views=0.0, views_28d=0.0, views_84d=0.0
    )
    return dict(drift_of_interests(sums).select("feature", "value").iter_rows())


def test_interests_by_hand() -> None:
    # Before: 30 on a, 10 on b. In the last 84 days: 5 on b, 15 on c, all of it in the last 28.
    found = drift_of([("a", 30.0, 0.0, 0.0), ("b", 15.0, 5.0, 5.0), ("c", 15.0, 15.0, 15.0)])
    p, q = np.array([0, 0.25, 0.75]), np.array([0.75, 0.25, 0])
    m = (p + q) / 2
    distance = np.sqrt(sum(x * np.log2(x / y) / 2 for s in (p, q) for x, y in zip(s, m, strict=True) if x > 0))
    assert found["interests_distance_84d"] == pytest.approx(distance)
    assert found["interests_new_share_84d"] == pytest.approx(0.75)
    assert found["interests_favourite_lost_84d"] == 1
    assert found["interests_favourite_change_84d"] == pytest.approx(-0.75)
    assert found["interests_entropy_84d"] == pytest.approx(0.811278, abs=1e-6)
    assert found["interests_entropy_change_84d"] == pytest.approx(0)
    assert not [name for name in found if "view" in name]
    # Nothing before: no drift, but the entropy of what there is.
    assert set(drift_of([("a", 5.0, 5.0, 5.0)])) == {"interests_entropy_84d"}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_interests_stay_in_their_range(amounts: list[tuple[int, int]]) -> None:
    found = drift_of([(f"c{k}", float(a + b), float(b), float(b)) for k, (a, b) in enumerate(amounts)])
    for name, value in found.items():
        assert np.isfinite(value)
        if "distance" in name or "share" in name:
            assert -1e-9 <= value <= 1 + 1e-9
    if [a for a, _ in amounts] == [b for _, b in amounts] and found.get("interests_distance_84d") is not None:
        assert found["interests_distance_84d"] == pytest.approx(0, abs=1e-6)


def test_candidates_that_do_not_fit_are_named(shop: Path) -> None:
    assert set(candidates({})) == set(CANDIDATES)
    with pytest.raises(UsageError, match="no candidate group 'mine'"):
        candidates({}, ["mine"])
    with pytest.raises(LcmError, match="mine cannot be imported from 'own_candidates:missing'"):
        candidates({"mine": "own_candidates:missing"}, ["mine"])
    with duckdb.connect(str(shop), read_only=True) as con:
        for spoilt, said in (
            (lambda con, dates: mood(con, dates).drop("value"), "gives no column value"),
            (lambda con, dates: pl.concat([mood(con, dates)] * 2), "several values"),
            (lambda con, dates: mood(con, [*dates, DAYS[0]]), "was not asked for"),
        ):
            with pytest.raises(LcmError, match=said):
                make_features("mine", spoilt, con, [DAYS[3]])


def test_too_few_dates_are_named(shop: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(shop.read_bytes())
    change(path, f"delete from marts.user_churn_labels where as_of_date < date '{DAYS[4]}'")
    with warehouse_at(path):
        result = CliRunner().invoke(app, ["enrich", "--group", "noise", "--model", "logistic", "--json"])
    assert result.exit_code == 1
    assert "no date is left to choose features by" in json.loads(result.stdout)["error"]
