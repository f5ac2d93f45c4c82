"""What a contact is expected to earn: the arithmetic, the noise taken off, and who may be contacted."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from lcm_ml.decisions.eligibility import eligibility
from lcm_ml.decisions.gains import Economics, effect_means, expected_gains, shrunk

ECONOMICS = Economics(margin=0.3, saved_value=40.0, success_rate=0.2)
OFFERS = pl.DataFrame(
    {
        "offer": ["news", "ten"],
        "campaign_kind": ["newsletter", "discount"],
        "discount_share": [0.0, 0.1],
        "assumed_success_rate": [0.02, None],
    }
)
CHANNELS = pl.DataFrame({"channel": ["mail", "push"], "cost_per_contact": [0.6, 0.01]})
TRIED = pl.DataFrame({"campaign_kind": ["discount"], "channel": ["push"]})
USER = {
    "user_id": "u",
    "has_purchased": True,
    "orders": 4.0,
    "amount": 200.0,
    "churn_probability": 0.5,
    "probability_alive": 0.9,
}
TYPES = {"churn_probability": pl.Float64, "probability_alive": pl.Float64}
NOTHING = pl.DataFrame(
    schema={
        "user_id": pl.String, "campaign_kind": pl.String, "outcome": pl.String, "effect": pl.Float64,
        "standard_error": pl.Float64, "baseline_probability": pl.Float64,
    }
)  # fmt: skip


def gains(user: dict[str, object] = USER, uplift: pl.DataFrame = NOTHING) -> dict[tuple[str, str], dict[str, object]]:
    found = expected_gains(pl.DataFrame([user], schema_overrides=TYPES), OFFERS, CHANNELS, uplift, TRIED, ECONOMICS)
    return {(row["offer"], row["channel"]): row for row in found.to_dicts()}


def measured(outcome: str, effect: float) -> pl.DataFrame:
    row = {
        "user_id": "u", "campaign_kind": "discount", "outcome": outcome, "effect": effect, "standard_error": 0.0,
        "baseline_probability": 0.4,
    }  # fmt: skip
    return pl.DataFrame([row])


@pytest.mark.parametrize(("outcome", "effect"), [("purchase", 0.1), ("orders", 0.1), ("spend", 5.0)])
def test_a_measured_effect_earns_its_margin_less_discount_and_contact(outcome: str, effect: float) -> None:
    """Orders are worth 50: 0.1 more of them, or 5 more spent, earn 1.5; the discount goes to 0.4 + 0.1 orders."""
    row = gains(uplift=measured(outcome, effect))["ten", "push"]
    assert row["gain_source"] == "uplift"
    assert row["discount_cost"] == pytest.approx(0.1 * 50 * 0.5)
    assert row["expected_profit"] == pytest.approx(0.3 * 5 - 2.5 - 0.01)


def test_an_effect_is_known_only_of_channels_that_were_tried() -> None:
    found = gains(uplift=measured("purchase", 0.1))
    assert ("ten", "mail") not in found
    assert found["news", "mail"]["gain_source"] == "assumed"


def test_what_nobody_measured_is_assumed() -> None:
    """The offer's own rate where it has one, else the var."""
    found = gains()
    assert found["news", "mail"]["expected_profit"] == pytest.approx(0.5 * 0.02 * 40 - 0.6)
    stays = 0.5 + 0.5 * 0.2
    assert found["ten", "push"]["expected_profit"] == pytest.approx(0.5 * 0.2 * 40 - 0.1 * 50 * stays - 0.01)
    assert found["ten", "push"]["standard_error"] is None


def test_of_who_was_not_scored_as_many_are_kept_as_are_still_there() -> None:
    lapsed = gains(USER | {"churn_probability": None})["news", "push"]
    assert lapsed["expected_profit"] == pytest.approx(0.9 * 0.02 * 40 - 0.01)
    unknown = gains(USER | {"churn_probability": None, "probability_alive": None})["news", "push"]
    assert unknown["expected_profit"] == pytest.approx(0.02 * 40 - 0.01)
    assert gains(USER | {"has_purchased": False, "orders": 0.0, "amount": 0.0}) == {}


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.2])
def test_taking_off_the_noise_comes_closer_to_the_truth(spread: float) -> None:
    rng = np.random.default_rng(1)
    truth, noise = rng.normal(0.05, spread, 4000), rng.uniform(0.02, 0.08, 4000)
    rows = pl.DataFrame(
        {"campaign_kind": "k", "effect": truth + rng.normal(0, 1, 4000) * noise, "standard_error": noise}
    )
    found = shrunk(rows, effect_means(rows))["effect"].to_numpy()
    before = np.mean((rows["effect"].to_numpy() - truth) ** 2)
    assert np.mean((found - truth) ** 2) < before
    # Nobody picks the largest effects for their noise any more: those picked are worth what they promise.
    best = np.argsort(found)[-400:]
    assert found[best].mean() == pytest.approx(truth[best].mean(), abs=0.012)


def test_each_kind_has_its_own_mean_and_one_row_stays_as_it_is() -> None:
    rows = pl.DataFrame(
        {"campaign_kind": ["a", "a", "b"], "effect": [0.1, 0.1, 0.7], "standard_error": [0.1, 0.1, 0.1]}
    )
    assert shrunk(rows, effect_means(rows))["effect"].to_list() == pytest.approx([0.1, 0.1, 0.7])


def test_consent_bots_and_pauses_forbid_contacts() -> None:
    users = pl.DataFrame(
        {
            "user_id": ["yes", "no", "never asked", "bot", "often", "lately"],
            "marketing_consent": [True, False, None, True, True, True],
            "is_suspected_bot": [False, False, False, True, False, False],
        }
    )
    channels = pl.DataFrame({"channel": ["mail", "push"], "needs_consent": [False, True], "min_days_between": [28, 2]})
    day = date(2026, 1, 29)
    contacts = pl.DataFrame(
        {
            "user_id": ["often", "lately"],
            "channel": ["sms", "mail"],
            "last_contact_date": [day, date(2026, 1, 2)],
            "contacts_28d": [4, 1],
        }
    )
    found = eligibility(users, channels, contacts, day, 4)
    assert {(row["user_id"], row["channel"]): row["blocked_by"] for row in found.to_dicts()} == {
        ("yes", "mail"): None,
        ("yes", "push"): None,
        ("no", "mail"): "no_consent",
        ("no", "push"): "no_consent",
        ("never asked", "mail"): None,
        ("never asked", "push"): "no_consent",
        ("bot", "mail"): "suspected_bot",
        ("bot", "push"): "suspected_bot",
        ("often", "mail"): "too_many_contacts",
        ("often", "push"): "too_many_contacts",
        ("lately", "mail"): "contacted_recently",
        ("lately", "push"): None,
    }
