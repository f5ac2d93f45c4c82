"""Charts of support tickets."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import Drawing, draw, room_for, series_colour


def intents(rows: pl.DataFrame, names: Sequence[str]) -> Drawing:
    """Tickets by intent, resolved and open ones in one bar. Columns: intent, state, n; commonest first."""
    order = rows["intent"].unique(maintain_order=True).to_list()
    bars = (
        alt.Chart(rows)
        .mark_bar(height=16)
        .encode(
            x=alt.X("n:Q", title="tickets", axis=alt.Axis(tickCount=5, format="d")),
            y=alt.Y("intent:N", title=None, sort=order, axis=alt.Axis(grid=False)),
            color=series_colour("state", names),
            order=alt.Order("state:N", sort="descending"),
        )
    )
    return draw(bars, height=26 * len(order), names=names, room=room_for(order))
