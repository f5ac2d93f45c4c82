"""The next best action on frames: rules, what they decide, limits, holdouts and lists."""

import random
import re
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from lifecycle import ROOT

from lcm_ml.decisions.actions.deciding import Decided, Known, decide
from lcm_ml.decisions.actions.lists import channel_lists, formula_warnings, spreadsheet_safe, write_file
from lcm_ml.decisions.actions.rules import Rule, check_examples, read_rules, without_example
from lcm_ml.decisions.actions.sending import to_send
from lcm_ml.decisions.uplift.naming import SEGMENTS
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import STAGES
from lcm_ml.reporting import charts

TODAY = date(2026, 1, 7)  # a Wednesday
OFFERS = pl.DataFrame(
    {"offer": ["news", "discount_10"], "campaign_kind": ["newsletter", "discount"], "discount_share": [0.0, 0.1]}
)
CHANNELS = pl.DataFrame(
    {"channel": ["email", "mail"], "capacity": [None, None]}, schema={"channel": pl.String, "capacity": pl.Int32}
)
RULE = {
    "rule_id": "a", "priority": 10, "is_active": True, "action": "contact", "stages": None,
    "min_churn_probability": None, "max_churn_probability": None, "uplift_segments": None, "max_value_decile": None,
    "offer": "best", "channel": "best", "product": "none", "min_profit": 0.0, "description": None,
}  # fmt: skip
TYPES = {
    "rule_id": pl.String, "priority": pl.Int32, "is_active": pl.Boolean, "action": pl.String, "stages": pl.String,
    "min_churn_probability": pl.Float64, "max_churn_probability": pl.Float64, "uplift_segments": pl.String,
    "max_value_decile": pl.Int32, "offer": pl.String, "channel": pl.String, "product": pl.String,
    "min_profit": pl.Float64, "description": pl.String,
}  # fmt: skip
USER = {
    "user_id": "u1", "stage": "at_risk", "days_since_last_purchase": 31, "typical_gap_days": 9.2, "has_purchased": True,
    "churn_probability": 0.64, "value_decile": 2, "favourite_weekday": None, "favourite_daypart": None,
}  # fmt: skip
USER_TYPES = {
    "user_id": pl.String, "stage": pl.String, "days_since_last_purchase": pl.Int64, "typical_gap_days": pl.Float64,
    "has_purchased": pl.Boolean, "churn_probability": pl.Float64, "value_decile": pl.Int64,
    "favourite_weekday": pl.Int32, "favourite_daypart": pl.String,
}  # fmt: skip
OPTION_TYPES = {
    "user_id": pl.String, "offer": pl.String, "campaign_kind": pl.String, "channel": pl.String,
    "contact_cost": pl.Float64, "discount_cost": pl.Float64, "expected_profit": pl.Float64,
    "standard_error": pl.Float64, "gain_source": pl.String, "blocked_by": pl.String,
}  # fmt: skip
EFFECT_TYPES = {
    "user_id": pl.String, "campaign_kind": pl.String, "outcome": pl.String, "effect": pl.Float64,
    "uplift_segment": pl.String, "is_best_kind": pl.Boolean,
}  # fmt: skip
PRODUCT_TYPES = {"user_id": pl.String, "rank": pl.Int32, "product_id": pl.String, "is_repeat": pl.Boolean}
KINDS = dict(OFFERS.select("offer", "campaign_kind").iter_rows())


def rules_of(*changes: dict[str, object]) -> list[Rule]:
    rows = [RULE | {"rule_id": f"r{n}", "priority": n} | change for n, change in enumerate(changes)]
    return read_rules(pl.DataFrame(rows, schema=TYPES), OFFERS, CHANNELS)


def option(user_id: str, offer: str, channel: str, profit: float, blocked_by: str | None = None, cost: float = 1.0):
    return {
        "user_id": user_id, "offer": offer, "campaign_kind": KINDS[offer], "channel": channel, "contact_cost": cost,
        "discount_cost": 0.0, "expected_profit": profit, "standard_error": None, "gain_source": "uplift",
        "blocked_by": blocked_by,
    }  # fmt: skip


def known(users, options=(), effects=(), products=()) -> Known:
    return Known(
        pl.DataFrame(list(users), schema=USER_TYPES),
        pl.DataFrame(list(options), schema=OPTION_TYPES),
        pl.DataFrame(list(effects), schema=EFFECT_TYPES),
        pl.DataFrame(list(products), schema=PRODUCT_TYPES),
    )


def decided(some: Known, rules, budget=None, channels=CHANNELS) -> Decided:
    return decide([some], rules, channels, TODAY, budget)


