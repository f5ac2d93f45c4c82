"""Speed as ratios: the project beside named references, in turns, in one run.

    .venv/bin/python benchmarks/bench.py --size 1m             # about three minutes, as `make bench`
    .venv/bin/python benchmarks/bench.py --size 10m --only features,increments
    .venv/bin/python benchmarks/bench.py --size 1m --check     # against the committed summary, as `make bench-check`

The shop of a size is made once and kept in data/bench/. Results go to benchmarks/results/; `--keep` writes the ratios
to benchmarks/summary.json, which `--check` compares with: it fails where one is more than 25 % worse.
"""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

# As the command line has it, see lcm_ml/cli/main.py.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from rich.console import Console
from rich.table import Table
from speed import commandline, features, increments, loading, models
from speed.measure import Measure
from speed.shop import ROOT, SIZES, Shop

RESULTS = Path(__file__).parent / "results"
SUMMARY = Path(__file__).parent / "summary.json"
WORSE = 1.25
MEASURES = {
    "help": commandline.measure,
    "load": loading.measure,
    "features": features.measure,
    "increments": increments.measure,
    "score": models.measure_scoring,
    "fit": models.measure_fitting,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1m", help="Events.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(MEASURES), help="Names of measures, with commas.")
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "bench")
    parser.add_argument("--summary", type=Path, default=SUMMARY)
    parser.add_argument("--keep", action="store_true", help="Write the ratios to the summary.")
    parser.add_argument("--check", action="store_true", help="Compare with the summary; exit 1 where one is worse.")
    asked = parser.parse_args()
    if unknown := set(asked.only.split(",")) - set(MEASURES):
        parser.error(f"no measure {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    folder = (asked.folder / asked.size).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    shop = Shop(folder, SIZES[asked.size])
    found: list[Measure] = []
    for name in asked.only.split(","):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        found += MEASURES[name](shop, asked.rounds)
    write_results(found, asked.size)
    show(found)
    if asked.keep:
        keep(found, asked.size, asked.summary)
    if asked.check:
        worse = compare(found, asked.size, json.loads(asked.summary.read_text(encoding="utf-8")))
        for line in worse:
            print(line)
        sys.exit(bool(worse))


def write_results(found: list[Measure], size: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"speed-{size}-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps([one.to_dict() for one in found], indent=1), encoding="utf-8")


def show(found: list[Measure]) -> None:
    table = Table("measure", "ratio", "least to most", "goal", "", "ours", "reference")
    for one in found:
        unit = (lambda value: f"{value / 2**30:.2f} GiB") if "memory" in one.name else (lambda value: f"{value:.3g} s")
        sign = "at least" if one.higher_is_better else "at most"
        table.add_row(
            one.name,
            f"{one.ratio:.2f}",
            f"{min(one.ratios):.2f} to {max(one.ratios):.2f}",
            "" if one.goal is None else f"{sign} {one.goal:g}",
            {True: "reached", False: "missed", None: ""}[one.reached],
            unit(sorted(one.ours)[len(one.ours) // 2]),
            unit(sorted(one.reference)[len(one.reference) // 2]),
        )
    console = Console(width=140)
    console.print(table)
    for one in found:
        console.print(f"{one.name}: {one.what}" + (f"; {one.note}" if one.note else ""), style="dim", highlight=False)


def keep(found: list[Measure], size: str, path: Path) -> None:
    """Put the ratios of this size into the summary; the others of it stay."""
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    summary.setdefault(size, {}).update(
        {one.name: {"ratio": round(one.ratio, 3), "goal": one.goal, "reached": one.reached} for one in found}
    )
    path.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def compare(found: list[Measure], size: str, summary: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """What is worse than the summary by over a quarter, in the best of its rounds: a busy moment is no regression."""
    worse = [] if summary.get(size) else [f"the summary has nothing of {size}: `--keep` writes it"]
    for one in found:
        known = summary.get(size, {}).get(one.name)
        if known is None:
            continue
        best = max(one.ratios) if one.higher_is_better else min(one.ratios)
        factor = known["ratio"] / best if one.higher_is_better else best / known["ratio"]
        if factor > WORSE:
            worse.append(f"{one.name}: {best:.2f}, and {known['ratio']:.2f} in the summary: {factor - 1:.0%} worse")
    return worse


if __name__ == "__main__":
    main()
