"""How time and memory of `lcm-ml load` and `lcm-ml run` grow with events, with users and with as_of_dates.

    .venv/bin/python benchmarks/growth.py --sizes 1m,3m,10m [--chart]

The shops are those of `make bench`. `run` is the whole of it (build, fit, score, insights, monitor, publish), with
LCM_MEMORY_LIMIT (6GB unless set). The smallest size runs again with half the dates, and with the same events of half
as many users. Memory is the resident one of the largest process at a time, looked at every 0.2 s. JSON goes to
benchmarks/results/; --chart puts the newest of it into benchmarks/growth.json and draws that: docs/images/growth.svg.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from speed.shop import EVENTS_PER_USER, ROOT, SIZES, Shop, environment, program

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).with_suffix(".json")
CHART = ROOT / "docs" / "images" / "growth.svg"
SHOWN = ("load", "build", "fit", "score", "value", "recommend", "uplift", "publish", "run")
PROJECT = ("models", "macros", "seeds", "tests", "dbt_project.yml", "profiles.yml")
HALF_THE_DATES = {"min_history_days": 56 + 6 * 28}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1m,3m,10m")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "bench")
    parser.add_argument("--only-events", action="store_true", help="Nothing with half the dates or users.")
    parser.add_argument("--keep", action="store_true", help="Leave the warehouse of each size in place.")
    parser.add_argument("--chart", action="store_true", help="Draw docs/images/growth.svg.")
    asked = parser.parse_args()
    os.environ.setdefault("LCM_MEMORY_LIMIT", "6GB")
    for size in filter(None, asked.sizes.split(",")):
        folder = (asked.folder / size).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        shop = Shop(folder, SIZES[size])
        kept({"size": size, "events": SIZES[size], "of": "events", "steps": list(steps(shop, ROOT, keep=asked.keep))})
    if not asked.only_events:
        size = asked.sizes.split(",")[0]
        folder = (asked.folder / f"{size}-half-the-users").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        few = Shop(folder, SIZES[size], 2 * EVENTS_PER_USER)
        kept({"size": size, "events": SIZES[size], "of": "half the users", "steps": list(steps(few, ROOT))})
        shop = Shop((asked.folder / size).absolute(), SIZES[size])
        with project_with(HALF_THE_DATES) as project:
            kept({"size": size, "events": SIZES[size], "of": "half the dates", "steps": list(steps(shop, project))})
    if asked.chart:
        figures = with_results(json.loads(FIGURES.read_text(encoding="utf-8")))
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        draw(figures, CHART)


def kept(result: dict[str, Any]) -> None:
    """Print a result and write it down."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"growth-{result['size']}-{result['of'].replace(' ', '-')}-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result), flush=True)


@contextmanager
def project_with(settings: dict[str, int]) -> Iterator[Path]:
    """A copy of the dbt project with other vars."""
    with tempfile.TemporaryDirectory() as name:
        for part in PROJECT:
            source, target = ROOT / part, Path(name) / part
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        told = Path(name) / "dbt_project.yml"
        text = told.read_text(encoding="utf-8")
        for var, value in settings.items():
            text, found = re.subn(rf"(?m)^  {var}: \d+", f"  {var}: {value}", text)
            assert found == 1, var
        told.write_text(text, encoding="utf-8")
        yield Path(name)


def steps(shop: Shop, project: Path, *, keep: bool = False) -> Iterator[dict[str, Any]]:
    """Load and run from nothing.

    Yields:
        step, seconds, gib; `run` is the sum of its parts, those that ended where it failed.
    """
    path = Path(tempfile.mkdtemp(prefix="whole-", dir=shop.folder)) / "lcm.duckdb"
    try:
        load = measured(["load", "files", *shop.files_of("history", first=True)], path, project)
        if load.failed:
            # A run would take the sample.
            raise SystemExit(f"lcm-ml load ended: {load.failed}")
        yield told(load)
        run = measured(["run", "--json"], path, project)
        start = run.memory.began
        for lap in run.laps:
            end = start + lap["seconds"]
            yield told(Measured(lap["step"], lap["seconds"], run.memory), start, end)
            start = end
        yield told(run) | {"failed": run.failed}
        yield {"step": "warehouse", "gib": round(path.stat().st_size / 2**30, 2)}
    finally:
        if not keep:
            shutil.rmtree(path.parent)


@dataclass(frozen=True)
class Measured:
    """A command, or a step of it."""

    step: str
    seconds: float
    memory: "Memory"
    laps: list[dict[str, Any]] = field(default_factory=list)
    failed: str | None = None