def only(decided) -> dict[str, object]:
    assert decided.actions.height == 1
    return decided.actions.row(0, named=True)


# --- what rules decide, beside a slow reading of the same words

REASONS = ("no_consent", "contacted_recently")
some = st.sampled_from
users_drawn = st.lists(
    st.fixed_dictionaries(
        {
            "stage": some(["prospect", "at_risk", "loyal"]),
            "churn_probability": some([None, 0.1, 0.5, 0.9]),
            "value_decile": some([None, 1, 5, 10]),
            "favourite_weekday": some([None, 1, 3, 7]),
        }
    ),
    min_size=1,
    max_size=8,
)
rules_drawn = st.lists(
    st.fixed_dictionaries(
        {
            "is_active": some([True, True, False]),
            "action": some(["contact", "contact", "none"]),
            "stages": some([None, "at_risk|loyal", "prospect"]),
            "min_churn_probability": some([None, 0.5]),
            "max_churn_probability": some([None, 0.5]),
            "uplift_segments": some([None, "persuadable|unknown", "lost_cause"]),
            "max_value_decile": some([None, 5]),
            "offer": some(["best", "news", "discount_10"]),
            "channel": some(["best", "email", "mail"]),
            "min_profit": some([None, 0.0, 2.0]),
        }
    ),
    max_size=5,
)


def slowly(user, rules, options, effects):
    """The action, rule, option and first block of a user, by reading the rules one after another."""
    block = (None, None)
    own = [each for each in effects if each["user_id"] == user["user_id"]]
    for rule in rules:
        found = [e for e in own if (e["campaign_kind"] == rule.kind if rule.kind else e["is_best_kind"])]
        segment = found[0]["uplift_segment"] if found else "unknown"
        p, decile = user["churn_probability"], user["value_decile"]
        if rule.stages and user["stage"] not in rule.stages:
            continue
        if rule.min_churn_probability is not None and (p is None or p < rule.min_churn_probability):
            continue
        if rule.max_churn_probability is not None and (p is None or p > rule.max_churn_probability):
            continue
        if rule.uplift_segments and segment not in rule.uplift_segments:
            continue
        if rule.max_value_decile is not None and (decile is None or decile > rule.max_value_decile):
            continue
        if rule.action == "none":
            return ("none", rule.rule_id, None, *block)
        paying = [
            each
            for each in options
            if each["user_id"] == user["user_id"]
            and rule.offer in ("best", each["offer"])
            and rule.channel in ("best", each["channel"])
            and (rule.min_profit is None or each["expected_profit"] > rule.min_profit)
        ]
        paying.sort(key=lambda each: (-each["expected_profit"], each["offer"], each["channel"]))
        allowed = [each for each in paying if each["blocked_by"] is None]
        if allowed:
            return ("contact", rule.rule_id, (allowed[0]["offer"], allowed[0]["channel"]), *block)
        if block == (None, None):
            block = (paying[0]["blocked_by"] if paying else "no_gain", rule.rule_id)
    return ("none", None, None, *block)


@example_settings(max_examples=80)
@given(users_drawn, rules_drawn, st.integers(0, 2**16))
def test_the_first_rule_that_fits_is_allowed_and_pays_decides(users, rules, seed):
    draw = random.Random(seed)
    rows = [USER | user | {"user_id": f"u{n}"} for n, user in enumerate(users)]
    options, effects = [], []
    for row in rows:
        if draw.random() < 0.7:
            options += [
                option(
                    row["user_id"], offer, channel, draw.choice([-1.0, 0.0, 1.0, 3.0]), draw.choice([None, *REASONS])
                )
                for offer in OFFERS["offer"]
                for channel in CHANNELS["channel"]
            ]
        if draw.random() < 0.7:
            best = draw.choice(["newsletter", "discount"])
            effects += [
                {
                    "user_id": row["user_id"], "campaign_kind": kind, "outcome": "orders", "effect": 0.1,
                    "uplift_segment": draw.choice(SEGMENTS), "is_best_kind": kind == best,
                }
                for kind in ("newsletter", "discount")
            ]  # fmt: skip
    for rule in rules:
        if rule["action"] == "none":
            rule |= {"offer": None, "channel": None, "product": None, "min_profit": None}
    made = rules_of(*rules)
    found = decided(known(rows, options, effects), made)
    got = {
        row["user_id"]: (
            row["action"],
            row["rule_id"],
            (row["offer"], row["channel"]) if row["action"] == "contact" else None,
            row["blocked_by"],
            row["blocked_rule"],
        )
        for row in found.actions.to_dicts()
    }
    assert found.actions.height == len(rows)
    assert got == {row["user_id"]: slowly(row, made, options, effects) for row in rows}
    allowed = {(each["user_id"], each["offer"], each["channel"]) for each in options if each["blocked_by"] is None}
    contacts = found.actions.filter(pl.col("action") == "contact")
    assert set(contacts.select("user_id", "offer", "channel").iter_rows()) <= allowed
    assert contacts.select(
        (pl.col("send_date") >= TODAY).all() & (pl.col("send_date") < date(2026, 1, 14)).all()
    ).item()
    assert found.rules["decides"].sum() + found.actions["rule_id"].null_count() == len(rows)
    # The order in which things come says nothing.
    draw.shuffle(rows)
    draw.shuffle(options)
    again = decided(known(rows, options, effects), made)
    assert again.actions.equals(found.actions)
    assert again.rules.equals(found.rules)


