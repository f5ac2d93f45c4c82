"""Splits by as_of_date are purged, and frames say what they are."""

from datetime import date, timedelta

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcm_ml.errors import LcmError
from lcm_ml.frames import frame as frames
from lcm_ml.frames.splits import observed_before, rolling_origin, split_by_date, split_for

DAYS = st.lists(st.dates(date(2015, 1, 1), date(2030, 1, 1)), min_size=1, max_size=40)
GRIDS = st.builds(
    lambda step, count: [date(2018, 1, 1) - timedelta(days=step * k) for k in range(count)],
    st.integers(1, 60),
    st.integers(1, 20),
)
HORIZONS = st.integers(1, 120)


@given(DAYS | GRIDS, HORIZONS)
def test_no_label_window_reaches_into_the_next_part(days, horizon):
    window = timedelta(days=horizon)
    for test in days:
        split = split_for(days, test, horizon)
        if split is None:
            continue
        assert split.train == tuple(sorted(set(split.train)))
        assert max(split.train) + window <= split.validation
        assert split.validation + window <= split.test == test
        assert set(split.fitted) <= set(days)


@given(DAYS | GRIDS, HORIZONS)
def test_the_latest_date_tests_and_nothing_usable_is_left_out(days, horizon):
    try:
        split = split_by_date(days, horizon)
    except LcmError:
        assert split_for(days, max(days), horizon) is None
        return
    assert split.test == max(days)
    assert split.validation == max(observed_before(days, split.test, horizon))
    assert list(split.train) == observed_before(days, split.validation, horizon)


@given(GRIDS, HORIZONS, st.integers(0, 10))
def test_rolling_origin_gives_the_last_possible_dates_in_order(days, horizon, folds):
    splits = rolling_origin(days, horizon, folds)
    tests = [split.test for split in splits]
    possible = [day for day in sorted(days) if split_for(days, day, horizon) is not None]
    assert tests == (possible[-folds:] if folds else [])


def test_order_and_repetition_do_not_matter():
    days = [date(2018, 1, 1) - timedelta(days=28 * k) for k in range(6)]
    assert split_by_date(days, 28) == split_by_date([*reversed(days), *days], 28)


@pytest.mark.parametrize(
    ("days", "said"),
    [
        ([], "no users with labels"),
        ([date(2018, 1, 1)], "a single labelled as_of_date"),
        ([date(2018, 1, 1), date(2018, 1, 29)], "only 2 labelled as_of_dates"),
    ],
)
def test_too_few_dates_are_named(days, said):
    with pytest.raises(LcmError, match=said) as caught:
        split_by_date(days, 28)
    assert caught.value.next_step


GRID = [date(2018, 1, 1) + timedelta(days=28 * k) for k in range(4)]


@pytest.fixture
def warehouse():
    """Marts as dbt builds them, small, in memory; the last date of the grid is the scoring date."""
    con = duckdb.connect()
    con.execute("create schema marts; create schema meta; create schema ml; create schema other")
    con.execute("create table meta.settings (name varchar, value varchar)")
    settings = {
        "churn_horizon_days": "28",
        "as_of_count": "2",
        "max_training_rows": "null",
        "active_window_days": "84",
        "non_model_features": '["as_of_month"]',
        "extra_feature_models": "[]",
    }
    con.executemany("insert into meta.settings values (?, ?)", [list(pair) for pair in settings.items()])
    con.execute(
        "create table meta.builds (started_at timestamp, status varchar, failed_nodes varchar);"
        "insert into meta.builds values (now()::timestamp, 'ok', null);"
        "create table meta.processed_loads (model_name varchar, load_id varchar)"
    )
    rows = [(user, day, i + k) for k, day in enumerate(GRID) for i, user in enumerate(["b", "a", "c"])]
    con.execute("create table features (user_id varchar, as_of_date date, n integer)")
    con.executemany("insert into features values (?, ?, ?)", [list(row) for row in rows])
    con.execute(
        """
        create table marts.user_features as
        select user_id, as_of_date, n as days_since_last_purchase, n::decimal(10, 2) as amount, user_id as shop,
               n > 2 as is_big, month(as_of_date) as as_of_month, user_id <> 'c' as is_active_buyer
        from features
        """
    )
    con.execute(
        "create table marts.user_churn_labels as select user_id, as_of_date, 28 as horizon_days, n % 2 = 0 as "
        "is_churned from features where user_id <> 'c' and as_of_date < (select max(as_of_date) from features)"
    )
    con.execute(
        "create table marts.user_lifecycle as select user_id, as_of_date, 3 as purchase_days, "
        "as_of_date - 50 as first_purchase_date, as_of_date - n as last_purchase_date from features"
    )
    con.execute(
        "create table marts.as_of_dates as select distinct as_of_date, as_of_date = (select max(as_of_date) from "
        "features) as is_scoring_date from features"
    )
    yield con
    con.close()


def test_training_reads_the_last_labelled_dates_sorted_and_declared(warehouse):
    frame = frames.training_frame(warehouse)
    assert frame.dates() == GRID[1:3]
    assert frame.features == ("days_since_last_purchase", "amount", "shop", "is_big")
    assert frame.data.get_column("user_id").to_list() == ["a", "b", "a", "b"]
    assert frame.data.schema["amount"] == pl.Float32
    assert frame.labels().tolist() == [1.0, 0.0, 0.0, 1.0]
    # Whoever purchased by then, in the churn population or not.
    assert frame.purchases.filter(pl.col("user_id") == "c").rows() == [
        ("c", GRID[1], 2.0, 47.0, 50.0),
        ("c", GRID[2], 2.0, 46.0, 50.0),
    ]


