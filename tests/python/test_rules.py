"""Association rules against a second implementation, planted pairs, and baskets in which nothing goes together."""

from itertools import combinations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlxtend.frequent_patterns import association_rules, fpgrowth
from scipy.stats import false_discovery_control, fisher_exact

from lcm_ml.insights.itemsets import MIN_BASKETS, FrequentSets, frequent_sets
from lcm_ml.insights.rules import RULES, itemset_rows, rule_rows
from lcm_ml.insights.significance import benjamini_hochberg, fisher_either, fisher_more


def lines_of(bought: np.ndarray) -> pl.DataFrame:
    """Baskets as lines, from a matrix of baskets by items; empty baskets are none."""
    full = bought[bought.any(axis=1)]
    rows, columns = np.nonzero(full)
    return pl.DataFrame({"basket": rows.astype(np.uint32), "item": [f"i{column:02d}" for column in columns]})


def independent(seed: int, baskets: int = 600, items: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((baskets, items)) < rng.uniform(0.05, 0.3, items)


def names_of(sets: FrequentSets) -> dict[str, str]:
    return {item: item.upper() for item in sets.items}


def by_name(sets: FrequentSets) -> dict[frozenset[str], int]:
    return {frozenset(sets.items[item] for item in items): n for items, n in sets.counts.items()}


def mlxtend_sets(bought: np.ndarray, support: float, size: int) -> pd.DataFrame:
    full = bought[bought.any(axis=1)]
    frame = pd.DataFrame(full, columns=[f"i{column:02d}" for column in range(full.shape[1])])
    return fpgrowth(frame, min_support=support, use_colnames=True, max_len=size)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 4), support=st.sampled_from([0.02, 0.05, 0.1]))
def test_sets_are_those_of_fp_growth(seed, size, support):
    bought = independent(seed, baskets=600)
    bought[:100, :4] = True
    sets = frequent_sets(lines_of(bought), support, size)
    other = mlxtend_sets(bought, support, size)
    assert by_name(sets) == {
        frozenset(items): round(share * sets.baskets)
        for items, share in zip(other["itemsets"], other["support"], strict=True)
    }
    # A set is counted, and so a test made, when every smaller set is frequent.
    triples = combinations(range(len(sets.items)), 3)
    counted = sum(all(pair in sets.counts for pair in combinations(triple, 2)) for triple in triples)
    assert sets.candidates.get(3) == (counted if size > 2 else None)


def test_figures_of_rules_are_those_of_mlxtend():
    bought = independent(1, baskets=2000)
    bought[:150, 0:3] = True
    bought[100:300, 5:7] = True
    sets = frequent_sets(lines_of(bought), 0.02, 3)
    rules = rule_rows(sets, names_of(sets))
    other = association_rules(mlxtend_sets(bought, 0.02, 3), metric="confidence", min_threshold=0.0)
    known = {
        (frozenset(row.antecedents), frozenset(row.consequents)): row
        for row in other.itertuples()
        if len(row.consequents) == 1
    }
    assert rules.height > 5
    for row in rules.iter_rows(named=True):
        left = frozenset(row["antecedent"].strip('[]"').split('", "'))
        twin = known[left, frozenset([row["consequent"]])]
        assert row["confidence"] == pytest.approx(twin.confidence)
        assert row["lift"] == pytest.approx(twin.lift)
        assert row["leverage"] == pytest.approx(twin.leverage)
        assert row["support"] == pytest.approx(twin.support)
        assert (row["conviction"] or np.inf) == pytest.approx(twin.conviction)
        assert row["ci_low"] < row["confidence"] <= row["ci_high"]


def test_planted_pairs_come_out_and_nothing_else():
    bought = independent(3, baskets=3000, items=20)
    for left, right in ((0, 1), (7, 12)):
        bought[:, right] |= bought[:, left] & (np.random.default_rng(left).random(3000) < 0.6)
    sets = frequent_sets(lines_of(bought), 0.01, 2)
    rules = rule_rows(sets, names_of(sets))
    found = {(row["antecedent"], row["consequent"]) for row in rules.iter_rows(named=True)}
    planted = {('["i00"]', "i01"), ('["i01"]', "i00"), ('["i07"]', "i12"), ('["i12"]', "i07")}
    assert planted <= found
    assert len(found - planted) <= 1
    assert rules["lift"].min() > 1


def test_where_nothing_goes_together_there_are_hardly_any_rules():
    """With no true rule, the false discovery rate is the chance of any rule at all: 5 % of 60 shops are 3."""
    wrong = 0
    for seed in range(60):
        sets = frequent_sets(lines_of(independent(seed)), 0.01, 3)
        assert len(sets.counts) > 30
        wrong += rule_rows(sets, names_of(sets)).height > 0
    # Of Binomial(60, 0.05), 99.9 % lie at or below 9.
    assert wrong <= 9