def test_the_segment_is_that_of_the_named_offers_kind():
    effects = [
        {"user_id": "u1", "campaign_kind": kind, "outcome": "orders", "effect": effect, "uplift_segment": segment,
         "is_best_kind": kind == "discount"}
        for kind, effect, segment in (("discount", 0.2, "persuadable"), ("newsletter", -0.1, "do_not_disturb"))
    ]  # fmt: skip
    options = [option("u1", "news", "email", 3.0), option("u1", "discount_10", "email", 1.0)]
    of_news = rules_of({"offer": "news", "uplift_segments": "persuadable"})
    assert only(decided(known([USER], options, effects), of_news))["rule_id"] is None
    of_best = rules_of({"offer": "best", "uplift_segments": "persuadable"})
    found = only(decided(known([USER], options, effects), of_best))
    # The offer that earns most is taken, and told with its own segment.
    assert (found["offer"], found["uplift_segment"]) == ("news", "do_not_disturb")


def test_the_reasons_are_told_in_one_sentence():
    effects = [
        {"user_id": "u1", "campaign_kind": "discount", "outcome": "purchase", "effect": 0.0861,
         "uplift_segment": "persuadable", "is_best_kind": True}
    ]  # fmt: skip
    options = [option("u1", "discount_10", "email", 2.4), option("u1", "news", "email", 5.0, "no_consent")]
    rules = rules_of({"rule_id": "tell_news", "offer": "news"}, {"rule_id": "keep_valuable", "offer": "discount_10"})
    assert only(decided(known([USER], options, effects), rules))["why"] == (
        "at risk: 31 days since the last purchase, usually 9; churn probability 64 %; a contact adds 0.09 purchases "
        "(persuadable); expected to earn 2.40; no contact by tell_news: no consent; rule keep_valuable"
    )
    visitor = USER | {"stage": "prospect", "has_purchased": False, "churn_probability": None}
    assert only(decided(known([visitor]), rules_of()))["why"] == "prospect: no purchase yet; no rule fits"
    loses = decided(known([USER], [option("u1", "news", "mail", -0.006)]), rules_of({"min_profit": None}))
    assert "is assumed, not measured; expected to earn -0.01;" in str(only(loses)["why"])


def test_what_blocked_the_first_rule_is_told():
    options = [
        option("u1", "news", "email", 1.0, "no_consent"),
        option("u1", "discount_10", "email", 1.0, "contacted_recently"),
    ]
    found = only(decided(known([USER], options), rules_of({"offer": "news"}, {"offer": "discount_10"})))
    assert (found["blocked_by"], found["blocked_rule"]) == ("no_consent", "r0")


@pytest.mark.parametrize(("word", "product"), [("best", "p1"), ("new", "p2"), ("repeat", "p1"), ("none", None)])
def test_the_product_is_the_first_recommendation_of_its_sort(word, product):
    listed = [
        {"user_id": "u1", "rank": rank, "product_id": f"p{rank}", "is_repeat": rank == 1} for rank in (1, 2, 3)
    ]  # fmt: skip
    found = decided(known([USER], [option("u1", "news", "email", 1.0)], (), listed), rules_of({"product": word}))
    assert only(found)["product_id"] == product


@pytest.mark.parametrize(("weekday", "day"), [(None, 7), (3, 7), (4, 8), (2, 13)])
def test_a_list_asks_for_the_next_favourite_weekday(weekday, day):
    user = USER | {"favourite_weekday": weekday, "favourite_daypart": "evening"}
    found = only(decided(known([user], [option("u1", "news", "email", 1.0)]), rules_of({})))
    assert (found["send_date"], found["send_daypart"]) == (date(2026, 1, day), "evening")


