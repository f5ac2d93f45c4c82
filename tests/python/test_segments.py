"""Segments against users whose kind is known, and what keeps them the same from date to date."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import build, change, lcm, query
from sklearn.metrics import adjusted_rand_score

from lcm_ml.insights.segments import clustering
from lcm_ml.insights.segments.clustering import choose, cluster, ward
from lcm_ml.insights.segments.matching import Earlier, carried_ids, migrations
from lcm_ml.insights.segments.profiles import profiles
from lcm_ml.insights.segments.scaling import CLIP, COLUMNS, fit_scaling
from lcm_ml.insights.segments.segmentation import Options, segment, segment_distances
from lcm_ml.sources.simulate import PRESETS, SimulationConfig, simulate

DAY = date(2025, 1, 6)


def blobs(n: int = 300, kinds: int = 4, apart: float = 4.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % kinds
    return apart * np.eye(max(kinds, 3))[kind] + rng.normal(size=(n, max(kinds, 3))), kind


def shop(n: int = 400, seed: int = 0) -> pl.DataFrame:
    """Users of two kinds, and what fit_scaling reads of them: many small orders, or few large ones."""
    rng = np.random.default_rng(seed)
    often = np.arange(n) % 2 == 0
    orders = rng.poisson(np.where(often, 20, 3)) + 1
    value = np.where(often, 20, 200) * rng.lognormal(0, 0.2, n)
    visits = orders + rng.poisson(6, n)
    figures = {
        "days_since_last_purchase": rng.integers(1, 84, n),
        "orders_84d": orders,
        "gap_mean_days": 84 / orders * rng.lognormal(0, 0.4, n),
        "amount_168d": orders * value,
        "order_value_total": value,
        "products_per_order_total": 1 + rng.poisson(2, n),
        "line_value_total": rng.lognormal(2, 0.5, n),
        "discount_share_total": rng.beta(1, 9, n),
        "categories_total": 1 + rng.poisson(3, n),
        "sessions_84d": visits,
        "views_84d": rng.poisson(30, n),
        "session_to_order_84d": orders / visits,
        "days_since_first_event": rng.integers(84, 400, n),
        "days_since_first_purchase": rng.integers(84, 400, n),
    }
    return pl.DataFrame({"user_id": [f"u{k:04d}" for k in range(n)], **figures}).with_columns(
        is_suspected_bot=pl.lit(False), is_suspected_reseller=pl.lit(False)
    )


# --- clusters ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=30)
def test_a_weighted_point_counts_like_that_many_points(seed, cuts):
    rng = np.random.default_rng(seed)
    x, weights = rng.normal(size=(12, 3)), rng.integers(1, 5, 12)
    # scipy, on every point by itself, is the reference.
    whole = ward(np.repeat(x, weights, axis=0), np.ones(weights.sum()), [cuts])[cuts]
    weighted = ward(x, weights + 0.0, [cuts])[cuts]
    assert adjusted_rand_score(whole, np.repeat(weighted, weights)) == 1
    assert set(weighted) == set(range(cuts))


@pytest.mark.parametrize("method", ["kmeans", "ward"])
def test_the_number_of_clusters_is_found(method):
    x, kind = blobs()
    tried = choose(x, 2, 7, method, 0)
    assert [choice.clusters for choice in tried] == [2, 3, 4, 5, 6, 7]
    assert [choice.clusters for choice in tried if choice.is_chosen] == [4]
    assert tried[2].stability > 0.95
    assert adjusted_rand_score(kind, cluster(x, 4, method, 0).labels) > 0.95


def test_where_there_are_no_clusters_none_is_stable_and_few_are_taken():
    x = np.random.default_rng(0).normal(size=(400, 8))
    tried = choose(x, 3, 7, "ward", 0)
    assert max(choice.stability for choice in tried) < clustering.STABLE
    assert next(choice for choice in tried if choice.is_chosen).clusters <= 4
    assert choose(np.zeros((100, 2)), 3, 7, "kmeans", 0) == []


def test_ward_in_two_stages_finds_what_it_finds_at_once(monkeypatch):
    x, kind = blobs(3000, kinds=5)
    monkeypatch.setattr(clustering, "EXACT_USERS", 1000)
    monkeypatch.setattr(clustering, "MICRO_CLUSTERS", 60)
    assert adjusted_rand_score(kind, cluster(x, 5, "ward", 0).labels) > 0.95


def test_kmeans_from_a_sample_is_as_good_as_on_everybody(monkeypatch):
    x, _ = blobs(4000, kinds=5, apart=2.0)

    def within() -> float:
        found = cluster(x, 5, "kmeans", 0)
        return float(((x - found.centres[found.labels]) ** 2).sum())

    whole = within()
    monkeypatch.setattr(clustering, "MICRO_SAMPLE", 500)
    assert within() == pytest.approx(whole, rel=1e-3)


# --- scaling ----------------------------------------------------------------------------------------------------------


def test_traits_are_comparable_whole_and_without_repeats():
    users = shop().with_columns(
        discount_share_total=pl.lit(0.0),  # nobody gets a discount
        sessions_84d="orders_84d",  # every visit is an order
        amount_168d=pl.when(pl.int_range(pl.len()) == 0).then(1e12).otherwise("amount_168d"),
        order_value_total=pl.when(pl.int_range(pl.len()) % 9 > 0).then("order_value_total"),
    )
    scaling = fit_scaling(users)
    assert set(scaling.dropped) == {"discount_share_total", "sessions_84d"}
    x = scaling.apply(users)
    assert np.isfinite(x).all()
    assert np.abs(x).max() <= CLIP
    assert np.median(x, axis=0) == pytest.approx(0, abs=1e-9)


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_say_what_sets_a_segment_apart_and_are_unique():
    users = shop()
    scaling = fit_scaling(users)
    often = np.arange(users.height) % 2
    told = profiles(users, scaling.apply(users), scaling, often)
    assert "frequent" in told[0].name
    assert "rare" in told[1].name
    assert "big baskets" in told[1].name
    assert told[1].differences["order_value_total"] > 0.8
    assert "per order so far" in told[1].description
    # Cut at random, all segments are alike: even so no two have the same name.
    alike = profiles(users, scaling.apply(users), scaling, np.arange(users.height) // 2 % 5)
    assert len({profile.name for profile in alike}) == 5
    assert sum(profile.users for profile in alike) == users.height


# --- ids --------------------------------------------------------------------------------------------------------------


def earlier_of(users: pl.DataFrame) -> Earlier:
    medians = pl.DataFrame(schema={"segment_id": pl.Int64, "feature": pl.String, "median": pl.Float64})
    return Earlier(DAY, users, medians)


@given(st.permutations([0, 1, 2, 3]), st.integers(0, 50))
def test_segments_keep_their_ids_however_clusters_are_numbered(order, gone):
    kind = np.arange(200) % 4
    users = [f"u{k}" for k in range(200)]
    before = earlier_of(pl.DataFrame({"user_id": users, "segment_id": np.array([11, 7, 3, 5])[kind]}))
    now = pl.DataFrame({"user_id": users, "cluster": np.array(order)[kind]}).tail(200 - gone)
    ids = carried_ids(now, 4, before, 11)
    assert [ids[order[k]] for k in range(4)] == [11, 7, 3, 5]


def test_a_new_cluster_has_a_new_id_and_a_lost_one_is_not_given_again():
    users = [f"u{k}" for k in range(90)]
    before = earlier_of(pl.DataFrame({"user_id": users, "segment_id": [1] * 45 + [2] * 45}))
    split = pl.DataFrame({"user_id": users, "cluster": [0] * 45 + [1] * 30 + [2] * 15})
    assert carried_ids(split, 3, before, 9) == [1, 2, 10]
    merged = pl.DataFrame({"user_id": users, "cluster": [0] * 90})
    assert carried_ids(merged, 1, before, 9)[0] in (1, 2)
    scattered = pl.DataFrame({"user_id": users, "cluster": np.arange(90) % 6})
    assert set(carried_ids(scattered, 6, before, 9)) == {10, 11, 12, 13, 14, 15}


def test_without_shared_users_centres_decide():
    first = segment(shop(seed=0), Options(clusters=2), None, None, 0)
    earlier = Earlier(DAY, first.users, first.features.select("segment_id", "feature", "median"))
    others = shop(seed=1).with_columns(user_id=pl.concat_str(pl.lit("new-"), "user_id"))
    later = segment(others, Options(clusters=2, seed=3), earlier, earlier, 2)

    def called(found) -> dict[str, int]:
        return {
            "often" if name.count("frequent") else "seldom": number
            for number, name in found.profiles.select("segment_id", "name").iter_rows()
        }

    assert called(later) == called(first)
    assert set(called(first).values()) == {1, 2}


def test_every_user_moves_once():
    before = earlier_of(pl.DataFrame({"user_id": ["a", "b", "c"], "segment_id": [1, 1, 2]}))
    now = pl.DataFrame({"user_id": ["a", "b", "d"], "segment_id": [1, 2, 2]})
    rows = migrations(now, before).select("from_segment_id", "to_segment_id", "n_users").rows()
    assert set(rows) == {(1, 1, 1), (1, 2, 1), (2, None, 1), (None, 2, 1)}
    assert migrations(now, None).is_empty()


# --- segments ---------------------------------------------------------------------------------------------------------


def test_flagged_users_move_nothing_but_have_a_segment():
    users = shop()
    bots = users.head(20).with_columns(
        user_id=pl.concat_str(pl.lit("bot"), "user_id"),
        views_84d=pl.lit(1_000_000),
        sessions_84d=pl.lit(5_000),
        is_suspected_bot=pl.lit(True),
    )
    alone = segment(users, Options(clusters=2), None, None, 0)
    beside = segment(pl.concat([users, bots], how="vertical_relaxed"), Options(clusters=2), None, None, 0)
    assert beside.left_out == 20
    assert beside.users.height == users.height + 20
    assert alone.users.join(beside.users, on=["user_id", "distance"]).height == users.height
    assert beside.profiles["n_users"].sum() == beside.users.height


def test_too_few_or_equal_users_have_no_segments_and_a_reason():
    few = segment(shop(20), Options(), None, None, 0)
    assert few.users.is_empty()
    assert "too few" in few.note
    equal = pl.concat([shop().head(1)] * 100)
    assert "alike" in segment(equal, Options(), None, None, 0).note
    nothing = equal.with_columns(pl.lit(None).cast(equal.schema[name]).alias(name) for name in COLUMNS)
    assert segment(nothing, Options(), None, None, 0).note


def test_distances_of_a_date_do_not_depend_on_later_ones():
    days = [DAY + timedelta(days=28 * k) for k in range(3)]
    shops = {day: shop(seed=k) for k, day in enumerate(days)}
    whole = segment_distances(shops, shops[days[0]], clusters=3)
    cut = segment_distances({day: shops[day] for day in days[:2]}, shops[days[0]], clusters=3)
    assert whole.filter(pl.col("as_of_date") < days[2]).equals(cut)
    assert whole["feature"].unique().sort().to_list() == [f"segment_distance_{k}" for k in (1, 2, 3)]
    # Segment 1 is the same kind of user at every date.
    nearest = whole.sort("value").group_by("as_of_date", "user_id", maintain_order=True).first()
    kinds = nearest.with_columns(often=pl.col("user_id").str.slice(1).cast(pl.Int64) % 2 == 0)
    purity = kinds.group_by("feature").agg(pl.col("often").mean())["often"]
    assert ((purity < 0.05) | (purity > 0.95)).all()


# --- known truth ------------------------------------------------------------------------------------------------------


def test_only_the_preset_types_has_archetypes():
    assert simulate(SimulationConfig(users=50, days=60)).truth.users["archetype"].null_count() == 50
    users = simulate(SimulationConfig(users=4000, days=60, preset="types")).truth.users
    shares = dict(users.drop_nulls("archetype")["archetype"].value_counts(normalize=True).iter_rows())
    for each in PRESETS["types"].archetypes:
        assert shares[each.name] == pytest.approx(each.share, abs=0.03)
    assert users.filter(pl.col("archetype") == "window_shopper")["purchases"].sum() == 0
    assert users.filter("is_bot")["archetype"].null_count() == users["is_bot"].sum()


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built warehouse of a shop with users of five kinds."""
    folder = tmp_path_factory.mktemp("types")
    path = folder / "lcm.duckdb"
    size = ["--preset", "types", "--users", "1500", "--days", "300", "--seed", "1"]
    lcm(path, "simulate", *size, "--out", str(folder / "shop"))
    tables = [f"--{file.stem.replace('_', '-')}={file}" for file in (folder / "shop").glob("*.parquet")]
    lcm(path, "load", "files", *tables)
    selected = ["+user_features", "+user_segments_latest", "+segment_profiles_latest"]
    build(path, "--exclude-resource-type", "test", "unit_test", "--select", *selected)
    return path


