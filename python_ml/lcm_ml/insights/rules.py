"""Association rules: who has these items in the basket, has that one too, more often than chance lets it."""

import json
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import polars as pl

from lcm_ml.insights.intervals import wilson
from lcm_ml.insights.itemsets import FrequentSets, Set
from lcm_ml.insights.significance import LEVEL, benjamini_hochberg, fisher_more

ITEMSETS = {
    "items": pl.String,
    "item_names": pl.String,
    "size": pl.Int32,
    "baskets": pl.Int64,
    "support": pl.Float64,
}
RULES = {
    "antecedent": pl.String,
    "consequent": pl.String,
    "antecedent_names": pl.String,
    "consequent_name": pl.String,
    "antecedent_size": pl.Int32,
    "baskets": pl.Int64,
    "support": pl.Float64,
    "antecedent_support": pl.Float64,
    "consequent_support": pl.Float64,
    "confidence": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "lift": pl.Float64,
    "conviction": pl.Float64,
    "leverage": pl.Float64,
    "p_value": pl.Float64,
    "q_value": pl.Float64,
}


def _key(sets: FrequentSets, items: Set) -> str:
    return json.dumps([sets.items[item] for item in items], ensure_ascii=False)


def _names(sets: FrequentSets, items: Set, names: Mapping[str, str]) -> str:
    return " + ".join(names[sets.items[item]] for item in items)


def itemset_rows(sets: FrequentSets, names: Mapping[str, str]) -> pl.DataFrame:
    """Frequent sets with columns ITEMSETS, the most frequent first; `names` are those of all items."""
    rows = [
        (_key(sets, items), _names(sets, items, names), len(items), n, n / sets.baskets)
        for items, n in sets.counts.items()
    ]
    return pl.DataFrame(rows, schema=ITEMSETS, orient="row").sort("baskets", "items", descending=[True, False])


def rule_rows(
    sets: FrequentSets, names: Mapping[str, str], min_confidence: float = 0.0, level: float = LEVEL
) -> pl.DataFrame:
    """Rules with one item on the right, that hold more often than by chance and say more than simpler ones.

    A rule with one item on the left is tested by Fisher's exact test. With more items on the left each of them has to
    add something: among the baskets with the others, it must go with the right side; the largest of these p-values
    counts (Webb 2007, "Discovering Significant Patterns", Machine Learning 68). Q-values are over every rule of every
    set that was counted, frequent or not. Where fewer items on the left have at least its confidence, a rule is left
    out.

    Args:
        sets: frequent sets of up to the size wanted.
        names: of all items.
        min_confidence: of a rule, 0 to 1.
        level: the false discovery rate.

    Returns:
        Columns RULES, the highest lift first. The interval is of the confidence; conviction is null where the rule
        has no exception.
    """
    sided = [
        (items[:place] + items[place + 1 :], items[place])
        for items in sets.counts
        if len(items) > 1
        for place in range(len(items))
    ]
    if not sided:
        return pl.DataFrame(schema=RULES)
    counts, n = sets.counts, sets.baskets
    both = np.array([counts[_with(left, right)] for left, right in sided])
    lefts = np.array([counts[left] for left, _ in sided])
    rights = np.array([counts[right,] for _, right in sided])
    p = _p_values(sets, sided, both, lefts, rights)
    q = benjamini_hochberg(p, sum(size * tried for size, tried in sets.candidates.items()))
    confidence, expected = both / lefts, rights / n
    chosen = (q <= level) & (confidence > expected) & (confidence >= min_confidence)
    kept = [place for place in np.flatnonzero(chosen) if not _is_redundant(counts, *sided[place])]
    exceptions = 1 - confidence[kept]
    frame = pl.DataFrame(
        {
            "antecedent": [_key(sets, sided[place][0]) for place in kept],
            "consequent": [sets.items[sided[place][1]] for place in kept],
            "antecedent_names": [_names(sets, sided[place][0], names) for place in kept],
            "consequent_name": [names[sets.items[sided[place][1]]] for place in kept],
            "antecedent_size": [len(sided[place][0]) for place in kept],
            "baskets": both[kept],
            "support": both[kept] / n,
            "antecedent_support": lefts[kept] / n,
            "consequent_support": expected[kept],
            "confidence": confidence[kept],
            "lift": confidence[kept] / expected[kept],
            "conviction": np.divide(
                1 - expected[kept], exceptions, out=np.full(len(kept), np.nan), where=exceptions > 0
            ),
            "leverage": both[kept] / n - lefts[kept] / n * expected[kept],
            "p_value": p[kept],
            "q_value": q[kept],
            "lefts": lefts[kept],
        },
        schema_overrides={name: kind for name, kind in RULES.items() if kind == pl.String},
    )
    low, high = wilson(pl.col("confidence"), pl.col("lefts"))
    rows = frame.with_columns(pl.col("conviction").fill_nan(None), ci_low=low, ci_high=high)
    return rows.select(pl.col(name).cast(kind) for name, kind in RULES.items()).sort(
        "lift", "antecedent", "consequent", descending=[True, False, False]
    )


def _with(items: Set, item: int) -> Set:
    return tuple(sorted((*items, item)))


def _p_values(
    sets: FrequentSets, sided: list[tuple[Set, int]], both: np.ndarray, lefts: np.ndarray, rights: np.ndarray
) -> np.ndarray:
    counts = sets.counts
    p = np.zeros(len(sided))
    single = np.array([len(left) == 1 for left, _ in sided])
    p[single] = fisher_more(both[single], lefts[single], rights[single], sets.baskets)
    rows, within, hits = [], [], []
    for row in np.flatnonzero(~single):
        left, right = sided[row]
        for rest in combinations(left, len(left) - 1):
            rows.append(row)
            within.append(counts[rest])
            hits.append(counts[_with(rest, right)])
    if rows:
        np.maximum.at(p, rows, fisher_more(both[rows], lefts[rows], hits, within))
    return p


def _is_redundant(counts: Mapping[Set, int], left: Set, right: int) -> bool:
    confidence = counts[_with(left, right)] / counts[left]
    return any(
        counts[_with(part, right)] / counts[part] >= confidence
        for size in range(1, len(left))
        for part in combinations(left, size)
    )
