"""Frequent sets of items: Apriori (Agrawal and Srikant 1994), counted on a sparse matrix and on rows of bits."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import polars as pl

MIN_BASKETS = 10
"""A set in fewer baskets is never called frequent, however small the shop."""

Set = tuple[int, ...]


@dataclass(frozen=True)
class FrequentSets:
    """Sets of items that are in at least `min_baskets` baskets.

    Attributes:
        items: names; a set has their positions, in rising order.
        counts: baskets that hold all of a set.
        baskets: how many there are.
        min_baskets: the limit.
        candidates: by size, from 2 on, the sets that were counted, frequent or not.
    """

    items: tuple[str, ...]
    counts: dict[Set, int]
    baskets: int
    min_baskets: int
    candidates: dict[int, int]


def frequent_sets(lines: pl.DataFrame, min_support: float, max_size: int) -> FrequentSets:
    """Find every frequent set of 1 to `max_size` items.

    Args:
        lines: basket (0, 1, 2 ...) and item, each pair once.
        min_support: share of the baskets, 0 to 1; at least MIN_BASKETS of them in any case.
        max_size: of a set.

    Returns:
        The sets. Memory: one bit per basket and item that is in a frequent pair.
    """
    baskets = lines["basket"].n_unique()
    least = max(MIN_BASKETS, int(np.ceil(min_support * baskets - 1e-9)))
    singles = lines.group_by("item").len().filter(pl.col("len") >= least).sort("item")
    items = tuple(singles["item"].to_list())
    counts: dict[Set, int] = {(place,): n for place, n in enumerate(singles["len"].to_list())}
    if max_size < 2 or len(items) < 2:
        return FrequentSets(items, counts, baskets, least, {})
    kept = lines.join(singles.select("item").with_row_index("place"), on="item")
    rows, places = kept["basket"].to_numpy(), kept["place"].to_numpy()
    pairs = _pairs(rows, places, (int(rows.max()) + 1, len(items)), least)
    candidates = {2: len(items) * (len(items) - 1) // 2}
    counts |= pairs
    found = pairs
    bits = _bits(rows, places, {place for pair in pairs for place in pair}) if max_size > 2 else {}
    for size in range(3, max_size + 1):
        found, candidates[size] = _extend(found, bits, least)
        counts |= found
    return FrequentSets(items, counts, baskets, least, candidates)


def _pairs(
    rows: npt.NDArray[np.uint32], places: npt.NDArray[np.uint32], shape: tuple[int, int], least: int
) -> dict[Set, int]:
    from scipy.sparse import csr_matrix, triu

    bought = csr_matrix((np.ones(len(rows), dtype=np.int32), (rows, places)), shape=shape)
    together = triu(bought.T @ bought, k=1).tocoo()
    often = together.data >= least
    pairs = zip(together.row[often].tolist(), together.col[often].tolist(), strict=True)
    return dict(sorted(zip(pairs, together.data[often].tolist(), strict=True)))


def _bits(
    rows: npt.NDArray[np.uint32], places: npt.NDArray[np.uint32], wanted: set[int]
) -> dict[int, npt.NDArray[np.uint64]]:
    """For each item, a bit per basket, in words of 64."""
    words = int(rows.max(initial=0)) // 64 + 1
    order = np.argsort(places, kind="stable")
    limits = np.searchsorted(places[order], np.arange(max(wanted, default=0) + 2))
    bits = {}
    for place in sorted(wanted):
        holds = np.zeros(words * 64, dtype=bool)
        holds[rows[order[limits[place] : limits[place + 1]]]] = True
        bits[place] = np.packbits(holds).view(np.uint64)
    return bits


def _extend(sets: dict[Set, int], bits: dict[int, npt.NDArray[np.uint64]], least: int) -> tuple[dict[Set, int], int]:
    """Frequent sets with one more item, and how many were counted: those of which every smaller set is frequent."""
    tails: dict[Set, list[int]] = defaultdict(list)
    for items in sorted(sets):
        tails[items[:-1]].append(items[-1])
    found: dict[Set, int] = {}
    counted = 0
    for prefix, tail in tails.items():
        for place, last in enumerate(tail[:-1]):
            base = (*prefix, last)
            more = [
                item
                for item in tail[place + 1 :]
                if all((*part, item) in sets for part in combinations(base, len(base) - 1))
            ]
            if not more:
                continue
            counted += len(more)
            shared = np.bitwise_and.reduce([bits[item] for item in base])
            for item in more:
                n = int(np.bitwise_count(shared & bits[item]).sum())
                if n >= least:
                    found[(*base, item)] = n
    return found, counted
