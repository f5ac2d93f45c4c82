"""Bring a warehouse that an earlier version made along, one layout after another."""

from collections.abc import Callable

import duckdb

from lcm_ml.warehouse import backup, contracts, writer
from lcm_ml.warehouse.connection import (
    WAREHOUSE_VERSION,
    Notify,
    connect,
    layout_of,
    table_exists,
    transaction,
    writer_lock,
)

Migration = Callable[[duckdb.DuckDBPyConnection], None]


def _importance_by_method(con: duckdb.DuckDBPyConnection) -> None:
    """Importance is by method since layout 2; what layout 1 recorded was the model's own."""
    if table_exists(con, "ml", "feature_importance"):
        con.execute("update ml.feature_importance set method = 'model' where method is null")


MIGRATIONS: dict[int, Migration] = {2: _importance_by_method}
"""By the layout that each leads to. Missing tables and columns are added before; the next build rebuilds marts."""


def upgrade(notify: Notify) -> dict[str, object]:
    """Back up a warehouse of an older layout, and bring it to the present one in one transaction.

    Returns:
        layout before and after, and the backup; both layouts are the same, and backup is None, where nothing was due.

    Raises:
        LcmError: when it cannot be backed up (no space, say) or written; it is as it was then.
    """
    with writer_lock("lcm-ml upgrade", notify):
        with connect(read_only=True, notify=notify, any_layout=True) as con:
            before = layout_of(con) or WAREHOUSE_VERSION
        if before >= WAREHOUSE_VERSION:
            return {"before": before, "after": before, "backup": None}
        kept = backup.back_up(None, lambda *_: None, notify, label=f"layout-{before}")["path"]
        with connect(notify=notify, any_layout=True) as con, transaction(con):
            for schema in ("raw", "ml", "meta"):
                writer.ensure(con, contracts.tables(schema))
            for layout in range(before + 1, WAREHOUSE_VERSION + 1):
                MIGRATIONS[layout](con)
            con.execute(
                "insert into meta.warehouse_version values (?, cast(current_timestamp as timestamp))",
                [WAREHOUSE_VERSION],
            )
        notify(f"brought the warehouse from layout {before} to {WAREHOUSE_VERSION}; before that it was kept as {kept}")
    return {"before": before, "after": WAREHOUSE_VERSION, "backup": kept}
