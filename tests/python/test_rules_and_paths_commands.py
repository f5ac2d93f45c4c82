"""`lcm-ml rules` and `lcm-ml paths` on a warehouse: what is planted is found, and nothing at or after as_of counts."""

import shutil
from datetime import date, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from lifecycle import change, lcm, query, warehouse_at
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.frames.frame import built_settings
from lcm_ml.frames.steps import LANDMARK_DAYS, churn_cohort, second_purchase_cohort, steps_before
from lcm_ml.reporting.sections import paths, rules

DAY = date(2025, 12, 22)
TABLES = ("session_funnels", "frequent_paths", "path_transitions", "sequence_lifts")


@pytest.fixture
def shop(sample_build: Path, tmp_path: Path) -> Path:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(sample_build, path)
    return path


def events(rows: str) -> str:
    """Events for the table that marts.shop_events is a view of, from a query of those columns that matter."""
    return f"""
        insert into intermediate.int_events by name
        select
            'extra-' || row_number() over () || '-' || event_date as event_id,
            cast(12 as tinyint) as event_hour,
            *
        from ({rows})
    """


def orders(day: date, baskets: int, *products: str) -> str:
    """As many orders on a day, each with all of these products."""
    return events(
        f"""
        select
            'buyer-' || n as user_id, date '{day}' as event_date, timestamp '{day} 12:00' as event_time,
            'purchase' as event_type, 'extra-' || n || '-{day}' as order_key, product_id, 1 as quantity, 5 as amount,
            category
        from range({baskets}) as numbers(n) cross join marts.products
        where product_id in {products}
        """
    )


def products(path: Path) -> tuple[str, str]:
    """Two products of unlike categories that were bought least."""
    found = query(
        path,
        """
        select p.product_id, p.category
        from marts.products as p left join marts.shop_events as e
            on e.product_id = p.product_id and e.event_type = 'purchase'
        group by all order by count(e.event_id), p.product_id
        """,
    )
    one = found.row(0, named=True)
    other = found.filter(pl.col("category") != one["category"]).row(0, named=True)
    return one["product_id"], other["product_id"]


def baskets(path: Path, until: date) -> int:
    """Baskets before a day, counted another way than the command does."""
    return query(
        path,
        f"""
        select count(*) from (
            select distinct
                case when linked_date < date '{until}' then linked_user_id else user_id end, order_key, event_date
            from marts.shop_events
            where event_type = 'purchase' and event_date < '{until}' and product_id is not null
        )
        """,
    ).item()


def test_a_planted_pair_is_found_and_what_comes_later_is_not(shop: Path) -> None:
    one, other = sorted(products(shop))
    before = lcm(shop, "rules", "--as-of", str(DAY), "--level", "product")["levels"][0]
    assert before["baskets"] == baskets(shop, DAY)
    change(shop, orders(DAY - timedelta(days=1), 60, one, other), orders(DAY, 500, one, other))
    after = lcm(shop, "rules", "--as-of", str(DAY), "--level", "product")["levels"][0]
    assert after["baskets"] == before["baskets"] + 60 == baskets(shop, DAY)
    rules = {(row["antecedent"], row["consequent"]): row for row in after["top"]}
    rule = rules[f'["{one}"]', other]
    assert 60 <= rule["baskets"] < 70
    assert rule["lift"] > 10
    names = query(shop, "select product_id, title from marts.products")
    title = dict(names.iter_rows())
    served = query(shop, f"select * from serving.association_rules_latest where antecedent = '[\"{one}\"]'")
    assert served["antecedent_names"].to_list() == [title[one]]
    assert served["consequent_name"].to_list() == [title[other]]


def test_a_level_is_replaced_and_the_other_one_stays(shop: Path) -> None:
    change(shop, orders(DAY - timedelta(days=1), 60, *products(shop)))
    both = lcm(shop, "rules", "--as-of", str(DAY))["levels"]
    assert [level["level"] for level in both] == ["category", "product"]
    assert all(level["rules"] > 0 for level in both)
    again = lcm(shop, "rules", "--as-of", str(DAY), "--level", "category", "--min-support", "0.9")["levels"][0]
    assert again["rules"] == 0
    assert again["note"]
    left = query(shop, "select distinct level, run_id from ml.association_rules")
    assert left.rows() == [("product", both[1]["run_id"])]
    assert query(shop, "select count(*) from ml.frequent_itemsets where level = 'category'").item() == again["itemsets"]


