"""Recommendations find what was planted, obey every rule, know nothing of the future, and tell true reasons."""

import re
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import lcm, query, warehouse_at
from polars.testing import assert_frame_equal
from shopping import (
    AS_OF,
    PAIR,
    RHYTHM_PRODUCT,
    RHYTHM_USER,
    accounts,
    catalogue,
    events,
    history,
    made_of,
    no_accounts,
    purchases,
)
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.insights.recommend import factors, metrics
from lcm_ml.insights.recommend.history import History
from lcm_ml.insights.recommend.lists import HYBRID
from lcm_ml.insights.recommend.models import NO_ALS, Model, fit_models
from lcm_ml.insights.recommend.neighbours import item_item
from lcm_ml.insights.recommend.recommend import Dated, dated, evaluated, recommended, taught
from lcm_ml.insights.recommend.settings import Settings
from lcm_ml.insights.recommend.similar import similar_items, similar_users

HORIZON = timedelta(days=28)


def lists_of(model: Model, known: History, n: int = 10) -> pl.DataFrame:
    """A model's lists with ids instead of numbers."""
    rows = model.lists(known, 0, known.n_users, n)
    return rows.select(
        known.users["user_id"].gather(rows["user"]), known.products["product_id"].gather(rows["product"]), "rank"
    )


def at(interactions: pl.DataFrame, as_of: date, users: pl.DataFrame | None = None, **rules: object) -> Dated:
    """The shop at a date, with what was purchased in the horizon after it."""
    window = interactions.filter(
        pl.col("event_date").is_between(as_of, as_of + HORIZON, closed="left"), event_type="purchase"
    )
    return dated(history(interactions, users, as_of, **rules), window.select("user_id", "product_id").unique(), 0)


def served(interactions: pl.DataFrame, users: pl.DataFrame | None = None, n: int = 10, **rules: object) -> pl.DataFrame:
    """Everybody's list at AS_OF, from a ranker that learnt on the horizon before."""
    ranker = taught([at(interactions, AS_OF - HORIZON, users, **rules)], 0)
    return pl.concat(list(recommended(at(interactions, AS_OF, users, **rules), ranker, n)))


@cache
def plain() -> pl.DataFrame:
    return served(purchases())


