"""Charts of the lifecycle: stages over time, and who came back."""

import altair as alt
import polars as pl

from lcm_ml.frames.frame import STAGES
from lcm_ml.reporting.charts import INK, LETTERS, STAGE_COLOURS, Drawing, draw, room_for


def stage_mix(weekly: pl.DataFrame) -> Drawing:
    """Share of users per stage and week. Columns: as_of_date, stage, users."""
    present = [stage for stage in STAGES if stage in weekly["stage"]]
    colours = [STAGE_COLOURS[STAGES.index(stage)] for stage in present]
    return draw(
        alt.Chart(weekly)
        .mark_area(stroke=INK, strokeWidth=0.6)
        .encode(
            x=alt.X("as_of_date:T", title=None, axis=alt.Axis(grid=False)),
            y=alt.Y("users:Q", stack="normalize", title=None, axis=alt.Axis(format="%", tickCount=5)),
            color=alt.Color("stage:N", scale=alt.Scale(domain=present, range=colours)),
            order=alt.Order("rank:Q"),
        )
        .transform_calculate(rank=f"indexof({list(STAGES)}, datum.stage)"),
        height=270,
        names=present,
    )


def retention(cells: pl.DataFrame, step: int) -> Drawing:
    """Heat map of cohorts by period. Columns: cohort (label), period (from 1), retention; in order of time."""
    y = alt.Y("cohort:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False))
    x = alt.X(
        "period:O", title=f"periods of {step} days since the first purchase", axis=alt.Axis(labelAngle=0, orient="top")
    )
    base = alt.Chart(cells).encode(x=x, y=y)
    tiles = base.mark_rect(stroke="white", strokeWidth=1).encode(
        # The darkest blue still lets black letters be read.
        color=alt.Color("retention:Q", scale=alt.Scale(domain=[0, 1], range=["#F4F8FB", "#3182BD"]), legend=None)
    )
    words = base.mark_text(fontSize=LETTERS - 1, color="black").encode(text="percent:N")
    layers = alt.layer(tiles, words).transform_calculate(percent="round(datum.retention * 100)")
    return draw(layers, height=26 * cells["cohort"].n_unique(), room=room_for(cells["cohort"].to_list()))
