"""Charts of ways through the shop: what follows what, and what comes before an outcome."""

import math
from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import INK, LETTERS, QUIET, SERIES, Drawing, draw, room_for

TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.2, 1.5, 2, 3, 5, 7, 10, 20, 50)

TOLD_SHARE = 0.05
"""Share of what leaves a state from which the graph draws an edge."""


def transition_graph(cells: pl.DataFrame, states: Sequence[str]) -> Drawing:
    """What follows each state, as a graph: states on a circle, an edge ends in a dot beside the state that it leads to.

    Args:
        cells: from_state, to_state, transitions (how many), probability (0 to 1); edges below TOLD_SHARE are left out.
        states: in the order of the circle, from the top clockwise.
    """
    angle = {state: math.pi / 2 - 2 * math.pi * place / len(states) for place, state in enumerate(states)}
    at = {state: (math.cos(turn), math.sin(turn)) for state, turn in angle.items()}
    edges = []
    for row in cells.filter(pl.col("probability") >= TOLD_SHARE).to_dicts():
        (x, y), (x2, y2) = at[row["from_state"]], at[row["to_state"]]
        length = math.hypot(x2 - x, y2 - y) or 1.0
        # Beside the straight line, so that the way back has a line of its own.
        side_x, side_y = 0.04 * (y2 - y) / length, -0.04 * (x2 - x) / length
        near, far = 0.1 / length, 1 - 0.1 / length
        edges.append(
            {
                "x": x + near * (x2 - x) + side_x,
                "y": y + near * (y2 - y) + side_y,
                "x2": x + far * (x2 - x) + side_x,
                "y2": y + far * (y2 - y) + side_y,
                "transitions": row["transitions"],
            }
        )
    nodes = pl.DataFrame(
        [
            {"state": state, "x": x, "y": y, "label_y": y + (0.13 if y > -0.01 else -0.13)}
            for state, (x, y) in at.items()
        ]
    )

    scale = alt.Scale(domain=[-1.35, 1.35], nice=False)
    lines = alt.Chart(pl.DataFrame(edges)).encode(
        x=alt.X("x:Q", scale=scale, axis=None),
        y=alt.Y("y:Q", scale=scale, axis=None),
        strokeWidth=alt.StrokeWidth("transitions:Q", scale=alt.Scale(type="sqrt", range=[0.6, 9]), legend=None),
    )
    layers = [
        lines.mark_rule(color=SERIES[0], opacity=0.55).encode(x2="x2:Q", y2="y2:Q"),
        alt.Chart(pl.DataFrame(edges))
        .mark_point(filled=True, color=SERIES[1], opacity=1, size=44)
        .encode(x=alt.X("x2:Q", scale=scale, axis=None), y=alt.Y("y2:Q", scale=scale, axis=None)),
        alt.Chart(nodes)
        .mark_point(filled=True, color=INK, opacity=1, size=90)
        .encode(x=alt.X("x:Q", scale=scale, axis=None), y=alt.Y("y:Q", scale=scale, axis=None)),
        alt.Chart(nodes)
        .mark_text(fontSize=LETTERS, color=INK)
        .encode(x=alt.X("x:Q", scale=scale, axis=None), y=alt.Y("label_y:Q", scale=scale, axis=None), text="state:N"),
    ]
    return draw(alt.layer(*layers), height=360, room=12)


def transition_matrix(cells: pl.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> Drawing:
    """What follows each state, as a matrix of percentages, which a graph of ten states has no room for.

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
