"""The report: one HTML file that works from disk, with no script and no request to anywhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import jinja2

import lcm_ml
from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.files import replace_private
from lcm_ml.registry.card import model_card
from lcm_ml.registry.catalogue import list_versions
from lcm_ml.reporting.contents import GROUPS
from lcm_ml.reporting.section import Group, Section, champion, count, number, rows_of, share
from lcm_ml.reporting.sections.profile import profile
from lcm_ml.warehouse import state, status
from lcm_ml.warehouse.connection import rows

Advance = Callable[[str, float], None]


@dataclass(frozen=True)
class Tile:
    """One of the few figures at the top. `section` is where more is told."""

    figure: str
    words: str
    section: str


def _silent(_: str, __: float) -> None:
    return None


def write_report(
    con: duckdb.DuckDBPyConnection,
    manifest: dict[str, Any] | None,
    out: Path | None = None,
    advance: Advance = _silent,
    user_id: str | None = None,
) -> Path:
    """Write the report, replacing the one before in one step, and the model cards beside it.

    Args:
        con: an open connection to a built warehouse.
        manifest: of the snapshot that the report belongs to; None before anything was published.
        out: the file; default: report.html beside the snapshots.
        advance: told what is under way.
        user_id: a user whose card is to be in it.

    Returns:
        The file.

    Raises:
        LcmError: when nothing is built, or there is no such user.
        OSError: when a file cannot be written.
    """
    state.require_built(con)
    path = out or project.beside_warehouse("published") / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = _render(con, manifest, advance, user_id)
    write_cards(con, path.parent / "model_cards")
    replace_private(path, text)
    return path


def write_cards(con: duckdb.DuckDBPyConnection, folder: Path) -> list[Path]:
    """Write the card of every version that serves or could, as VERSION.md. Those of earlier versions stay.

    A version whose files are gone has no card, and is no reason to have no report: `lcm-ml models card` tells why.
    """
    folder.mkdir(exist_ok=True, mode=0o700)
    written = []
    for version in list_versions(con, everything=False):
        try:
            text = model_card(con, version["model_version"])
        except LcmError:
            continue
        written.append(replace_private(folder / f"{version['model_version']}.md", text))
    return written


def _render(
    con: duckdb.DuckDBPyConnection, manifest: dict[str, Any] | None, advance: Advance, user_id: str | None
) -> str:
    found = status.collect(con)
    card = () if user_id is None else (Group("user", "One user", (partial(profile, user_id=user_id),)),)
    groups = (*card, *GROUPS)
    makers = [(group, make) for group in groups for make in group.makers]
    sections: dict[str, list[Section]] = {group.id: [] for group in groups}
    for done, (group, make) in enumerate(makers):
        advance(group.title, done / len(makers))
        sections[group.id].append(make(con))
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("lcm_ml.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.j2")
    return template.render(
        groups=[(group, sections[group.id]) for group in groups],
        tiles=_tiles(con, found),
        found=found,
        manifest=manifest,
        version=lcm_ml.__version__,
    )


def _tiles(con: duckdb.DuckDBPyConnection, found: dict[str, Any]) -> list[Tile]:
    """The figures that a reader in a hurry wants; those that do not exist yet are left out."""
    tiles = [Tile(count(sum(row["users"] for row in found["stages"])), "users seen", "stages")]
    scored = sum(row["users"] for row in found["scores"])
    if scored:
        high = sum(row["users"] for row in found["scores"] if row["risk_band"] == "high")
        tiles.append(Tile(count(scored), "active buyers scored", "scores"))
        tiles.append(Tile(count(high), f"at high risk ({share(high / scored)})", "scores"))
    known = champion(con)
    if known:
        auc = {
            row["model_name"]: row
            for row in rows(
                con,
                "select model_name, value, ci_low, ci_high from ml.model_metrics "
                "where run_id = ? and split = 'test' and metric = 'auc'",
                [known[0]],
            )
        }
        if known[1] in auc:
            own, recency = auc[known[1]], auc.get("recency")
            beside = f"; recency alone {number(recency['value'])}" if recency else ""
            interval = f"{number(own['ci_low'])} to {number(own['ci_high'])}"
            tiles.append(Tile(number(own["value"]), f"AUC of {known[1]} ({interval}{beside})", "test"))
    monitored = rows_of(
        con, "ml.model_runs", "select 1 from ml.model_runs where command = 'monitor' and status = 'ok' limit 1"
    )
    if monitored.height:
        critical = rows_of(
            con, "serving.alerts_latest", "select 1 from serving.alerts_latest where severity = 'critical'"
        )
        tiles.append(Tile(count(critical.height), "critical alerts", "alerts"))
    return tiles
