"""How time and memory of load, build and score grow with events, with users and with as_of_dates; JSON and a chart.

    .venv/bin/python benchmarks/growth.py --sizes 1m,3m,10m

Each step is a process of its own (its seconds and its peak resident memory), with LCM_MEMORY_LIMIT (6GB unless set).
"""

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from speed.shop import ROOT, SIZES, Shop, steps_of_a_whole_run

RESULTS = Path(__file__).parent / "results"
CHART = ROOT / "docs" / "images" / "growth.svg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1m,3m,10m")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "bench")
    parser.add_argument("--chart", action="store_true", help="Write docs/images/growth.svg.")
    asked = parser.parse_args()
    os.environ.setdefault("LCM_MEMORY_LIMIT", "6GB")
    rows: list[dict[str, object]] = []
    for size in asked.sizes.split(","):
        folder = (asked.folder / size).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        shop = Shop(folder, SIZES[size])
        for dates in (12, 6) if size == asked.sizes.split(",")[0] else (12,):
            for step in steps_of_a_whole_run(shop, dates):
                rows.append({"size": size, "events": SIZES[size], "dates": dates, **step})
                print(json.dumps(rows[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"growth-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if asked.chart:
        draw(rows, CHART)


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds and GiB against events, both on logarithmic axes."""
    import altair as alt
    import polars as pl

    taken = pl.DataFrame(rows).filter(pl.col("dates") == 12)
    base = alt.Chart(taken).encode(
        x=alt.X("events:Q", scale=alt.Scale(type="log"), title="events"), color=alt.Color("step:N", title="step")
    )
    seconds = base.mark_line(point=True).encode(y=alt.Y("seconds:Q", scale=alt.Scale(type="log"), title="seconds"))
    memory = base.mark_line(point=True).encode(y=alt.Y("gib:Q", title="peak memory, GiB"))
    (seconds.properties(width=320, height=240) | memory.properties(width=320, height=240)).save(str(path))


if __name__ == "__main__":
    main()
