"""What `lcm-ml act` sent, as rows of the raw contract: a campaign for each rule, channel and offer, and its touches."""

import hashlib

import duckdb
import polars as pl

from lcm_ml.sources.pseudonyms import loaded_with
from lcm_ml.sources.raw_load import FileOutcome, RawLoad, load_within
from lcm_ml.warehouse.contracts import Table, raw_inputs

SOURCE = "act"
"""Of these loads in raw.loads: they bring no events, so that they say nothing of how fresh the data is."""


def raw_rows(sent: pl.DataFrame, channels: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Campaigns and touches, held back users in the arm control.

    Args:
        sent: rows of ml.actions_sent.
        channels: channel, cost_per_contact.

    Returns:
        campaigns and campaign_touches, with the columns of the raw contract but for the load's, sorted.
    """
    rows = {
        "campaigns": sent.group_by("campaign_id", "channel", kind="campaign_kind")
        .agg(starts_at=pl.col("sent_at").min(), ends_at=pl.col("sent_at").max())
        .join(channels.select("channel", "cost_per_contact"), on="channel", how="left")
        .sort("campaign_id"),
        "campaign_touches": sent.select(
            "campaign_id", "user_id", "arm", touched_at="sent_at", responded_at=pl.lit(None, pl.Datetime("us"))
        ).sort("campaign_id", "user_id"),
    }
    return {name: frame.select(_columns(raw_inputs()[name])) for name, frame in rows.items()}


def add_to_raw(con: duckdb.DuckDBPyConnection, rows: dict[str, pl.DataFrame], label: str) -> str:
    """Add them to raw, as a load, within the open transaction.

    Args:
        con: a connection with an open transaction.
        rows: of `raw_rows`.
        label: what stands for a file's name in their lineage.

    Returns:
        The load_id.

    Raises:
        LcmError: when raw cannot be written.
    """
    # The ids are as raw has them: pseudonyms stay pseudonyms, and later loads must treat theirs alike.
    before = next(iter(loaded_with(con)), None)
    options = {"pseudonyms": before} if before else {}
    with load_within(con, SOURCE, options, append=True) as load:
        for name, frame in rows.items():
            _insert(load, raw_inputs()[name], frame, label)
        return load.load_id


def _insert(load: RawLoad, table: Table, frame: pl.DataFrame, label: str) -> None:
    load.con.register("sent_rows", frame.with_row_index("source_row", 1).to_arrow())
    loaded = load.insert(table, "sent_rows", label)
    load.con.unregister("sent_rows")
    digest = hashlib.sha256(frame.write_csv().encode()).hexdigest()
    load.record(FileOutcome(table.name, label, digest, frame.height, loaded, 0, frame.height - loaded))


def _columns(table: Table) -> list[str]:
    return [column.name for column in table.columns if not column.lineage]