def test_too_many_rows_are_a_share_of_the_users_at_every_date(warehouse):
    warehouse.execute(
        "create or replace table features as select 'u' || u as user_id, as_of_date, cast(u % 7 as integer) as n "
        "from (select distinct as_of_date from features), range(4000) as r(u)"
    )
    for mart in ("user_features", "user_churn_labels", "user_lifecycle"):
        warehouse.execute(f"delete from marts.{mart}")
    warehouse.execute(
        "insert into marts.user_features select user_id, as_of_date, n, n, user_id, n > 2, month(as_of_date), true "
        "from features"
    )
    warehouse.execute("insert into marts.user_churn_labels select user_id, as_of_date, 28, n % 2 = 0 from features")
    warehouse.execute(
        "insert into marts.user_lifecycle select user_id, as_of_date, 3, as_of_date, as_of_date from features"
    )
    drawn = {}
    for most, share in ((8000, 1.0), (7999, 0.5), (2500, 0.25)):
        warehouse.execute(f"update meta.settings set value = '{most}' where name = 'max_training_rows'")
        frame = frames.training_frame(warehouse)
        assert frame.users_share == share
        users = [set(frame.at(day).data["user_id"]) for day in frame.dates()]
        assert users[0] == users[1] == set(frame.purchases["user_id"])
        assert abs(len(users[0]) / 4000 - share) < 0.03
        drawn[share] = users[0]
    assert drawn[0.25] < drawn[0.5] < drawn[1.0]


def test_scoring_reads_the_churn_population_of_one_date(warehouse):
    assert frames.scoring_date(warehouse) == GRID[-1]
    frame = frames.scoring_frame(warehouse, GRID[-1])
    assert frame.data.get_column("user_id").to_list() == ["a", "b"]
    assert frame.features == frames.training_frame(warehouse).features
    with pytest.raises(LcmError, match="2018-01-01, 2018-01-29"):
        frames.scoring_frame(warehouse, date(2018, 1, 2))


def test_nobody_to_score_and_no_labels_are_named(warehouse):
    warehouse.execute("update marts.user_features set is_active_buyer = false")
    with pytest.raises(LcmError, match="no users to score"):
        frames.scoring_frame(warehouse, GRID[-1])
    warehouse.execute("delete from marts.user_churn_labels")
    with pytest.raises(LcmError, match="no users with labels"):
        frames.training_frame(warehouse)


def test_extra_features_are_joined_from_both_places(warehouse):
    warehouse.execute("create table other.mine as select user_id, as_of_date, n * 10 as tenfold from features")
    warehouse.execute("update meta.settings set value = '[\"other.mine\"]' where name = 'extra_feature_models'")
    warehouse.execute(
        "create table ml.user_extra_features as select user_id, as_of_date, 'fitted' as feature, n / 2 as value "
        "from features where user_id = 'a'"
    )
    frame = frames.training_frame(warehouse)
    assert frame.features[-2:] == ("tenfold", "fitted")
    assert frame.data.get_column("tenfold").to_list() == [20, 10, 30, 20]
    assert frame.data.get_column("fitted").to_list() == [1.0, None, 1.5, None]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select user_id, as_of_date, 1 as amount from features", "columns that marts.user_features has too: amount"),
        ("select user_id, as_of_date, 1 as x from features, range(2)", "repeats the key"),
        ("select user_id, 1 as x from features", "has no column as_of_date"),
        ("select user_id, as_of_date, as_of_date as day from features", "the feature day has the type Date"),
    ],
)
def test_extra_features_that_do_not_fit_are_named(warehouse, sql, said):
    warehouse.execute(f"create table other.mine as {sql}")
    warehouse.execute("update meta.settings set value = '[\"other.mine\"]' where name = 'extra_feature_models'")
    with pytest.raises(LcmError, match=said):
        frames.training_frame(warehouse)


@pytest.mark.parametrize("relation", ["other.missing", "mine; drop table features", "a.b.c"])
def test_extra_feature_models_must_be_relations(warehouse, relation):
    warehouse.execute("update meta.settings set value = ? where name = 'extra_feature_models'", [f'["{relation}"]'])
    with pytest.raises(LcmError, match="extra_feature_models names"):
        frames.training_frame(warehouse)


def test_the_fingerprint_follows_the_values_alone(warehouse):
    frame = frames.training_frame(warehouse)
    for part in (frame, frame.at(frame.dates()[0])):
        for data in (part.data, part.data.reverse(), part.data.sample(fraction=1.0, shuffle=True, seed=3)):
            assert frames.make_frame(data, 28).fingerprint() == part.fingerprint()
    for change in (
        pl.col("amount") + 1,
        pl.col("shop") + "!",
        ~pl.col("is_big"),
        pl.lit(None, pl.Float64).alias("amount"),
    ):
        changed = frames.make_frame(frame.data.with_columns(change), 28, [])
        assert changed.fingerprint() != frame.fingerprint()
