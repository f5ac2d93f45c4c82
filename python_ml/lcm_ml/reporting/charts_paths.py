"""Charts of ways through the shop: what follows what, and what comes before an outcome."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import INK, LETTERS, QUIET, SERIES, Drawing, draw, room_for

TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.2, 1.5, 2, 3, 5, 7, 10, 20, 50)


def transition_matrix(cells: pl.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> Drawing:
    """What follows each state, as a matrix: with ten states a graph is a tangle that nobody reads on a phone.

    Args:
        cells: from_state, to_state, probability (0 to 1).
        rows: states from top to bottom.
        columns: states from left to right.
    """
    base = alt.Chart(cells).encode(
        x=alt.X(
            "to_state:N",
            sort=list(columns),
            title="... is followed by",
            axis=alt.Axis(orient="top", labelAngle=-50, labelOverlap=False, domain=False, ticks=False),
        ),
        y=alt.Y("from_state:N", sort=list(rows), title=None, axis=alt.Axis(domain=False, ticks=False)),
    )
    tiles = base.mark_rect(stroke="white", strokeWidth=1).encode(
        # The darkest blue still lets black letters be read.
        color=alt.Color("probability:Q", scale=alt.Scale(domain=[0, 1], range=["#F4F8FB", "#3182BD"]), legend=None)
    )
    words = base.mark_text(fontSize=LETTERS - 1, color="black").encode(text="percent:N")
    layers = alt.layer(tiles, words).transform_calculate(percent="round(datum.probability * 100)")
    return draw(layers, height=26 * len(rows), room=room_for(list(rows)) + 8)


def lifts(rows: pl.DataFrame, title: str) -> Drawing:
    """How many times more often something came, with its interval, on a log scale; the dashed line is no difference.

    Args:
        rows: label, value, ci_low, ci_high; all above 0.
        title: of the axis.
    """
    y = alt.Y("label:N", sort=None, axis=None)
    base = alt.Chart(rows).encode(y=y)
    low, high = float(rows["ci_low"].min()), float(rows["ci_high"].max())  # type: ignore[arg-type]
    ends = [0.95 * min(low, 0.9), 1.05 * max(high, 1.1)]
    ticks = [tick for tick in TICKS if ends[0] <= tick <= ends[1]]
    x = alt.X(
        "value:Q",
        title=title,
        scale=alt.Scale(type="log", domain=ends, nice=False),
        axis=alt.Axis(values=ticks, format="~g"),
    )
    same = alt.Chart(pl.DataFrame({"x": [1.0]})).mark_rule(strokeDash=[4, 4], color=QUIET)
    layers = [
        same.encode(x="x:Q"),
        base.mark_rule(yOffset=8, color=SERIES[0], strokeWidth=1.5).encode(x="ci_low:Q", x2="ci_high:Q"),
        base.mark_point(yOffset=8, color=SERIES[0], filled=True, size=50, opacity=1).encode(x=x),
        base.mark_text(align="left", baseline="middle", dy=-6, dx=2, fontSize=LETTERS, color=INK).encode(
            x=alt.value(0), text="label:N"
        ),
    ]
    return draw(alt.layer(*layers), height=34 * rows.height, room=24)
