"""After bad files and impossible amounts a build passes, and accounts for every row."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from fuzzing import accounts_add_up, fuzz
from lifecycle import WITHOUT_TESTS, dbt, query

Cli = Callable[..., Result]


@pytest.mark.slow
def test_impossible_amounts_are_quarantined_and_break_no_build(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    """Each fits its own column; their products would overflow the decimals that DuckDB multiplies them in."""
    header = "event_id,user_id,event_time,event_type,quantity,unit_price,amount,discount"
    rows = [
        "ok,u,2025-01-01,purchase,2,3,,1",
        "factors,u,2025-01-01,purchase,99999,99999999999999,,",
        "discount,u,2025-01-01,purchase,1,1,1,99999999999999",
        "amount,u,2025-01-01,purchase,1,,99999999999999,",
    ]
    (tmp_path / "e.csv").write_text("\n".join([header, *rows]))
    assert cli("load", "files", "--events", tmp_path / "e.csv").exit_code == 0
    list(fuzz(range(12), 2, tmp_path / "files", warehouse))
    assert dbt(warehouse, "build", "--select", "+data_quality", *WITHOUT_TESTS).success
    rows_in, accounted = accounts_add_up(warehouse)
    assert rows_in == accounted > len(rows)
    own = "select event_id, rule from staging.stg_events_checked where source_file like '%/e.csv' order by all"
    wrong = [(name, "impossible_amount") for name in ("amount", "discount", "factors")]
    assert query(warehouse, own).rows() == [*wrong, ("ok", None)]


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
def test_a_path_that_is_none(cli: Cli, text: str) -> None:
    result = cli("load", "files", "--events", text)
    assert result.exit_code == 1
    assert "is no path" in result.output
