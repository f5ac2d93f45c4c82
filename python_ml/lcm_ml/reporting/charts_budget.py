"""Chart of budgets: profit by money spent."""

from collections.abc import Sequence

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import QUIET, SERIES, Drawing, draw, series_colour, series_shape


def profit(curves: pl.DataFrame, names: Sequence[str], asked: float) -> Drawing:
    """Expected profit by budget, a line for each policy; a rule at the budget asked for, the first name with its band.

    Args:
        curves: name, budget, expected_profit, ci_low, ci_high (null: not known).
        names: of the column name, in order.
        asked: the budget asked for.
    """
    x = alt.X("budget:Q", title="budget", axis=alt.Axis(tickCount=6))
    y = alt.Y("expected_profit:Q", title="expected profit", axis=alt.Axis(tickCount=5))
    base = alt.Chart(curves).encode(x=x, y=y, color=series_colour("name", names))
    band = (
        alt.Chart(curves.filter(pl.col("name") == names[0], pl.col("ci_low").is_not_null()))
        .mark_area(opacity=0.18, color=SERIES[0])
        .encode(x=x, y="ci_low:Q", y2="ci_high:Q")
    )
    rule = alt.Chart(pl.DataFrame({"budget": [asked]})).mark_rule(color=QUIET, strokeDash=[4, 3]).encode(x=x)
    points = base.mark_point(filled=True, size=28, opacity=1).encode(shape=series_shape("name", names))
    return draw(alt.layer(band, rule, base.mark_line(strokeWidth=2), points), height=260, names=names)
