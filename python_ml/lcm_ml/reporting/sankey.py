"""A Sankey diagram as SVG text: how many users went from which stage to which, date by date.

Altair has none, and the report has no script. Nodes are stacked by stage, so that a ribbon that falls is a user lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lcm_ml.reporting.charts import FONT, INK, QUIET, STAGE_COLOURS, STAGES, Drawing, scoped

UNSEEN = "unseen"
COLOURS = {UNSEEN: "#FFFFFF", **dict(zip(STAGES, STAGE_COLOURS, strict=True))}
OTHER_COLOUR = "#BBBBBB"

NODE_WIDTH = 12
GAP = 12
"""Between nodes: the label of a node too thin to hold it needs that much."""
TOP, SIDE = 26, 2
LABEL_ROOM = 104


@dataclass(frozen=True)
class Flow:
    """`users` who were in `source` at column `step` and in `target` at the next one."""

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


def sankey(columns: Sequence[str], flows: Sequence[Flow], height: int = 420) -> Drawing:
    """Draw the flows between the columns; on a phone, between the last three of them.

    Args:
        columns: what each column is called; flow.step counts them from 0.
        flows: of neighbouring columns; those of no users are left out.
        height: of the drawing.
    """
    first = max(0, len(columns) - 3)
    late = [Flow(f.step - first, f.source, f.target, f.users) for f in flows if f.step >= first]
    return Drawing(scoped(_draw(columns, flows, 680, height)), scoped(_draw(columns[first:], late, 340, height)))


def _draw(columns: Sequence[str], flows: Sequence[Flow], width: int, height: int) -> str:
    flows = [flow for flow in flows if flow.users > 0]
    nodes = _place(flows, height)
    x_of = _columns_at(len(columns), width)
    parts = [
        f'<text x="{x_of[place]:.1f}" y="14" fill="{QUIET}" '
        f'text-anchor="{"start" if place < len(columns) - 1 else "middle"}">{escape(name)}</text>'
        for place, name in enumerate(columns)
    ]
    scale = _scale(flows, height)
    for flow in sorted(flows, key=lambda f: (f.step, _rank(f.source), _rank(f.target))):
        parts.append(_ribbon(flow, nodes, x_of, scale, columns))
    for node in nodes.values():
        parts += _box(node, x_of[node.column], scale)
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="{FONT}" font-size="12">{body}</svg>'
    )


def _rank(stage: str) -> tuple[int, str]:
    order = [UNSEEN, *STAGES]
    return (order.index(stage) if stage in order else len(order), stage)


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


def _place(flows: Sequence[Flow], height: int) -> dict[tuple[int, str], _Node]:
    totals, scale = _totals(flows), _scale(flows, height)
    nodes = {}
    y: dict[int, float] = {}
    for column, stage in sorted(totals, key=lambda key: (key[0], _rank(key[1]))):
        node = _Node(column, stage, totals[column, stage], y.get(column, float(TOP)))
        nodes[column, stage] = node
        y[column] = node.y + node.users * scale + GAP
    return nodes


def _ribbon(
    flow: Flow, nodes: dict[tuple[int, str], _Node], x_of: list[float], scale: float, columns: Sequence[str]
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
    told = f"{flow.users:,} users: {flow.source} to {flow.target}, {columns[flow.step]} to {columns[flow.step + 1]}"
    colour = "#D9DDE2" if stays else COLOURS.get(flow.target, OTHER_COLOUR)
    outline = "none" if stays else QUIET
    return (
        f'<path class="flow" d="{path}" fill="{colour}" fill-opacity="{0.45 if stays else 0.75}" stroke="{outline}" '
        f'stroke-width="0.4"><title>{escape(told)}</title></path>'
    )


def _box(node: _Node, x: float, scale: float) -> list[str]:
    height = max(node.users * scale, 1.0)
    colour = COLOURS.get(node.stage, OTHER_COLOUR)
    told = f"{node.stage}: {node.users:,} users"
    # A white edge around the letters keeps them apart from the ribbons behind.
    return [
        f'<rect class="node" x="{x:.1f}" y="{node.y:.1f}" width="{NODE_WIDTH}" height="{height:.1f}" fill="{colour}" '
        f'stroke="{INK}" stroke-width="0.8"><title>{escape(told)}</title></rect>',
        f'<text x="{x + NODE_WIDTH + 4:.1f}" y="{node.y + height / 2 + 4:.1f}" fill="#1A1A1A" stroke="#FFFFFF" '
        f'stroke-width="3" stroke-linejoin="round" paint-order="stroke">{escape(node.stage)} '
        f"{node.users:,}</text>",
    ]