def test_an_item_that_adds_nothing_makes_no_rule():
    """A goes with B; C has nothing to do with either, so that A + C -> B would only repeat A -> B."""
    repeats = 0
    for seed in range(30):
        bought = independent(seed, baskets=1500, items=3)
        bought[:, 2] |= np.random.default_rng(seed).random(1500) < 0.3
        bought[:, 1] |= bought[:, 0] & (np.random.default_rng(seed + 99).random(1500) < 0.5)
        rules = rule_rows((sets := frequent_sets(lines_of(bought), 0.01, 3)), names_of(sets))
        assert {'["i00"]', '["i01"]'} <= set(rules["antecedent"])
        repeats += (rules["antecedent_size"] > 1).any()
    assert repeats <= 6


def test_no_rule_says_what_a_simpler_one_says_better():
    bought = independent(5, baskets=2000, items=8)
    bought[:200, 0:4] = True
    sets = frequent_sets(lines_of(bought), 0.01, 4)
    counts = by_name(sets)
    rules = rule_rows(sets, names_of(sets))
    assert (rules["antecedent_size"] > 1).any()
    for row in rules.iter_rows(named=True):
        left = row["antecedent"].strip('[]"').split('", "')
        for size in range(1, len(left)):
            for part in combinations(left, size):
                simpler = counts[frozenset([*part, row["consequent"]])] / counts[frozenset(part)]
                assert simpler < row["confidence"]


def test_a_rule_is_redundant_where_one_item_alone_says_more():
    """A, B and C say more together than two of them, and less than A alone."""
    groups = {
        "a": (2000, 0.9),
        "ab": (200, 0.1),
        "ac": (200, 0.1),
        "bc": (200, 0.1),
        "abc": (200, 0.6),
        "n": (3000, 0.1),
    }
    baskets = [([*group, "y"] if k < share * n else [*group]) for group, (n, share) in groups.items() for k in range(n)]
    lines = pl.DataFrame({"basket": range(len(baskets)), "item": baskets}).explode("item")
    sets = frequent_sets(lines.with_columns(pl.col("basket").cast(pl.UInt32)), 0.001, 4)
    rules = rule_rows(sets, names_of(sets)).filter(consequent="y")
    assert '["a"]' in rules["antecedent"]
    assert '["a", "b", "c"]' not in rules["antecedent"]


def test_a_rule_without_exception_has_no_conviction_and_names_are_told():
    bought = np.zeros((200, 3), dtype=bool)
    bought[:, 2] = True
    bought[:40, 0:2] = True
    sets = frequent_sets(lines_of(bought), 0.05, 2)
    rules = rule_rows(sets, names_of(sets))
    assert rules["conviction"].to_list() == [None, None]
    assert rules["antecedent_names"].to_list() == ["I00", "I01"]
    assert itemset_rows(sets, names_of(sets))["item_names"].to_list()[0] == "I02"


@pytest.mark.parametrize("baskets", [0, 5])
def test_few_baskets_are_no_failure(baskets):
    lines = pl.DataFrame(
        {"basket": [b for b in range(baskets) for _ in range(2)], "item": ["a", "b"] * baskets},
        schema={"basket": pl.UInt32, "item": pl.String},
    )
    assert baskets < MIN_BASKETS
    sets = frequent_sets(lines, 0.01, 3)
    assert sets.counts == {}
    assert rule_rows(sets, {}).schema == RULES
    assert itemset_rows(sets, {}).is_empty()


COUNTS = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(61, 200))


@given(COUNTS, st.floats(0, 1))
def test_the_exact_test_is_scipys(counts, place):
    one, other, total = counts
    both = round(place * min(one, other))
    table = [[both, one - both], [other - both, total - one - other + both]]
    if table[1][1] < 0:
        return
    assert fisher_more([both], [one], [other], [total])[0] == pytest.approx(fisher_exact(table, "greater").pvalue)
    less = fisher_exact(table, "less").pvalue
    more = fisher_exact(table, "greater").pvalue
    assert fisher_either([both], [one], [other], [total])[0] == pytest.approx(min(1, 2 * min(less, more)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 50))
def test_the_correction_is_scipys_with_the_untold_tests_at_one(p, more):
    padded = false_discovery_control([*p, *[1.0] * more])[: len(p)]
    assert benjamini_hochberg(p, len(p) + more) == pytest.approx(padded)