def rows_of(path: Path, table: str) -> list[tuple[object, ...]]:
    frame = query(path, f"select * from ml.{table}").drop("run_id")
    return sorted(frame.rows(), key=repr)


def test_paths_are_written_for_their_date_and_served(shop: Path) -> None:
    result = lcm(shop, "paths", "--as-of", str(DAY))
    funnel = {row["event_type"]: row for row in result["funnel"] if row["channel"] == "(all)"}
    since = DAY - timedelta(days=84)
    viewed = query(
        shop,
        f"""
        with seen as (
            select *, case when linked_date < date '{DAY}' then linked_user_id else user_id end as known
            from marts.shop_events
            where event_type = 'view' and event_date < '{DAY}' and event_date >= '{since}'
        )
        select count(distinct (known, session_key))
        from seen
        where known not in (select user_id from marts.user_features where as_of_date = '{DAY}' and is_suspected_bot)
        """,
    ).item()
    assert funnel["view"]["sessions"] == viewed > 500
    assert result["note"] is None
    served = query(shop, "select distinct as_of_date from serving.path_transitions_latest")
    assert served["as_of_date"].to_list() == [DAY]
    totals = query(shop, "select from_state, sum(probability) as p from ml.path_transitions group by 1")
    assert totals["p"].to_list() == pytest.approx([1.0] * totals.height)


def test_nothing_at_or_after_the_date_counts(shop: Path) -> None:
    lcm(shop, "paths", "--as-of", str(DAY))
    before = {table: rows_of(shop, table) for table in TABLES}
    change(
        shop,
        events(
            f"""
            select
                user_id, date '{DAY}' + cast(n as integer) as event_date,
                timestamp '{DAY} 12:00' + to_days(cast(n as integer)) as event_time,
                'support' as event_type, 'late-' || n as session_id
            from (select distinct user_id from marts.shop_events) cross join range(5) as days(n)
            """
        ),
    )
    lcm(shop, "paths", "--as-of", str(DAY))
    assert {table: rows_of(shop, table) for table in TABLES} == before


def test_two_calls_for_support_before_churn_come_out_first(shop: Path) -> None:
    with warehouse_at(shop), duckdb.connect(str(shop)) as con:
        horizon = int(built_settings(con)["churn_horizon_days"])
        cohort = churn_cohort(con, DAY, 84, horizon)
        assert cohort["user_id"].n_unique() == cohort.height
        assert cohort["until_day"].max() <= DAY - timedelta(days=horizon)
        churned = cohort.filter("outcome").head(40)
        con.register("churned", churned.to_arrow())
        con.execute(
            events(
                """
                select
                    user_id, until_day - cast(n as integer) as event_date,
                    until_day - cast(n as integer) + interval 12 hours as event_time,
                    'support' as event_type, 'call-' || n as session_id
                from churned cross join (values (1), (2)) as days(n)
                """
            )
        )
        steps = steps_before(con, cohort, "event")
    walks = steps.group_by("subject", maintain_order=True).agg("state")
    called = {subject for subject, walk in walks.iter_rows() if sum(state == "support" for state in walk) >= 2}
    outcome = dict(cohort.select("subject", "outcome").iter_rows())
    with_it = [outcome[subject] for subject in called]
    without = [happened for subject, happened in outcome.items() if subject not in called]
    lift = (sum(with_it) / len(with_it)) / (sum(without) / len(without))
    top = lcm(shop, "paths", "--as-of", str(DAY))["outcomes"][0]["top"][0]
    assert top["sequence"] == "support ... support"
    assert top["users_with"] == len(with_it) >= 40
    assert top["lift"] == pytest.approx(lift)
    assert top["ci_low"] > 1


