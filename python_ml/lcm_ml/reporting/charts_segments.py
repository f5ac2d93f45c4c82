"""Charts of the segments: what sets them apart."""

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import LETTERS, Drawing, draw, room_for

SPAN = 2.0
"""Differences beyond this have the full colour."""


def differences(cells: pl.DataFrame) -> Drawing:
    """Heat map of traits by segment. Columns: trait, segment (labels, in order), difference."""
    y = alt.Y("trait:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False))
    x = alt.X("segment:N", sort=None, title="segment", axis=alt.Axis(labelAngle=0, orient="top", domain=False))
    base = alt.Chart(cells).encode(x=x, y=y)
    tiles = base.mark_rect(stroke="white", strokeWidth=1).encode(
        # Orange for less, blue for more: told apart by colour-blind readers, and black letters can be read on both.
        color=alt.Color(
            "difference:Q",
            scale=alt.Scale(domain=[-SPAN, 0, SPAN], range=["#E08A2E", "#F7F7F7", "#4A97C9"], clamp=True),
            legend=None,
        )
    )
    words = base.mark_text(fontSize=LETTERS - 1, color="black").encode(text="told:N")
    layers = alt.layer(tiles, words).transform_calculate(told="format(datum.difference, '+.1f')")
    return draw(layers, height=26 * cells["trait"].n_unique(), room=room_for(cells["trait"].to_list()))
