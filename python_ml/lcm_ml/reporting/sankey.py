"""A Sankey diagram as SVG text: how many went from where to where, column by column.

Altair has none, and the report has no script. Nodes are stacked in the order of their style: by stage, say, so that a
ribbon that falls is a user lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lcm_ml.frames.frame import STAGES
from lcm_ml.reporting.charts import FONT, INK, QUIET, STAGE_COLOURS, Drawing, scoped

UNSEEN = "unseen"
COLOURS = {UNSEEN: "#FFFFFF", **dict(zip(STAGES, STAGE_COLOURS, strict=True))}
OTHER_COLOUR = "#BBBBBB"

NODE_WIDTH = 12
GAP = 12
"""Between nodes: the label of a node too thin to hold it needs that much."""
TOP, SIDE = 26, 2
LABEL_ROOM = 104


@dataclass(frozen=True)
class Style:
    """How nodes look.

    `colours` are theirs, in the order they are stacked, `counted` is what flows, and `is_late` tells whether a phone,
    which has room for three columns, shows the last ones or the first.
    """

    colours: Mapping[str, str]
    counted: str = "users"
    is_late: bool = True

    def rank(self, name: str) -> tuple[int, str]:
        """Place of a node in its column; those without a colour come last."""
        order = list(self.colours)
        return (order.index(name) if name in order else len(order), name)

    def colour(self, name: str) -> str:
        """Fill of a node and of ribbons to it."""
        return self.colours.get(name, OTHER_COLOUR)


BY_STAGE = Style(COLOURS)


@dataclass(frozen=True)
class Flow:
    """`users` (or what else is counted) who were in `source` at column `step` and in `target` at the next one."""

    step: int
    source: str
    target: str
    users: int


@dataclass
class _Node:
    column: int
    stage: str
    users: int = 0
    y: float = 0.0
    left: float = 0.0
    """Where the next ribbon from the left arrives, below `y`."""
    right: float = 0.0


def sankey(columns: Sequence[str], flows: Sequence[Flow], height: int = 420, style: Style = BY_STAGE) -> Drawing:
    """Draw the flows between the columns; on a phone, between three of them.

    Args:
        columns: what each column is called; flow.step counts them from 0.
        flows: of neighbouring columns; those of no users are left out.
        height: of the drawing.
        style: names, order and colours of the nodes.
    """
    first = max(0, len(columns) - 3) if style.is_late else 0
    shown = columns[first : first + 3]
    some = [Flow(f.step - first, f.source, f.target, f.users) for f in flows if 0 <= f.step - first < len(shown) - 1]
    return Drawing(scoped(_draw(columns, flows, 680, height, style)), scoped(_draw(shown, some, 340, height, style)))


def _draw(columns: Sequence[str], flows: Sequence[Flow], width: int, height: int, style: Style) -> str:
    flows = [flow for flow in flows if flow.users > 0]
    nodes = _place(flows, height, style)
    x_of = _columns_at(len(columns), width)
    parts = [
        f'<text x="{x_of[place]:.1f}" y="14" fill="{QUIET}" '
        f'text-anchor="{"start" if place < len(columns) - 1 else "middle"}">{escape(name)}</text>'
        for place, name in enumerate(columns)
    ]
    scale = _scale(flows, height)
    for flow in sorted(flows, key=lambda f: (f.step, style.rank(f.source), style.rank(f.target))):
        parts.append(_ribbon(flow, nodes, x_of, scale, columns, style))
    for node in nodes.values():
        parts += _box(node, x_of[node.column], scale, style)
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="{FONT}" font-size="12">{body}</svg>'
    )


def _columns_at(n: int, width: int) -> list[float]:
    room = width - LABEL_ROOM - NODE_WIDTH - 2 * SIDE
    return [SIDE + room * place / max(n - 1, 1) for place in range(n)]


def _totals(flows: Sequence[Flow]) -> dict[tuple[int, str], int]:
    """Users of each node: those who come or those who leave, whichever are more."""
    came: dict[tuple[int, str], int] = {}
    left: dict[tuple[int, str], int] = {}
    for flow in flows:
        left[flow.step, flow.source] = left.get((flow.step, flow.source), 0) + flow.users
        came[flow.step + 1, flow.target] = came.get((flow.step + 1, flow.target), 0) + flow.users
    return {key: max(came.get(key, 0), left.get(key, 0)) for key in {**came, **left}}


def _scale(flows: Sequence[Flow], height: int) -> float:
    """Height of one user, so that the fullest column fits."""
    totals = _totals(flows)
    columns = {column for column, _ in totals}
    room = height - TOP - 6
    return min(
        (
            (room - GAP * sum(key[0] == column for key in totals))
            / max(sum(users for key, users in totals.items() if key[0] == column), 1)
            for column in columns
        ),
        default=1.0,
    )


def _place(flows: Sequence[Flow], height: int, style: Style) -> dict[tuple[int, str], _Node]:
    totals, scale = _totals(flows), _scale(flows, height)
    nodes = {}
    y: dict[int, float] = {}
    for column, stage in sorted(totals, key=lambda key: (key[0], style.rank(key[1]))):
        node = _Node(column, stage, totals[column, stage], y.get(column, float(TOP)))
        nodes[column, stage] = node
        y[column] = node.y + node.users * scale + GAP
    return nodes


def _ribbon(
    flow: Flow,
    nodes: dict[tuple[int, str], _Node],
    x_of: list[float],
    scale: float,
    columns: Sequence[str],
    style: Style,
) -> str:
    source, target = nodes[flow.step, flow.source], nodes[flow.step + 1, flow.target]
    thick = flow.users * scale
    x0, x1 = x_of[flow.step] + NODE_WIDTH, x_of[flow.step + 1]
    y0, y1 = source.y + source.right, target.y + target.left
    source.right += thick
    target.left += thick
    middle = (x0 + x1) / 2
    path = (
        f"M{x0:.1f},{y0:.1f}C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
        f"v{thick:.2f}C{middle:.1f},{y1 + thick:.1f} {middle:.1f},{y0 + thick:.1f} {x0:.1f},{y0 + thick:.1f}Z"
    )
    stays = flow.source == flow.target
    between = f"{columns[flow.step]} to {columns[flow.step + 1]}"
    told = f"{flow.users:,} {style.counted}: {flow.source} to {flow.target}, {between}"
    colour = "#D9DDE2" if stays else style.colour(flow.target)
    outline = "none" if stays else QUIET
    return (
        f'<path class="flow" d="{path}" fill="{colour}" fill-opacity="{0.45 if stays else 0.75}" stroke="{outline}" '
        f'stroke-width="0.4"><title>{escape(told)}</title></path>'
    )


def _box(node: _Node, x: float, scale: float, style: Style) -> list[str]:
    height = max(node.users * scale, 1.0)
    colour = style.colour(node.stage)
    told = f"{node.stage}: {node.users:,} {style.counted}"
    # A white edge around the letters keeps them apart from the ribbons behind.
    return [
        f'<rect class="node" x="{x:.1f}" y="{node.y:.1f}" width="{NODE_WIDTH}" height="{height:.1f}" fill="{colour}" '
        f'stroke="{INK}" stroke-width="0.8"><title>{escape(told)}</title></rect>',
        f'<text x="{x + NODE_WIDTH + 4:.1f}" y="{node.y + height / 2 + 4:.1f}" fill="#1A1A1A" stroke="#FFFFFF" '
        f'stroke-width="3" stroke-linejoin="round" paint-order="stroke">{escape(node.stage)} '
        f"{node.users:,}</text>",
    ]