@example_settings(max_examples=60)
@given(
    st.lists(st.tuples(some(["email", "mail"]), st.floats(0.1, 5), st.floats(0.1, 3)), min_size=1, max_size=25),
    st.one_of(st.none(), st.floats(0, 30)),
    st.one_of(st.none(), st.integers(0, 6)),
)
def test_neither_budget_nor_capacity_is_exceeded(drawn, budget, capacity):
    channels = CHANNELS.with_columns(
        capacity=pl.when(pl.col("channel") == "mail").then(pl.lit(capacity, pl.Int32)).cast(pl.Int32)
    )
    users = [USER | {"user_id": f"u{n:02}"} for n in range(len(drawn))]
    options = [
        option(f"u{n:02}", "news", channel, profit, cost=cost) for n, (channel, profit, cost) in enumerate(drawn)
    ]
    found = decided(known(users, options), rules_of({}), budget, channels).actions
    contacts = found.filter(pl.col("action") == "contact")
    rest = found.filter(pl.col("action") == "none")
    assert found.height == len(drawn)
    assert set(rest["blocked_by"]) <= {"over_budget", "over_capacity"}
    assert (rest["rule_id"] == "r0").all()
    assert rest["offer"].null_count() == rest.height
    mails = contacts.filter(pl.col("channel") == "mail").height
    if capacity is not None:
        assert mails <= capacity
    if budget is not None:
        assert contacts["contact_cost"].sum() <= budget + 1e-6
    if budget is None:
        # Only the channel that is full turns anybody away, and it turns away no more than it must.
        wanted = sum(channel == "mail" for channel, _, _ in drawn)
        assert mails == (wanted if capacity is None else min(wanted, capacity))
        assert contacts.height == len(drawn) - wanted + mails
    elif budget >= sum(cost for _, _, cost in drawn) and capacity is None:
        assert rest.is_empty()


