"""The rules a marketer edits in seeds/decisions/action_rules.csv: checked word for word, and matched to users."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lcm_ml.decisions.uplift.naming import SEGMENTS
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import STAGES

FILE = "seeds/decisions/action_rules.csv"
CONTACT, NO_ACTION = "contact", "none"
BEST, NEW, REPEAT, NO_PRODUCT = "best", "new", "repeat", "none"
PRODUCTS = (BEST, NEW, REPEAT, NO_PRODUCT)
UNKNOWN = "unknown"
BETWEEN = "|"


@dataclass(frozen=True)
class Rule:
    """One row of the seed. An empty tuple, None or `best` sets no condition.

    Attributes:
        kind: the campaign kind of its offer, whose uplift segment counts; None for the user's best kind.
    """

    rule_id: str
    priority: int
    action: str
    stages: tuple[str, ...]
    min_churn_probability: float | None
    max_churn_probability: float | None
    uplift_segments: tuple[str, ...]
    max_value_decile: int | None
    offer: str | None
    channel: str | None
    product: str
    min_profit: float | None
    kind: str | None

    def fits(self, segment: str = "uplift_segment") -> pl.Expr:
        """Whether a user fits, by stage, churn_probability, value_decile and the column `segment`; never null."""
        tests = []
        if self.stages:
            tests.append(pl.col("stage").is_in(self.stages))
        if self.min_churn_probability is not None:
            tests.append(pl.col("churn_probability") >= self.min_churn_probability)
        if self.max_churn_probability is not None:
            tests.append(pl.col("churn_probability") <= self.max_churn_probability)
        if self.uplift_segments:
            tests.append(pl.col(segment).is_in(self.uplift_segments))
        if self.max_value_decile is not None:
            tests.append(pl.col("value_decile") <= self.max_value_decile)
        # No fill_null around the literal: Polars 2.1 would make one value of it for each part of a large frame.
        return pl.all_horizontal(pl.lit(True), *(test.fill_null(False) for test in tests))

    def carries(self) -> pl.Expr:
        """Whether an option (offer, channel) is one that the rule allows."""
        offer = pl.lit(True) if self.offer == BEST else pl.col("offer") == self.offer
        return offer & (pl.lit(True) if self.channel == BEST else pl.col("channel") == self.channel)


def read_rules(rows: pl.DataFrame, offers: pl.DataFrame, channels: pl.DataFrame) -> list[Rule]:
    """The active rules in the order in which they are tried.

    Args:
        rows: of marts.action_rules.
        offers: offer, campaign_kind.
        channels: channel.

    Raises:
        LcmError: naming row and column of each value that makes no sense, in inactive rules too.
    """
    known: dict[str, Sequence[str]] = {
        "stages": STAGES,
        "uplift_segments": (*SEGMENTS, UNKNOWN),
        "offer": (*offers["offer"], BEST),
        "channel": (*channels["channel"], BEST),
        "product": PRODUCTS,
        "action": (CONTACT, NO_ACTION),
    }
    wrong = [f"row {row['rule_id']}, {text}" for row in rows.to_dicts() for text in _mistakes(row, known)]
    wrong += [
        f"column {column}: {value} is there more than once"
        for column in ("rule_id", "priority")
        for value in rows.filter(pl.col(column).is_duplicated())[column].unique().sort()
    ]
    if wrong:
        raise LcmError(f"{FILE}: {'; '.join(wrong)}", f"mend {FILE}, then `dbt seed`")
    kinds = dict(offers.select("offer", "campaign_kind").iter_rows())
    return [_rule(row, kinds) for row in rows.filter("is_active").sort("priority").to_dicts()]


def listed_words(text: str | None) -> tuple[str, ...]:
    """The words of a cell that lists several."""
    return tuple(word.strip() for word in text.split(BETWEEN)) if text else ()


def _mistakes(row: dict[str, Any], known: dict[str, Sequence[str]]) -> list[str]:
    is_contact = row["action"] == CONTACT
    wrong = [
        f"column {column}: there is no {word!r}, only {', '.join(words)}"
        for column, words in known.items()
        for word in (listed_words(row[column]) if column in ("stages", "uplift_segments") else [row[column]])
        if word is not None and word not in words
    ]
    wrong += [
        f"column {column} is empty"
        for column, needed in (
            *((name, True) for name in ("rule_id", "priority", "is_active", "action")),
            *((name, is_contact) for name in ("offer", "channel")),
        )
        if needed and row[column] is None
    ]
    wrong += [
        f"column {column} is set, but the action is none"
        for column in ("offer", "channel", "product", "min_profit")
        if row["action"] == NO_ACTION and row[column] is not None
    ]
    low, high = row["min_churn_probability"], row["max_churn_probability"]
    wrong += [
        f"column {column}: {row[column]:g} is not between 0 and 1"
        for column in ("min_churn_probability", "max_churn_probability")
        if row[column] is not None and not 0 <= row[column] <= 1
    ]
    if low is not None and high is not None and low > high:
        wrong.append(f"column min_churn_probability: {low:g} is above max_churn_probability, {high:g}")
    decile = row["max_value_decile"]
    if decile is not None and not 1 <= decile <= 10:
        wrong.append(f"column max_value_decile: {decile} is not between 1 and 10")
    return wrong


def _rule(row: dict[str, Any], kinds: dict[str, str]) -> Rule:
    taken = {name: row[name] for name in Rule.__dataclass_fields__ if name in row}
    return Rule(
        **taken
        | {
            "stages": listed_words(row["stages"]),
            "uplift_segments": listed_words(row["uplift_segments"]),
            "product": row["product"] or NO_PRODUCT,
            "kind": kinds.get(row["offer"] or ""),
        }
    )


def check_examples(rules: Sequence[Rule], examples: pl.DataFrame) -> pl.DataFrame:
    """What the rules alone say of each example: a contact is taken as possible, and as one that pays.

    Args:
        rules: in the order in which they are tried.
        examples: example, expected_rule, stage, churn_probability, uplift_segment, value_decile.

    Returns:
        example, expected_rule, decided_by (null: no rule fits) and is_right, in the examples' order.

    Raises:
        LcmError: for a stage or segment of an example that there is not.
    """
    for column, words in (("stage", STAGES), ("uplift_segment", (*SEGMENTS, UNKNOWN))):
        if (strange := examples.filter(~pl.col(column).is_in(words).fill_null(False))).height:
            row = strange.row(0, named=True)
            raise LcmError(
                f"seeds/decisions/action_rule_examples.csv: row {row['example']}, column {column}: there is no "
                f"{row[column]!r}, only {', '.join(words)}",
                "mend it, then `dbt seed`",
            )
    decided = pl.coalesce(pl.lit(None, pl.String), *(pl.when(rule.fits()).then(pl.lit(rule.rule_id)) for rule in rules))
    return examples.select(
        "example", "expected_rule", decided_by=decided, is_right=decided.eq_missing(pl.col("expected_rule"))
    )


def without_example(rules: Sequence[Rule], expected: Collection[str]) -> list[str]:
    """The rules that no example expects."""
    return [rule.rule_id for rule in rules if rule.rule_id not in expected]