def told(of: Measured, start: float = 0.0, end: float = float("inf")) -> dict[str, Any]:
    """A step as it is kept, and printed, since a run of a hundred million events takes hours."""
    found = {"step": of.step, "seconds": round(of.seconds, 1), "gib": of.memory.most(start, end)}
    print(json.dumps(found), flush=True)
    return found


def measured(words: list[str], warehouse: Path, project: Path) -> Measured:
    """Run lcm-ml; the step is its first word."""
    log = warehouse.with_name(f"{words[0]}.jsonl")
    began = time.monotonic()
    process = subprocess.Popen(
        [str(program("lcm-ml")), "--log", str(log), *words],
        env=environment(warehouse) | {"LCM_PROJECT_DIR": str(project), "DBT_PROFILES_DIR": str(project)},
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )
    memory = Memory(process.pid)
    memory.start()
    code = process.wait()
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return Measured(
        words[0],
        time.monotonic() - began,
        memory,
        [line for line in lines if line["event"] == "lap"],
        f"exit code {code}" if code else None,
    )


class Memory(threading.Thread):
    """The resident memory of the largest process of a family, over time."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.began = pid, time.monotonic()
        self.seen: list[tuple[float, float]] = []

    def run(self) -> None:
        while sizes := family(self.pid):
            self.seen.append((time.monotonic(), max(sizes.values())))
            time.sleep(0.2)

    def most(self, start: float = 0.0, end: float = float("inf")) -> float:
        """GiB between two moments."""
        return round(max((size for moment, size in self.seen if start <= moment <= end), default=0.0) / 2**30, 2)


def family(pid: int) -> dict[int, int]:
    """Resident bytes of a process and all that it started, from /proc; nothing once it has ended."""
    parents, sizes = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # After the name, which may hold anything: state, parent; resident pages are the 24th field.
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(folder.name)], sizes[int(folder.name)] = (
                int(fields[1]),
                int(fields[21]) * os.sysconf("SC_PAGESIZE"),
            )

    def belongs(one: int) -> bool:
        while one in parents and one != pid:
            one = parents[one]
        return one == pid

    return {one: size for one, size in sizes.items() if belongs(one)} if pid in sizes else {}


Figures = list[dict[str, Any]]
"""Results as they are shown: events, of (what grows), steps (step, seconds, gib)."""


def with_results(figures: Figures) -> Figures:
    """The figures, each with its newest result that ended well in its place."""
    found = {(figure["events"], figure["of"]): figure for figure in figures}
    for path in sorted(RESULTS.glob("growth-*.json"), key=lambda path: path.stem[-15:]):
        result = json.loads(path.read_text(encoding="utf-8"))
        if any(step.get("failed") for step in result["steps"]):
            continue
        shown = [
            {name: step[name] for name in ("step", "seconds", "gib")}
            for step in result["steps"]
            if step["step"] in SHOWN
        ]
        found[result["events"], result["of"]] = {"events": result["events"], "of": result["of"], "steps": shown}
    return [found[key] for key in sorted(found)]


def draw(figures: Figures, path: Path) -> None:
    """Seconds and GiB against events, events and seconds on logarithmic axes; below, the halves beside the whole."""
    import altair as alt
    import polars as pl

    taken = pl.DataFrame(
        [{"events": figure["events"], "of": figure["of"], **step} for figure in figures for step in figure["steps"]]
    )
    memory = alt.Y("gib:Q", title="peak memory, GiB")
    line = (
        alt.Chart(taken.filter(pl.col("of") == "events"))
        .mark_line(point=True)
        .encode(
            x=alt.X("events:Q", scale=alt.Scale(type="log"), title="events", axis=alt.Axis(format="~s")),
            color=alt.Color("step:N", title="step", sort=list(SHOWN)),
        )
        .properties(width=340, height=260)
    )
    rows = [line.encode(y=alt.Y("seconds:Q", scale=alt.Scale(type="log"), title="seconds")) | line.encode(y=memory)]
    halves = taken.filter(pl.col("of") != "events")
    if halves.height:
        size = halves.item(0, "events")
        whole = taken.filter(pl.col("of") == "events", pl.col("events") == size).with_columns(of=pl.lit("all"))
        bars = (
            alt.Chart(pl.concat([whole, halves]), title=f"{size:,} events")
            .mark_bar()
            .encode(
                x=alt.X("step:N", title=None, sort=list(SHOWN), axis=alt.Axis(labelAngle=-30)),
                xOffset=alt.XOffset("of:N"),
                color=alt.Color("of:N", title="users, dates"),
            )
            .properties(width=340, height=180)
        )
        rows.append(bars.encode(y=alt.Y("seconds:Q", title="seconds")) | bars.encode(y=memory))
    alt.vconcat(*rows).resolve_scale(color="independent").save(str(path))


if __name__ == "__main__":
    main()
