"""How charts become SVG text: drawn at writing time, so that the report needs no script and works in print.

Each chart is drawn twice, once as wide as a page and once as wide as a phone, so that its letters keep their size.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl
import vl_convert

# Okabe and Ito's palette (2008), told apart by colour-blind readers too. Its light colours are outlined in INK.
STAGE_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#009E73", "#CC79A7", "#F0E442", "#E69F00", "#D55E00")
BANDS = ("low", "medium", "high")
BAND_COLOURS = ("#0072B2", "#E69F00", "#D55E00")
# For lines and points on white: at least 3 to 1.
SERIES = ("#0072B2", "#C04A00", "#00795A", "#7A3E9D", "#595959", "#8A6D00", "#333333")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
INK, QUIET, GRID = "#333333", "#595959", "#E3E6EA"

WIDE, NARROW = 680, 340
LETTERS = 12
FONT = "Helvetica, Arial, sans-serif"
LETTER_WIDTH, LONGEST_LABEL = 6.2, 24
SYMBOL_WIDTH = 30
"""Of a legend's symbol and the space around it."""


@dataclass(frozen=True)
class Drawing:
    """A chart as two SVG texts, of which the page shows the one that fits."""

    wide: str
    narrow: str


def draw(chart: Any, height: int, names: Sequence[str] = (), room: float = 62) -> Drawing:
    """Draw a single or layered chart in both widths; its legend stands above it.

    Args:
        chart: an Altair chart.
        height: of the plot.
        names: in the legend, which stays as wide as the plot.
        room: left of the plot, for the labels of its axis.
    """
    spec = chart.to_dict()
    return Drawing(*(scoped(_svg(spec, width - room, height, names)) for width in (WIDE, NARROW)))


def room_for(labels: Sequence[str]) -> float:
    """Left of a plot for these labels of its rows."""
    return 24 + LETTER_WIDTH * max((min(len(label), LONGEST_LABEL) for label in labels), default=0)


def _svg(spec: dict[str, Any], width: float, height: int, names: Sequence[str]) -> str:
    # Most of the time goes into measuring letters: a fitted size, or a limit to labels, measures all of them again.
    longest = max((len(name) for name in names), default=0)
    config = {
        "aria": False,  # the page describes the chart; its parts would only repeat that
        "background": None,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelFontSize": LETTERS,
            "titleFontSize": LETTERS,
            "titleFontWeight": "normal",
            "labelColor": INK,
            "titleColor": QUIET,
            "gridColor": GRID,
            "domainColor": QUIET,
            "tickColor": QUIET,
            "labelLimit": 0,
            "labelOverlap": True,
            "labelSeparation": 8,
            "titlePadding": 8,
        },
        "legend": {
            "orient": "top",
            "direction": "horizontal",
            "columns": max(1, int(width / (SYMBOL_WIDTH + LETTER_WIDTH * longest))),
            "title": None,
            "labelFontSize": LETTERS,
            "labelColor": INK,
            "labelLimit": 0,
            "symbolStrokeWidth": 1.5,
            "offset": 10,
        },
    }
    sized = spec | {
        "width": width,
        "height": height,
        "autosize": "pad",
        "padding": {"left": 2, "right": 8, "top": 4, "bottom": 4},
        "config": spec.get("config", {}) | config,
    }
    svg: str = vl_convert.vegalite_to_svg(sized)
    return svg


def scoped(svg: str) -> str:
    """Make the ids of an SVG its own: in one page, a second clip0 would be cut by the first one's shape."""
    own = "c" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{own}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{own}-\1)", svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def series_colour(column: str, names: Sequence[str]) -> Any:
    """Colour of each name, in the order given: the first one is the one to look at. One name needs no legend."""
    return alt.Color(f"{column}:N", scale=_scale(names, SERIES), **_legend(names))


def series_shape(column: str, names: Sequence[str]) -> Any:
    """Shape of each name: colour is never the only sign."""
    return alt.Shape(f"{column}:N", scale=_scale(names, SHAPES), **_legend(names))


def _scale(names: Sequence[str], values: Sequence[str]) -> Any:
    return alt.Scale(domain=list(names), range=_cycled(values, len(names)))


def _legend(names: Sequence[str]) -> dict[str, Any]:
    return {} if len(names) > 1 else {"legend": None}


def _cycled(values: Sequence[str], length: int) -> list[str]:
    return [values[position % len(values)] for position in range(length)]


def bars(rows: pl.DataFrame, title: str, form: str, colour: str = SERIES[0], limit_title: str = "") -> Drawing:
    """A bar for each row, its label above it, so that long labels have room on a phone.

    Args:
        rows: label, value; and ci_low, ci_high for an interval or limit for a mark, where there is one.
        title: of the axis.
        form: a d3 number format.
        colour: of the bars.
        limit_title: what the mark is, told in the axis title.
    """
    shown = f"{title}; line: {limit_title}" if limit_title else title
    y = alt.Y("label:N", sort=None, axis=None)
    base = alt.Chart(rows).encode(y=y)
    layers = [
        base.mark_bar(height=10, yOffset=8, color=colour).encode(
            x=alt.X("value:Q", title=shown, axis=alt.Axis(format=form, tickCount=5))
        ),
        base.mark_text(align="left", baseline="middle", dy=-6, dx=2, fontSize=LETTERS, color=INK).encode(
            x=alt.value(0), text="label:N"
        ),
    ]
    if "ci_low" in rows.columns:
        layers.append(base.mark_rule(yOffset=8, color="black", strokeWidth=1.5).encode(x="ci_low:Q", x2="ci_high:Q"))
    if "limit" in rows.columns:
        layers.append(base.mark_tick(yOffset=8, color="black", thickness=2, height=14).encode(x="limit:Q"))
    return draw(alt.layer(*layers), height=34 * rows.height, room=24)


def dots(
    rows: pl.DataFrame, title: str, form: str, names: Sequence[str], zero: bool = False, line: int = 22
) -> Drawing:
    """Figures with their intervals, a line for each label and a colour and shape for each name.

    Args:
        rows: label, name, value, ci_low, ci_high.
        title: of the axis.
        form: a d3 number format.
        names: of the column name, in order.
        zero: whether the axis starts at 0.
        line: height of a label's line.
    """
    # Long labels are cut, so that the plot has room on a phone; the table has them whole.
    short = f"length(datum.label) > {LONGEST_LABEL} ? slice(datum.label, 0, {LONGEST_LABEL - 1}) + '…' : datum.label"
    base = alt.Chart(rows).encode(
        y=alt.Y(
            "label:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=9, labelExpr=short)
        ),
        yOffset=alt.YOffset("name:N", sort=list(names)),
        color=series_colour("name", names),
    )
    scale = alt.Scale(zero=zero, nice=True)
    rules = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("ci_low:Q", title=title, scale=scale, axis=alt.Axis(format=form, tickCount=5)), x2="ci_high:Q"
    )
    points = base.mark_point(filled=True, size=46, opacity=1).encode(x="value:Q", shape=series_shape("name", names))
    return draw(
        alt.layer(rules, points),
        height=line * rows["label"].n_unique(),
        names=names,
        room=room_for(rows["label"].to_list()),
    )