@pytest.mark.parametrize("method", ["kmeans", "ward"])
def test_segments_are_the_archetypes(types, method):
    truth = pl.read_parquet(types.parent / "shop/truth/truth_users.parquet").drop_nulls("archetype")

    def agreement(*arguments: str) -> float:
        lcm(types, "segment", "--method", method, *arguments)
        segments = query(types, f"select * from serving.user_segments_latest where method = '{method}'")
        both = segments.join(truth, on="user_id")
        assert both.height > 900
        assert both["segment_name"].n_unique() == segments["segment_id"].n_unique()
        return float(adjusted_rand_score(both["archetype"], both["segment_id"]))

    assert agreement("--clusters", "5") >= 0.8
    # Left to itself it finds one kind more, which is no archetype: users of several who have stopped purchasing.
    assert agreement() >= 0.7


def test_a_second_run_keeps_ids_and_dates_are_linked(types):
    days = query(types, "select distinct as_of_date from marts.user_features order by 1")["as_of_date"].to_list()
    for day in (days[-3], days[-2]):
        lcm(types, "segment", "--clusters", "5", "--as-of", str(day))
    first = query(types, f"select * from ml.user_segments where as_of_date = date '{days[-2]}'")
    again = lcm(types, "segment", "--clusters", "5", "--as-of", str(days[-2]), "--seed", "7")
    second = query(types, f"select * from ml.user_segments where as_of_date = date '{days[-2]}'")
    assert first.height == second.height
    assert first.join(second, on=["user_id", "segment_id"]).height > 0.95 * first.height
    moves = query(types, f"select * from ml.segment_migrations where as_of_date = date '{days[-2]}'")
    assert set(moves["previous_as_of_date"]) == {days[-3]}
    assert moves.drop_nulls("to_segment_id")["n_users"].sum() == second.height
    stayed = moves.filter(pl.col("from_segment_id") == pl.col("to_segment_id"))["n_users"].sum()
    assert stayed > 0.6 * moves.drop_nulls()["n_users"].sum()
    assert again["methods"][0]["previous_as_of_date"] == str(days[-3])


def test_a_shop_without_users_has_no_segments_and_no_error(types, tmp_path):
    path = tmp_path / "lcm.duckdb"
    path.write_bytes(types.read_bytes())
    change(path, "delete from marts.user_features")
    assert "too few" in lcm(path, "segment", "--method", "both")["note"]