def is_of_taste(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of taste products, and whether they fit the user: even numbers like red."""
    return rows.filter(pl.col("user_id") != RHYTHM_USER, pl.col("product_id").str.contains("^(red|blue)")).with_columns(
        fits=(pl.col("user_id").str.slice(1).cast(pl.Int32) % 2 == 0) == pl.col("product_id").str.starts_with("red")
    )


@pytest.mark.parametrize("name", ["item_item", "als", "content"])
def test_a_model_finds_the_two_tastes(name: str):
    known = history()
    models = {model.name: model for model in fit_models(known, 0).all()}
    found = is_of_taste(lists_of(models[name], known))
    assert found.height > 500
    assert found["fits"].mean() > 0.9  # type: ignore[operator]
    popular = is_of_taste(lists_of(models["popularity"], known))
    assert popular["fits"].mean() < 0.7  # type: ignore[operator]


def test_the_hybrid_finds_the_two_tastes_among_what_is_new_to_the_user():
    found = is_of_taste(served(purchases(), allow_repeats=False))
    assert found.height > 500
    assert found["fits"].mean() > 0.9  # type: ignore[operator]


def test_what_is_bought_together_is_near():
    known = history(in_stock_days=400)
    near = item_item(known).near
    left, right = (int(known.products["product_id"].search_sorted(product)) for product in PAIR)
    row = near[[left]].tocoo()
    assert row.coords[1][row.data.argmax()] == right
    assert similar_items(known, PAIR[0], 3)["product_id"][0] == PAIR[1]


def test_a_strict_rhythm_is_first_when_it_is_due_and_is_told():
    # Last bought 13 days ago, every 14 days: due tomorrow.
    first = plain().filter(user_id=RHYTHM_USER, rank=1).row(0, named=True)
    assert first["product_id"] == RHYTHM_PRODUCT
    assert first["explanation"] == "bought about every 14 days, last 13 days ago"
    assert first["is_repeat"]


def test_nothing_at_or_after_the_date_has_any_effect():
    later = events([("u000", "blue01", 0), ("u001", "rednew", -3), ("nobody", "red01", -1), (RHYTHM_USER, "nails", 0)])
    assert_frame_equal(served(pl.concat([purchases(), later])), plain())


def test_lists_do_not_depend_on_the_order_of_the_rows():
    assert_frame_equal(served(purchases().sample(fraction=1.0, shuffle=True, seed=3)), plain(), abs_tol=1e-4)


@settings(max_examples=6)
@given(
    allow_repeats=st.booleans(),
    max_per_category=st.one_of(st.none(), st.integers(1, 3)),
    in_stock_days=st.integers(2, 60),
    n=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_every_row_obeys_the_rules(
    allow_repeats: bool, max_per_category: int | None, in_stock_days: int, n: int, seed: int
):
    shop = pl.concat([purchases(40, seed), events([("u001", "rednew", 1), ("visitor", "rednew", 1)], "view")])
    rules = {
        "allow_repeats": allow_repeats,
        "max_per_category": max_per_category,
        "in_stock_days": in_stock_days,
    }
    found = served(shop, n=n, **rules)
    assert found.height
    assert not found.select("user_id", "product_id").is_duplicated().any()
    ranks = found.group_by("user_id").agg(pl.col("rank").sort())
    assert all(ranks == list(range(1, len(ranks) + 1)) for ranks in ranks["rank"].to_list())
    assert found["rank"].max() <= n  # type: ignore[operator]
    bought = shop.filter(event_type="purchase").select("user_id", "product_id").unique()
    repeats = found.join(bought, on=["user_id", "product_id"], how="semi")
    assert repeats.height == found["is_repeat"].sum()
    assert allow_repeats or repeats.is_empty()
    in_stock = shop.filter(pl.col("event_date") >= AS_OF - timedelta(days=in_stock_days), event_type="purchase")
    assert set(found["product_id"]) <= {*in_stock["product_id"], "rednew"}
    if max_per_category is not None:
        kinds = found.join(catalogue().select("product_id", "category"), on="product_id")
        assert kinds.group_by("user_id", "category").len()["len"].max() <= max_per_category  # type: ignore[operator]


def test_users_without_purchases_get_what_is_popular_where_they_are_and_what_they_looked_at():
    users = accounts(
        [(f"u{u:03d}", "FR" if u % 2 else "DE", "organic") for u in range(120)]
        + [("cold_fr", "FR", "organic"), ("cold_de", "DE", "organic"), ("cold_xx", None, None), ("looker", None, None)]
    )
    shop = pl.concat([purchases(), events([("looker", "blue03", 2)], "view")])
    found = served(shop, users)
    cold = found.filter("is_cold_start")
    assert set(cold["user_id"]) == {"cold_fr", "cold_de", "cold_xx", "looker"}
    french, german = (cold.filter(user_id=f"cold_{country}") for country in ("fr", "de"))
    # The odd ones, who like blue, are the French ones.
    assert french["product_id"].str.starts_with("blue").mean() > 0.8  # type: ignore[operator]
    assert german["product_id"].str.starts_with("red").mean() > 0.8  # type: ignore[operator]
    assert "from FR, organic bought it in the last 28 days" in french["explanation"][0]
    assert cold.filter(user_id="cold_xx").height == 10
    looker = cold.filter(user_id="looker")
    assert looker.filter(product_id="blue03")["explanation"].to_list() == ["you looked at it 2 days ago"]
    assert looker["product_id"].str.starts_with("blue").mean() > 0.5  # type: ignore[operator]
    others = looker.filter(because_product_id="blue03")["explanation"]
    assert len(others)
    assert others.str.contains("looked at").all()


def test_a_product_that_nobody_has_bought_enters_by_content_once_somebody_looks_at_it():
    assert "rednew" not in plain()["product_id"]
    found = served(pl.concat([purchases(), events([("visitor", "rednew", 1)], "view")]))
    listed = found.filter(product_id="rednew", source="content")
    assert listed.height > 30
    fits = listed.filter(pl.col("user_id").str.starts_with("u"))["user_id"].str.slice(1).cast(pl.Int32) % 2 == 0
    assert fits.mean() > 0.9  # type: ignore[operator]
    assert listed["explanation"].str.contains("^similar to red .*, which you bought$").all()


def test_reasons_are_true():
    days = purchases().unique(["user_id", "product_id", "event_date"])
    own = {
        key: sorted((AS_OF - day).days for day in group["event_date"])
        for key, group in days.group_by("user_id", "product_id")
    }
    titles = dict(catalogue().select("product_id", "title").iter_rows())
    recent = days.filter(pl.col("event_date") >= AS_OF - timedelta(days=28))
    buyers = dict(recent.group_by("product_id").agg(pl.col("user_id").n_unique()).iter_rows())
    kinds = set()
    for row in plain().to_dicts():
        ages, told = own.get((row["user_id"], row["product_id"]), []), row["explanation"]
        assert row["is_repeat"] == bool(ages)
        if every := re.fullmatch(r"bought about every (\d+) days?, last (\d+) days? ago", told):
            gaps = np.diff(ages)
            assert len(gaps) >= 2
            assert abs(np.median(gaps) - int(every[1])) <= 0.5
            assert ages[0] == int(every[2])
            kinds.add("rhythm")
        elif times := re.fullmatch(r"bought on (\d+) days, last (\d+) days? ago", told):
            assert (len(ages), ages[0]) == (int(times[1]), int(times[2]))
            kinds.add("times")
        elif once := re.fullmatch(r"bought (\d+) days? ago", told):
            assert ages == [int(once[1])]
            kinds.add("once")
        elif because := re.fullmatch(r"(?:because you bought (.+)|similar to (.+), which you bought)", told):
            assert titles[row["because_product_id"]] == (because[1] or because[2])
            assert (row["user_id"], row["because_product_id"]) in own
            kinds.add("because")
        else:
            crowd = re.fullmatch(r"(\d+) users? bought it in the last 28 days", told)
            assert crowd
            assert buyers[row["product_id"]] == int(crowd[1])
        assert (row["because_product_id"] is None) == ("because you" not in told and "similar to" not in told)
    assert kinds == {"rhythm", "times", "once", "because"}


def test_figures_by_hand():
    lists = pl.DataFrame(
        {
            "user": [0, 0, 0, 1, 1, 9],
            "product": [5, 6, 7, 5, 8, 1],
            "rank": [1, 2, 3, 1, 2, 1],
        }
    )
    purchased = pl.DataFrame({"user": [0, 0, 1, 2], "product": [5, 7, 3, 5]})
    found = metrics.served(lists, purchased, 3)
    assert metrics.recall(found, 3).tolist() == [1.0, 0.0, 0.0]
    assert metrics.recall(found, 2).tolist() == [0.5, 0.0, 0.0]
    ideal = 1 + 1 / np.log2(3)
    assert metrics.ndcg(found, 3) == pytest.approx([(1 + 0.5) / ideal, 0, 0])
    assert metrics.ndcg(found, 1) == pytest.approx([1, 0, 0])
    assert metrics.average_precision(found, 3) == pytest.approx([(1 + 2 / 3) / 2, 0, 0])
    assert metrics.coverage(found, 3, 8)[0] == 4 / 8
    buyers = np.array([0, 0, 0, 1, 0, 8, 4, 2, 0])
    assert metrics.novelty(found, 3, buyers, 8) == pytest.approx([(0 + 1 + 2) / 3, (0 + 3) / 2, np.nan], nan_ok=True)


def test_evaluation_compares_all_models_and_ends_where_the_data_does():
    shop = purchases()
    ranker = taught([at(shop, AS_OF - 2 * HORIZON)], 0)
    found = evaluated(at(shop, AS_OF - HORIZON), ranker, 0)
    whole = found.filter(pl.col("reference_name").is_null())
    assert set(whole["model_name"]) == {
        "popularity",
        "own_most_bought",
        "own_recent",
        "item_item",
        "content",
        "als",
        HYBRID,
    }
    assert set(whole["k"]) == {5, 10, 20}
    score = {row["model_name"]: row["value"] for row in whole.filter(metric="ndcg", k=10).to_dicts()}
    assert score["als"] > score["popularity"]
    gain = found.filter(metric="ndcg", k=10, reference_name="popularity").row(0, named=True)
    assert gain["value"] == pytest.approx(score[HYBRID] - score["popularity"])
    assert gain["ci_low"] <= gain["value"] <= gain["ci_high"]
    nobody = at(shop.filter(pl.col("event_date") < AS_OF - HORIZON), AS_OF - HORIZON)
    assert evaluated(nobody, None, 0).is_empty()


def test_without_the_library_als_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(factors, "is_installed", lambda: False)
    models = fit_models(history(), 0)
    assert models.notes == (NO_ALS,)
    assert "als" not in [model.name for model in models.all()]
    assert set(served(purchases())["user_id"]) == set(plain()["user_id"])


def test_a_shop_without_anything_has_no_lists():
    nothing = purchases().clear()
    empty = made_of(nothing, catalogue().clear(), no_accounts(), AS_OF, Settings())
    assert pl.concat(list(recommended(dated(empty, None, 0), None, 10)) or [plain().clear()]).is_empty()


def test_users_are_like_those_of_their_taste():
    found = similar_users(history(), "u002", 20)
    assert found.height == 20
    alike = [name for name in found["user_id"] if name != RHYTHM_USER and int(name[1:]) % 2 == 0]
    assert len(alike) >= 18
    assert found["similarity"].is_sorted(descending=True)
    known = purchases().select("user_id", "product_id").unique()
    mine = known.filter(user_id="u002").select("product_id")
    first = known.filter(user_id=found["user_id"][0]).join(mine, on="product_id", how="semi")
    assert found["products_in_common"][0] == first.height


def test_the_command_writes_its_tables_once_and_the_view_shows_them(sample: Path):
    first = lcm(sample, "recommend")
    assert first["evaluated_date"] is not None
    again = lcm(sample, "recommend")
    assert again["evaluated_date"] is None
    rows = query(sample, "select * from ml.recommendations")
    assert set(rows["run_id"]) == {again["run_id"]}
    assert not rows.select("user_id", "as_of_date", "rank").is_duplicated().any()
    everybody = query(
        sample,
        "select user_id from marts.user_lifecycle qualify as_of_date = max(as_of_date) over ()",
    )
    assert set(everybody["user_id"]) <= set(rows["user_id"])
    shown = query(sample, "select * from serving.recommendations_latest")
    assert shown.height == rows.height
    titles = dict(query(sample, "select product_id, title from marts.products").iter_rows())
    assert all(row["title"] == titles.get(row["product_id"]) for row in shown.to_dicts())
    assert shown["title"].is_not_null().mean() > 0.9  # type: ignore[operator]
    figures = query(sample, "select * from ml.recommendation_metrics")
    assert set(figures["run_id"]) == {first["run_id"]}
    own = query(
        sample,
        """
        select listed.user_id
        from ml.recommendations as listed
        where listed.is_repeat != exists (
            select 1 from marts.shop_events as events
            where events.event_type = 'purchase' and events.event_date < listed.as_of_date
                and events.product_id = listed.product_id
                and listed.user_id = case
                    when events.linked_date < listed.as_of_date then events.linked_user_id else events.user_id
                end
                and coalesce(events.quantity, 1) > 0 and coalesce(events.amount, 0) >= 0
        )
        """,
    )
    assert own.is_empty()


def test_similar_commands_answer_and_name_the_table_of_an_unknown_id(sample: Path):
    items = lcm(sample, "similar", "items", "P00017", "--k", "3")
    assert len(items["similar"]) == 3
    assert {row["category"] for row in items["similar"]} & {"Yoga"}
    user = query(sample, "select user_id from marts.purchase_days group by 1 order by count(*) desc, 1 limit 1").item()
    assert lcm(sample, "similar", "users", user, "--k", "2")["similar"][0]["products_in_common"] > 0
    with warehouse_at(sample):
        for kind, table in (("items", "marts.products"), ("users", "staging.stg_users")):
            failed = CliRunner().invoke(app, ["similar", kind, "no such id"])
            assert failed.exit_code == 1
            assert table in failed.output