# --- rules: what is wrong is named


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stages": "at_risk|lojal"}, "column stages: there is no 'lojal', only prospect, new"),
        ({"uplift_segments": "sleeping_dog"}, "column uplift_segments: there is no 'sleeping_dog'"),
        ({"offer": "discount_99"}, "column offer: there is no 'discount_99', only news, discount_10, best"),
        ({"channel": "pigeon"}, "column channel: there is no 'pigeon', only email, mail, best"),
        ({"product": "any"}, "column product: there is no 'any', only best, new, repeat, none"),
        ({"action": "call"}, "column action: there is no 'call', only contact, none"),
        ({"offer": None}, "column offer is empty"),
        ({"is_active": None}, "column is_active is empty"),
        ({"action": "none"}, "column offer is set, but the action is none"),
        ({"min_churn_probability": 50.0}, "column min_churn_probability: 50 is not between 0 and 1"),
        (
            {"min_churn_probability": 0.6, "max_churn_probability": 0.4},
            "column min_churn_probability: 0.6 is above max_churn_probability, 0.4",
        ),
        ({"max_value_decile": 0}, "column max_value_decile: 0 is not between 1 and 10"),
        ({"is_active": False, "stages": "lojal"}, "column stages: there is no 'lojal'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_named_with_its_row_and_column(change, told):
    with pytest.raises(LcmError) as error:
        rules_of({}, {"rule_id": "keep", **change})
    assert error.value.message.startswith(f"seeds/decisions/action_rules.csv: row keep, {told}")
    assert "dbt seed" in error.value.next_step


def test_a_priority_that_two_rules_share_is_named():
    with pytest.raises(LcmError, match="column priority: 7 is there more than once"):
        rules_of({"priority": 7}, {"priority": 7})


def test_no_active_rule_leaves_everybody_alone():
    found = only(decided(known([USER], [option("u1", "news", "email", 1.0)]), rules_of({"is_active": False})))
    assert (found["action"], found["rule_id"]) == ("none", None)


def test_a_rule_without_conditions_fits_every_user_of_a_large_shop():
    users = known([USER])
    many = pl.concat([users.users] * 100_000).with_columns(user_id=pl.int_range(pl.len()).cast(pl.String))
    found = decided(replace(users, users=many), rules_of({}))
    assert found.rules["fits"].to_list() == [100_000]


def test_stages_are_those_of_the_lifecycle():
    contract = (ROOT / "models" / "marts" / "_marts__models.yml").read_text(encoding="utf-8")
    listed = next(line for line in contract.splitlines() if "accepted_values" in line and "reactivated" in line)
    assert set(STAGES) == set(re.search(r"values: \[(.*?)\]", listed)[1].split(", "))
    assert len(charts.STAGE_COLOURS) == len(STAGES)


def test_examples_show_which_rule_is_wrong_or_untested():
    rules = rules_of({"stages": "at_risk", "min_churn_probability": 0.5}, {"action": "none", "offer": None,
                     "channel": None, "product": None, "min_profit": None}, {"stages": "loyal"})  # fmt: skip
    examples = pl.DataFrame(
        {
            "example": ["risky", "unscored", "mistaken"],
            "expected_rule": ["r0", "r1", "r0"],
            "stage": ["at_risk", "at_risk", "loyal"],
            "churn_probability": [0.5, None, 0.9],
            "uplift_segment": ["unknown"] * 3,
            "value_decile": [None, None, 1],
        }
    )
    tried = check_examples(rules, examples)
    assert tried["decided_by"].to_list() == ["r0", "r1", "r1"]
    assert tried["is_right"].to_list() == [True, True, False]
    assert without_example(rules, examples["expected_rule"].to_list()) == ["r2"]
    assert check_examples([], examples)["decided_by"].null_count() == 3
    with pytest.raises(LcmError, match="row risky, column stage: there is no 'lojal'"):
        check_examples(rules, examples.with_columns(stage=pl.lit("lojal")))


# --- who is held back, and the lists


def contacts(n: int) -> pl.DataFrame:
    users = [USER | {"user_id": f"u{number:04}"} for number in range(n)]
    options = [option(user["user_id"], "news", ["email", "mail"][n % 3 == 0], 1.0) for n, user in enumerate(users)]
    return decided(known(users, options), rules_of({})).actions


@example_settings(max_examples=25)
@given(st.integers(1, 120), some([0.0, 0.1, 0.5, 0.9]))
def test_the_held_back_share_is_kept_in_every_campaign(n, held):
    actions = contacts(n)
    sent = to_send(actions, OFFERS, TODAY, datetime(2026, 1, 7, 9), held)
    assert sorted(sent["user_id"]) == sorted(actions["user_id"])
    for (campaign,), own in sent.group_by("campaign_id"):
        control = own.filter(pl.col("arm") == "control")
        assert campaign == f"act-2026-01-07-r0-{own['channel'][0]}-news"
        assert abs(control.height - held * own.height) < 1
        assert control["contact_cost"].sum() == 0
    assert to_send(actions.reverse(), OFFERS, TODAY, datetime(2026, 1, 7, 9), held).equals(sent)
    lists = channel_lists(sent, pl.DataFrame(schema={"product_id": pl.String, "title": pl.String}))
    assert {user for frame in lists.values() for user in frame["user_id"]} == set(
        sent.filter(pl.col("arm") == "treatment")["user_id"]
    )


def test_all_may_not_be_held_back():
    with pytest.raises(UsageError, match="action_holdout_share is 1"):
        to_send(contacts(3), OFFERS, TODAY, datetime(2026, 1, 7), 1.0)


def test_a_spreadsheet_finds_no_formula_in_a_list():
    hostile = ["=1+1", "+49", "-1", "@SUM(A1)", "\tx", "\r=x", "plain", "a=b", None]
    frame = pl.DataFrame({"user_id": hostile, "title": hostile[::-1], "share": [-0.5] * len(hostile)})
    safe = spreadsheet_safe(frame)
    assert safe["user_id"].to_list() == [*(f"'{text}" for text in hostile[:6]), "plain", "a=b", None]
    assert safe["title"].to_list() == safe["user_id"].to_list()[::-1]
    assert safe["share"].to_list() == frame["share"].to_list()


def test_a_list_takes_the_place_of_another_whole_or_not_at_all(tmp_path: Path):
    frame = pl.DataFrame({"user_id": ["=1+1", "u1"]})
    for name in ("list.csv", "list.parquet"):
        write_file(frame, tmp_path / "new" / name)
    assert pl.read_csv(tmp_path / "new" / "list.csv")["user_id"].to_list() == ["'=1+1", "u1"]
    assert pl.read_parquet(tmp_path / "new" / "list.parquet").equals(frame)
    (warned,) = formula_warnings([frame, frame.drop("user_id")])
    assert warned.startswith("1 ids begin like a formula")
    assert formula_warnings([frame.tail(1)]) == []
    taken = tmp_path / "taken.csv"
    taken.mkdir()
    with pytest.raises(LcmError, match=r"taken\.csv"):
        write_file(frame, taken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "taken.csv"]