def test_first_time_buyers_are_compared_from_a_landmark_on(sample_build: Path) -> None:
    with warehouse_at(sample_build), duckdb.connect(str(sample_build), read_only=True) as con:
        cohort = second_purchase_cohort(con, DAY, 84, 28)
        steps = steps_before(con, cohort, "event")
    assert cohort.height > 20
    bought = query(
        sample_build, f"select user_id, purchase_date from marts.purchase_days where purchase_date < '{DAY}'"
    )
    days = {user: sorted(group["purchase_date"]) for (user,), group in bought.group_by("user_id")}
    checked = 0
    for row in cohort.iter_rows(named=True):
        if row["user_id"] not in days:  # known by another id at the time
            continue
        first, later = days[row["user_id"]][0], days[row["user_id"]][1:]
        if first + timedelta(days=LANDMARK_DAYS) != row["until_day"]:  # it bought before it was linked
            continue
        checked += 1
        assert first + timedelta(days=28) <= DAY
        assert not later or later[0] >= row["until_day"]
        assert row["outcome"] == bool(later and later[0] < first + timedelta(days=28))
    assert checked >= 0.8 * cohort.height
    assert steps["subject"].is_in(cohort["subject"].implode()).all()


def test_a_shop_of_purchases_alone_has_gaps_for_paths(shop: Path) -> None:
    change(shop, "delete from intermediate.int_events where event_type <> 'purchase'")
    result = lcm(shop, "paths", "--as-of", str(DAY))
    assert (result["funnel"], result["unit"]) == ([], "user")
    assert "purchases alone" in result["note"]
    assert {row["path"].split(" > ")[0] for row in result["paths"]} <= {
        "1-7 days", "8-14 days", "15-28 days", "29-56 days", "57+ days",
    }  # fmt: skip
    assert query(shop, "select distinct step_kind from ml.sequence_lifts where step_kind = 'event'").is_empty()


def test_an_empty_shop_and_wrong_use(shop: Path) -> None:
    change(shop, "delete from intermediate.int_events")
    for name in ("rules", "paths"):
        told = lcm(shop, name, "--as-of", str(DAY))
        assert told.get("note") or all(level["note"] for level in told["levels"])
        with warehouse_at(shop):
            assert CliRunner().invoke(app, [name, "--as-of", str(DAY)]).exit_code == 0
            assert CliRunner().invoke(app, [name, "--as-of", "2001-01-01"]).exit_code == 1
            assert CliRunner().invoke(app, [name, "--nonsense"]).exit_code == 2


def test_the_report_says_what_the_tables_hold(shop: Path) -> None:
    with duckdb.connect(str(shop), read_only=True) as con:
        bare = [make(con) for make in (*paths.SECTIONS, *rules.SECTIONS)]
    assert {section.filled_by for section in bare} == {"lcm-ml paths", "lcm-ml rules"}
    change(shop, orders(DAY - timedelta(days=1), 60, *products(shop)))
    lcm(shop, "rules", "--as-of", str(DAY))
    told = lcm(shop, "paths", "--as-of", str(DAY))
    with duckdb.connect(str(shop), read_only=True) as con:
        found = {section.id: section for section in (make(con) for make in (*paths.SECTIONS, *rules.SECTIONS))}
    assert all(section.filled_by == "" for section in found.values())
    views = next(row["sessions"] for row in told["funnel"] if row["event_type"] == "view")
    assert f"Of {views:,} sessions with a view" in found["funnel"].figures[0].says
    top = told["paths"][0]
    assert f"the most frequent: {top['path']} ({top['share']:.1%})" in found["paths"].figures[0].says
    drawn = found["paths"].figures[0].drawing
    assert f"{DAY}" in found["paths"].figures[0].says
    assert "sessions: view to cart, step 1 to step 2" in drawn.wide
    # A phone shows how sessions begin.
    assert "step 1" in drawn.narrow
    assert "step 4" not in drawn.narrow
    rows = {(row[0], row[1]): row for row in found["transitions"].figures[0].table.rows}
    assert rows["search", "view"][3].startswith("100.0%")
    for level in ("category", "product"):
        assert "rule" in found[f"rules-{level}"].figures[0].says
        assert len(set(found[f"rules-{level}"].figures[0].table.rows)) >= 2
