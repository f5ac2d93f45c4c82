"""Campaigns that came before, to learn from, and later ones, to be measured on."""

from dataclasses import dataclass
from datetime import date

import polars as pl

TESTED_SHARE = 0.3


@dataclass(frozen=True)
class Split:
    """Touches to learn from, all of whose outcomes were known at `cut`, and touches of campaigns from then on."""

    train: pl.DataFrame
    test: pl.DataFrame
    cut: date


def split_by_campaign(touches: pl.DataFrame, days: int, share: float = TESTED_SHARE) -> Split | None:
    """Split by the campaign's first day of contact, never within a campaign.

    Args:
        touches: campaign_id and touched_date among its columns.
        days: of the outcome window; touches whose window reaches into the test part are left out of training.
        share: of the touches that the test part comes closest to.

    Returns:
        None where no split leaves anything on both sides.
    """
    first = pl.col("touched_date").min().over("campaign_id").alias("campaign_date")
    dated = touches.with_columns(first)
    best: Split | None = None
    for cut in dated["campaign_date"].unique().sort():
        train = dated.filter(
            pl.col("campaign_date") < cut, pl.col("touched_date").dt.offset_by(f"{days}d") <= cut
        ).drop("campaign_date")
        test = dated.filter(pl.col("campaign_date") >= cut).drop("campaign_date")
        if train.is_empty():
            continue
        if best is None or abs(test.height / touches.height - share) < abs(best.test.height / touches.height - share):
            best = Split(train, test, cut)
    return best
