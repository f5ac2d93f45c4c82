"""Events in tables of one's own: the README's example, run as it stands."""

import re
from pathlib import Path

import duckdb
import pytest
import yaml
from lifecycle import ONLY_MARTS, ROOT, build, dbt, query


def readme_vars() -> dict[str, object]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- tested: tests/python/test_own_tables.py runs this -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert found
    variables: dict[str, object] = yaml.safe_load(found[1])
    return variables


@pytest.fixture
def shop_tables(tmp_path: Path) -> Path:
    """A warehouse with a shop's own order lines: 40 customers who buy every 5 to 20 days, and three bad rows."""
    path = tmp_path / "lcm.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("create schema shop")
        con.execute(
            """
            create table shop.order_lines as
            select
                c || '-' || k as line_id, 'C' || c as customer_id,
                cast(timestamp '2025-06-01 09:00' + (k * (5 + c % 16)) * interval 1 day as varchar) as ordered_at,
                'O' || c || '-' || k as order_number, 'S' || (c + k) % 7 as sku, 10 + c as line_total
            from range(40) as customers (c), range(30) as orders (k)
            where k * (5 + c % 16) < 200
            """
        )
        con.execute("insert into shop.order_lines values ('bad', 'C1', 'yesterday', 'O', 'S', 1)")
        con.execute("insert into shop.order_lines values ('0-0', 'C0', '2025-06-01', 'O', 'S', 1)")
        con.execute("insert into shop.order_lines values ('late', 'C1', '2099-01-01', 'O', 'S', 1)")
    return path


@pytest.mark.slow
def test_the_readme_example_builds(shop_tables: Path) -> None:
    run = build(shop_tables, variables=readme_vars())
    assert any("your tables in shop" in line for line in run.own)
    rules = query(shop_tables, "select rule from staging.quarantined_events")["rule"].to_list()
    assert sorted(rules) == ["duplicate_event_id", "event_time_in_future", "unreadable_event_time"]
    users = query(shop_tables, "select count(distinct user_id) as n from marts.user_lifecycle").item()
    assert users == 40
    original = query(
        shop_tables, "select original from staging.quarantined_events where rule like 'unreadable%'"
    ).item()
    assert "yesterday" in original


@pytest.mark.slow
def test_a_changed_table_is_noticed(shop_tables: Path) -> None:
    build(shop_tables, *ONLY_MARTS, variables=readme_vars())
    unchanged = build(shop_tables, *ONLY_MARTS, variables=readme_vars())
    assert not [line for line in unchanged.own if "computes" in line]
    with duckdb.connect(str(shop_tables)) as con:
        con.execute("insert into shop.order_lines values ('new', 'C1', '2025-12-10 10:00', 'O9', 'S1', 12)")
    changed = build(shop_tables, *ONLY_MARTS, variables=readme_vars())
    assert [line for line in changed.own if line.startswith("lcm: user_features computes")]


def test_a_missing_column_is_named(shop_tables: Path) -> None:
    variables = readme_vars() | {"raw_columns": {"events": {"event_id": "line_id"}}}
    run = dbt(shop_tables, "build", variables=variables)
    assert not run.success
    assert any("has no column user_id" in message and "customer_id" in message for message in run.messages)
