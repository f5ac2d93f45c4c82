"""Charts as SVG text: drawn at writing time, so that the report needs no script and works in print."""

from typing import Any

import altair as alt
import polars as pl
import vl_convert

STAGES = ("prospect", "new", "active", "loyal", "reactivated", "at_risk", "dormant", "churned")
# Okabe and Ito's palette (2008), told apart by colour-blind readers too.
STAGE_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#009E73", "#CC79A7", "#F0E442", "#E69F00", "#D55E00")
WIDTH, HEIGHT = 640, 260


def _svg(chart: Any) -> str:
    styled = chart.configure_view(stroke=None).configure_axis(labelFontSize=12, titleFontSize=12, grid=True)
    svg: str = vl_convert.vegalite_to_svg(styled.to_json())
    return svg


def stage_mix(weekly: pl.DataFrame) -> str:
    """Share of users per stage and week. Columns: as_of_date, stage, users."""
    return _svg(
        alt.Chart(weekly)
        .mark_area()
        .encode(
            x=alt.X("as_of_date:T", title=None),
            y=alt.Y("users:Q", stack="normalize", title="share of users", axis=alt.Axis(format="%")),
            color=alt.Color("stage:N", scale=alt.Scale(domain=STAGES, range=STAGE_COLOURS), title="stage"),
            order=alt.Order("rank:Q"),
        )
        .transform_calculate(rank=f"indexof({list(STAGES)}, datum.stage)")
        .properties(width=WIDTH, height=HEIGHT)
    )


def score_distribution(scores: pl.DataFrame) -> str:
    """Users per churn probability. Columns: low (lower end of a bin 0.05 wide), risk_band, users."""
    bands = ("low", "medium", "high")
    return _svg(
        alt.Chart(scores.with_columns(high=pl.col("low") + 0.05))
        .mark_bar()
        .encode(
            x=alt.X("low:Q", bin=alt.Bin(binned=True, step=0.05), title="churn probability"),
            x2="high:Q",
            y=alt.Y("users:Q", title="users"),
            color=alt.Color(
                "risk_band:N", scale=alt.Scale(domain=bands, range=("#0072B2", "#E69F00", "#D55E00")), title="risk"
            ),
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def calibration(bins: pl.DataFrame) -> str:
    """Predicted against realised churn by bin of equal mass. Columns: model_name, mean_probability, churn_rate."""
    most = max(bins["mean_probability"].max() or 0, bins["churn_rate"].max() or 0)
    ideal = alt.Chart(pl.DataFrame({"x": [0.0, most], "y": [0.0, most]})).mark_line(strokeDash=[4, 4], color="#666666")
    points = (
        alt.Chart(bins)
        .mark_line(point=True)
        .encode(
            x=alt.X("mean_probability:Q", title="mean predicted probability"),
            y=alt.Y("churn_rate:Q", title="share that churned"),
            color=alt.Color("model_name:N", scale=alt.Scale(range=("#0072B2", "#E69F00", "#009E73")), title="model"),
        )
    )
    return _svg((ideal.encode(x="x:Q", y="y:Q") + points).properties(width=WIDTH, height=HEIGHT))


def lift(bins: pl.DataFrame) -> str:
    """Lift by decile of risk. Columns: model_name, decile, lift."""
    return _svg(
        alt.Chart(bins)
        .mark_line(point=True)
        .encode(
            x=alt.X("decile:O", title="decile of predicted risk (1 is highest)", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("lift:Q", title="lift over the base rate"),
            color=alt.Color("model_name:N", scale=alt.Scale(range=("#0072B2", "#E69F00", "#009E73")), title="model"),
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
