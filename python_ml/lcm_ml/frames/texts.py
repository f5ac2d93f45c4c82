"""Features of what users wrote, read from the warehouse at several dates."""

from collections.abc import Sequence
from datetime import date

import duckdb
import polars as pl

from lcm_ml.frames.events import texts_before


def word_features(con: duckdb.DuckDBPyConnection, dates: Sequence[date]) -> pl.DataFrame:
    """Sentiment and topics of each user's texts before each date, as `text_features` describes them.

    Returns:
        user_id, as_of_date, feature, value; no rows where nobody wrote anything.
    """
    from lcm_ml.insights.words.features import LONG, text_features

    return pl.concat([pl.DataFrame(schema=LONG), *(text_features(texts_before(con, day), day) for day in dates)])
