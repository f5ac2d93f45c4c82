"""Charts of value: expected beside realised spend, and who holds the value."""

import altair as alt
import polars as pl

from lcm_ml.reporting.charts import QUIET, Drawing, draw, series_colour, series_shape

KINDS = ("realised", "expected")


def expected_and_realised(tenths: pl.DataFrame) -> Drawing:
    """Mean spend by tenth of the expected spend. Columns: decile, expected_amount, realised_amount."""
    long = tenths.select("decile", realised="realised_amount", expected="expected_amount").unpivot(
        index="decile", variable_name="kind", value_name="amount"
    )
    base = alt.Chart(long.sort("kind", "decile")).encode(
        x=alt.X("decile:O", title="tenth of expected spend, 1 is highest", axis=alt.Axis(labelAngle=0, grid=False)),
        y=alt.Y("amount:Q", title="spend per user", axis=alt.Axis(tickCount=5)),
        color=series_colour("kind", KINDS),
    )
    return draw(
        alt.layer(
            base.mark_line(strokeWidth=1.5),
            base.mark_point(filled=True, size=55, opacity=1).encode(shape=series_shape("kind", KINDS)),
        ),
        height=240,
        names=KINDS,
    )


def concentration(curve: pl.DataFrame) -> Drawing:
    """Share of the value that a share of the users holds, the most valuable first. Columns: users, value."""
    share = alt.Axis(format="%", tickCount=5)
    equal = alt.Chart(pl.DataFrame({"x": [0.0, 1.0]})).mark_line(strokeDash=[4, 4], color=QUIET)
    line = (
        alt.Chart(curve.with_columns(name=pl.lit("value")))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("users:Q", title="users, most valuable first; dashed: all alike", axis=share),
            y=alt.Y("value:Q", title="lifetime value they hold", axis=share),
            color=series_colour("name", ("value",)),
        )
    )
    return draw(alt.layer(equal.encode(x="x:Q", y="x:Q"), line), height=260)
