"""Two ways of counting frequent sets, side by side: lcm's (a sparse matrix, then rows of bits) and mlxtend's FP-growth.

Both get the same baskets, already read; each time is the best of --repeats. Ends with 1 when they disagree on a set.

    LCM_WAREHOUSE=warehouse/lcm.duckdb .venv/bin/python benchmarks/rules.py [--repeats 3]
"""

import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd
import polars as pl
from mlxtend.frequent_patterns import fpgrowth
from scipy.sparse import csr_matrix

from lcm_ml.frames.baskets import baskets_before
from lcm_ml.frames.frame import scoring_date
from lcm_ml.insights.itemsets import frequent_sets
from lcm_ml.insights.rules import rule_rows
from lcm_ml.warehouse.connection import connect

CASES = (("category", 0.01, 3), ("category", 0.005, 3), ("product", 0.001, 3), ("product", 0.0005, 3))
RESULTS = Path(__file__).parent / "results" / "rules.json"


def by_mlxtend(lines: pl.DataFrame, support: float, size: int) -> dict[frozenset[str], int]:
    codes = lines["item"].rank("dense").to_numpy() - 1
    names = lines["item"].unique().sort().to_list()
    baskets = lines["basket"].n_unique()
    matrix = csr_matrix(([True] * lines.height, (lines["basket"].to_numpy(), codes)), shape=(baskets, len(names)))
    # FP-growth drops what is rare first, as lcm does, so that it is not charged for 70,000 empty columns.
    often = (matrix.sum(axis=0) >= support * baskets).A1
    kept = [name for name, is_often in zip(names, often, strict=True) if is_often]
    frame = pd.DataFrame(matrix[:, often].toarray(), columns=kept)  # of plain columns: sparse ones take longer
    found = fpgrowth(frame, min_support=support, use_colnames=True, max_len=size)
    return {
        frozenset(items): round(share * baskets)
        for items, share in zip(found["itemsets"], found["support"], strict=True)
    }


def best(repeats: int, work):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - started)
    return min(times), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows, agree = [], True
    for level, support, size in CASES:
        with connect(read_only=True) as con:
            lines = baskets_before(con, scoring_date(con), level)
        ours, sets = best(options.repeats, lambda lines=lines, s=support, k=size: frequent_sets(lines, s, k))
        theirs, other = best(options.repeats, lambda lines=lines, s=support, k=size: by_mlxtend(lines, s, k))
        same = {frozenset(sets.items[item] for item in items): n for items, n in sets.counts.items()} == other
        agree &= same
        names = {item: item for item in sets.items}
        tested, rules = best(1, lambda sets=sets, names=names: rule_rows(sets, names, 0.1))
        rows.append(
            {
                "level": level,
                "min_support": support,
                "max_size": size,
                "baskets": sets.baskets,
                "sets": len(sets.counts),
                "rules": rules.height,
                "lcm_seconds": round(ours, 2),
                "mlxtend_seconds": round(theirs, 2),
                "rules_seconds": round(tested, 2),
                "same_sets": same,
            }
        )
        print(rows[-1], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
