"""The audit finds the gaps that were put in and no others, hides small groups, and mitigations do what they say."""

import json
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import lcm, query, warehouse_at
from sklearn.metrics import roc_auc_score
from synthetic import churn_data
from typer.testing import CliRunner

from lcm_ml.churn import permutation
from lcm_ml.churn.estimator import recipes
from lcm_ml.churn.fairness import Audit, Decision, audit, measure_everybody, rate, suppressed_levels
from lcm_ml.churn.fairness_records import audit_rows
from lcm_ml.churn.metrics import Outcome, Resamples
from lcm_ml.churn.mitigation import (
    Tried,
    contacted_by,
    group_thresholds,
    measure_cost,
    mitigated,
    repeats,
    reweighed,
    reweighing_weights,
)
from lcm_ml.churn.model import fit_model
from lcm_ml.churn.profit import Costs
from lcm_ml.cli.main import app
from lcm_ml.frames.frame import make_frame
from lcm_ml.frames.splits import split_by_date
from lcm_ml.sources.simulate import SimulationConfig, simulate


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "PERMUTATIONS", 200)


def decided(y: np.ndarray, probability: np.ndarray, threshold: float = 0.3) -> Decision:
    users = np.array([f"u{i:05d}" for i in range(len(y))])
    return Decision(Outcome(users, y, probability, probability), probability > threshold)


def drawn(
    sizes: dict[str, int],
    seed: int = 0,
    risk: dict[str, float] | None = None,
    understated: dict[str, float] | None = None,
) -> tuple[Decision, pl.Series]:
    """Users in groups. `risk` shifts a group's true log-odds; `understated` what the model says, and not what is."""
    rng = np.random.default_rng(seed)
    levels = np.repeat(list(sizes), list(sizes.values()))
    z = rng.normal(-1.2, 1.2, len(levels)) + np.array([(risk or {}).get(level, 0.0) for level in levels])
    y = (rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(float)
    said = z - np.array([(understated or {}).get(level, 0.0) for level in levels])
    return decided(y, 1 / (1 + np.exp(-said))), pl.Series("group", levels)


def audited(decision: Decision, levels: pl.Series, smallest: int = 30, attributes: int = 1) -> Audit:
    draws = Resamples([decision.outcome.users], 0, 60)
    everybody = measure_everybody(decision, draws)
    return audit("group", decision, levels, draws, everybody, smallest=smallest, max_gap=0.1, attributes=attributes)


def warned(found: Audit) -> dict[str, tuple[str, str]]:
    return {gap.metric: gap.pair for gap in found.gaps if gap.is_warning}


def test_figures_and_gaps_are_those_of_fairlearn():
    fairlearn = pytest.importorskip("fairlearn.metrics")
    decision, levels = drawn({"a": 150, "b": 400, "c": 90}, risk={"c": 0.7})
    found = audited(decision, levels)
    y = decision.outcome.y
    rates = fairlearn.MetricFrame(
        metrics={
            "base_rate": lambda y, _: y.mean(),
            "selection_rate": fairlearn.selection_rate,
            "false_positive_rate": fairlearn.false_positive_rate,
            "false_negative_rate": fairlearn.false_negative_rate,
        },
        y_true=y,
        y_pred=decision.contacted.astype(float),
        sensitive_features=levels.to_numpy(),
    )
    probabilities = fairlearn.MetricFrame(
        metrics={
            "auc": roc_auc_score,
            "mean_probability": fairlearn.mean_prediction,
            "calibration_in_the_large": lambda y, p: p.mean() - y.mean(),
        },
        y_true=y,
        y_pred=decision.outcome.probability,
        sensitive_features=levels.to_numpy(),
    )
    gaps = {gap.metric: gap.difference.value for gap in found.gaps}
    for reference in (rates, probabilities):
        for metric in reference.overall.index:
            assert found.everybody.figures[metric].value == pytest.approx(reference.overall[metric])
            for group in found.groups:
                assert group.figures[metric].value == pytest.approx(reference.by_group.loc[group.level, metric])
            assert gaps[metric] == pytest.approx(reference.difference()[metric])


def test_a_rate_of_nothing_is_not_certain():
    none = rate(np.zeros(42, dtype=bool))
    assert none.value == none.low == 0
    assert none.high == pytest.approx(0.0838, abs=1e-3)
    assert np.isnan(rate(np.ones(4, dtype=bool)).value)
    # Newcombe 1998, table II, example (a): 56/70 less 48/80, method 10.
    found = rate(np.arange(70) < 56).minus(rate(np.arange(80) < 48))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 80), min_size=1), st.integers(0, 60))
def test_what_is_hidden_does_not_follow_from_what_is_shown(sizes, unknown):
    hidden = suppressed_levels(sizes, unknown, 30)
    assert {level for level, size in sizes.items() if size < 30} <= hidden
    if hidden and hidden != set(sizes):
        assert sum(sizes[level] for level in hidden) + unknown >= 30
    if all(size >= 30 for size in sizes.values()):
        assert not hidden


def test_small_groups_are_suppressed_and_told_by_nothing():
    decision, levels = drawn({"a": 300, "b": 200, "c": 100, "tiny": 12})
    found = audited(decision, levels)
    shown = {group.level: group for group in found.groups}
    assert [level for level, group in shown.items() if not group.figures] == ["c", "tiny"]
    rows = pl.DataFrame(audit_rows(found, "none", "run", "model", date(2025, 1, 1)), infer_schema_length=None)
    hidden = rows.filter("is_suppressed")
    assert set(hidden["level"]) == {"c", "tiny"}
    assert hidden.select("value", "ci_low", "ci_high", "n_churned").null_count().row(0) == (hidden.height,) * 4
    assert not {gap.high for gap in found.gaps} & {"c", "tiny"}
    # With enough users whose value is not known, the total tells nothing of the smallest.
    few = pl.DataFrame({"group": levels}).select(
        group=pl.when(pl.int_range(pl.len()) < 40).then(None).otherwise("group")
    )
    again = audited(decision, few["group"])
    assert again.unknown == 40
    assert [group.level for group in again.groups if not group.figures] == ["tiny"]


@pytest.mark.parametrize("seed", range(3))
def test_groups_that_differ_by_chance_alone_raise_no_warning(seed):
    found = audited(*drawn({"a": 40, "b": 35, "c": 60, "d": 300}, seed))
    assert max(gap.difference.value for gap in found.gaps if gap.metric == "base_rate") > 0
    assert not warned(found)


def test_another_base_rate_is_no_other_calibration_or_ranking():
    found = warned(audited(*drawn({"a": 500, "b": 400, "c": 60}, risk={"b": 1.5})))
    assert found["base_rate"][0] == "b"
    assert found["selection_rate"][0] == "b"
    assert "calibration_in_the_large" not in found
    assert "auc" not in found


def test_a_group_that_the_model_understates_is_found_and_named():
    found = audited(*drawn({"a": 500, "b": 400, "c": 300}, understated={"c": 1.2}))
    warnings = warned(found)
    assert warnings["false_negative_rate"][0] == "c"
    assert warnings["calibration_in_the_large"][1] == "c"
    assert "base_rate" not in warnings


def test_the_more_attributes_the_more_is_asked_of_each():
    decision, levels = drawn({"a": 200, "b": 150}, risk={"b": 0.8})
    alone, among = (audited(decision, levels, attributes=count) for count in (1, 6))
    p = [next(gap.p_value for gap in found.gaps if gap.metric == "base_rate") for found in (alone, among)]
    assert p[1] == pytest.approx(min(6 * p[0], 1.0))


@cache
def purchases(sensitive_effect: bool) -> tuple[Decision, pl.DataFrame]:
    """Churn after a date in a simulated shop, with a model that knows recency alone."""
    config = SimulationConfig(users=12_000, days=300, seed=5, preset="plain", sensitive_effect=sensitive_effect)
    shop = simulate(config)
    day = pl.lit(config.end_date - timedelta(days=28)).cast(pl.Datetime)
    bought = shop.tables["events"].filter(pl.col("event_type") == "purchase").select("user_id", "event_time")
    users = (
        bought.group_by("user_id")
        .agg(
            last=pl.col("event_time").filter(pl.col("event_time") < day).max(),
            again=(pl.col("event_time") >= day).any(),
        )
        .filter(pl.col("last") > day - pl.duration(days=84))
        .join(shop.tables["users"], on="user_id")
        .sort("user_id")
    )
    recency = users.select((day - pl.col("last")).dt.total_days() // 14).to_series()
    y = (~users["again"]).cast(pl.Float64)
    probability = pl.DataFrame({"r": recency, "y": y}).select(pl.col("y").mean().over("r")).to_series()
    return decided(y.to_numpy(), probability.to_numpy(), 0.5), users


@pytest.mark.parametrize("sensitive_effect", [False, True])
def test_the_simulated_truth_is_found(sensitive_effect):
    decision, users = purchases(sensitive_effect)
    by_age, by_gender = (audited(decision, users[name], attributes=2) for name in ("age_band", "gender"))
    assert len([group for group in by_gender.groups if group.figures]) > 1
    assert not warned(by_gender)
    assert ("base_rate" in warned(by_age)) == sensitive_effect
    if sensitive_effect:
        # 18 to 24 purchase half as often, 65 and over 1.6 times as often.
        rates = {group.level: group.figures["base_rate"].value for group in by_age.groups if group.figures}
        assert rates["18-24"] == max(rates.values())
        assert warned(by_age)["base_rate"][0] == "18-24"


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=200))
@settings(deadline=None)
def test_weights_make_group_and_label_independent(rows):
    # Every group has both labels, without which no weights could.
    rows = [*rows, *[(level, label) for level in "abc" for label in (True, False)]]
    levels = pl.Series([level for level, _ in rows], dtype=pl.String)
    y = np.array([float(label) for _, label in rows])
    weights = reweighing_weights(levels, y)
    known = levels.is_not_null().to_numpy()
    base = y[known].mean()
    for level in "abc":
        own = (levels == level).fill_null(False).to_numpy()
        assert weights[own] @ y[own] / weights[own].sum() == pytest.approx(base)
        assert weights[own].sum() == pytest.approx(own.sum())
    assert (weights[~known] == 1).all()

    cells = levels.fill_null("").rank("dense").cast(pl.Int64).to_numpy() * 2 + y.astype(np.int64)
    taken = repeats(weights, cells, seed=len(rows))
    assert (np.abs(taken - weights) < 1 + 1e-9).all()
    for cell in np.unique(cells):
        assert abs(taken[cells == cell].sum() - weights[cells == cell].sum()) < 1 + 1e-9
    assert (taken[~known] == 1).all()


def missed(decision: Decision, levels: pl.Series, level: str) -> float:
    own = (levels == level).to_numpy() & (decision.outcome.y > 0)
    return float((~decision.contacted[own]).mean())


def test_thresholds_of_groups_close_the_gap_in_churners_missed():
    sizes = {"a": 15_000, "b": 15_000}
    known, levels = drawn(sizes, seed=1, understated={"b": 1.2})
    test, _ = drawn(sizes, seed=2, understated={"b": 1.2})
    thresholds = group_thresholds(known.outcome, levels, 0.3)
    assert thresholds["b"] < 0.3 < thresholds["a"]
    chosen_on, after = (
        Decision(each.outcome, contacted_by(each.outcome.probability, levels, thresholds, 0.3))
        for each in (known, test)
    )
    gaps = [missed(each, levels, "b") - missed(each, levels, "a") for each in (test, chosen_on, after)]
    assert gaps[0] > 0.2
    assert abs(gaps[1]) < 0.003
    assert abs(gaps[2]) < 0.03
    assert after.contacted.mean() == pytest.approx(test.contacted.mean(), abs=0.01)
    # Thresholds move who is contacted, and not what is predicted.
    draws = Resamples([test.outcome.users], 0, 50)
    before, now = (measure_cost(decision, Costs(1, 40, 0.2), draws) for decision in (test, after))
    assert now["auc"].minus(before["auc"]).value == 0
    assert now["expected_profit"].minus(before["expected_profit"]).value < 0
    assert now["realised_profit"].value == Costs(1, 40, 0.2).profit(test.outcome.y)[after.contacted].sum()


def test_a_group_with_a_handful_of_churners_keeps_the_one_threshold():
    y, p = np.r_[np.ones(40), np.zeros(60), np.ones(4), np.zeros(96)], np.linspace(0.05, 0.95, 200)
    levels = pl.Series(["many"] * 100 + ["few"] * 90 + [None] * 10)
    assert group_thresholds(decided(y, p).outcome, levels, 0.3)["few"] == 0.3


@cache
def tried() -> tuple[Tried, Decision, pl.DataFrame]:
    """A model that never sees the group, whose members use the app more often, and so churn more often."""
    data = churn_data(dates=4, users=800)
    rng = np.random.default_rng(3)
    member = {user: rng.random() < 0.5 for user in data["user_id"].unique().sort()}
    data = data.with_columns(member=pl.col("user_id").replace_strict(member))
    app_share = pl.Series(rng.random(data.height))
    churns = pl.Series(rng.random(data.height)) < 0.6
    data = data.with_columns(
        uses_app=pl.when("member").then(app_share < 0.8).otherwise(app_share < 0.2),
        is_churned=pl.when(pl.col("member") & churns).then(True).otherwise("is_churned"),
    ).with_columns(channel=pl.when("uses_app").then(pl.lit("app")).otherwise(pl.lit("web")))
    frame = make_frame(data.drop("member"), 28)
    split = split_by_date(frame.dates(), 28)
    model = fit_model(recipes(["logistic"])[0], frame, split, 0).model
    test = frame.at(split.test)
    probability = model.predict(test.data)
    outcome = Outcome(test.data["user_id"].to_numpy(), test.labels(), probability, probability)
    groups = pl.DataFrame({"user_id": list(member), "group": ["in" if own else "out" for own in member.values()]})
    return Tried(model, frame, split.test, 0.4), Decision(outcome, probability > 0.4), groups


def levels_of(decision: Decision, groups: pl.DataFrame) -> pl.Series:
    return pl.DataFrame({"user_id": decision.outcome.users}).join(groups, on="user_id", maintain_order="left")["group"]


@pytest.mark.parametrize("kind", ["group_thresholds", "reweighing"])
def test_mitigations_narrow_the_gap_in_contacts(kind):
    start, decision, groups = tried()
    levels = levels_of(decision, groups)
    before = audited(decision, levels)
    after, thresholds = mitigated(kind, start, decision, groups, before)
    assert set(thresholds) == ({"in", "out"} if kind == "group_thresholds" else set())
    metric = "false_negative_rate" if kind == "group_thresholds" else "selection_rate"
    gaps = [
        next(gap.difference.value for gap in found.gaps if gap.metric == metric)
        for found in (before, audited(after, levels))
    ]
    assert gaps[0] > 0.2
    assert gaps[1] < gaps[0] - 0.1


def test_without_dependence_there_is_nothing_to_reweigh():
    start = tried()[0]
    train = start.frame.at(*start.model.trained_on)
    nobody = pl.Series([None] * train.data.height, dtype=pl.String)
    assert reweighed(train, nobody, 0).data.equals(train.data)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(sample: Path) -> Path:
    """The sample with a logistic champion."""
    lcm(sample, "fit", "--model", "logistic", "--folds", "1", "--resamples", "50")
    return sample


def test_the_command_writes_what_it_prints_and_hides_small_groups(fitted: Path):
    result = lcm(fitted, "fairness", "--mitigate", "group_thresholds", "--attribute", "marital_status")
    rows = query(fitted, f"select * from ml.fairness_metrics where run_id = '{result['run_id']}'")
    assert set(rows["attribute"]) == {found["attribute"] for found in result["attributes"]}
    test = query(fitted, "select avg(is_churned::int) from ml.evaluation_predictions").item()
    everybody = rows.filter((pl.col("level") == "(all)") & (pl.col("metric") == "base_rate"))
    assert everybody["value"].to_list() == pytest.approx([test] * everybody.height)

    sizes = query(
        fitted,
        "select gender, count(*) from ml.evaluation_predictions inner join staging.stg_users using (user_id) "
        "group by all",
    )
    tiny = [level for level, users in sizes.rows() if users < 30]
    assert tiny
    hidden = rows.filter(pl.col("is_suppressed"))
    assert set(tiny) < set(hidden.filter(pl.col("attribute") == "gender")["level"])
    assert hidden["value"].null_count() == hidden.height
    for level in tiny:
        group = next(g for f in result["attributes"] for g in f["groups"] if g["level"] == level)
        assert group["figures"] == {}

    for metric, cost in result["mitigation"]["costs"].items():
        stored = rows.filter((pl.col("level") == "(change)") & (pl.col("metric") == metric)).row(0, named=True)
        assert (stored["mitigation"], stored["value"]) == ("group_thresholds", cost["change"]["value"])
    assert set(rows["mitigation"]) == {"none", "group_thresholds"}
    newest = query(fitted, "select command, status from ml.model_runs order by started_at desc limit 1").row(0)
    assert newest == ("fairness", "ok")

    again = lcm(fitted, "fairness")
    assert again["attributes"] == result["attributes"]
    assert again["mitigation"] is None


def test_wrong_use_and_the_printed_table(fitted: Path):
    def call(*arguments: str):
        with warehouse_at(fitted):
            return CliRunner().invoke(app, ["fairness", *arguments])

    assert call("--mitigate", "reweighing").exit_code == 2
    unknown = call("--mitigate", "reweighing", "--attribute", "country", "--json")
    assert unknown.exit_code == 2
    assert "gender" in json.loads(unknown.stdout)["next_step"]
    shown = call("--threshold", "0.3", "--mitigate", "reweighing", "--attribute", "home_ownership")
    assert shown.exit_code == 0, shown.output
    for words in ("home_ownership with reweighing", "suppressed", "FNR", "realised profit", "docs/fairness.md"):
        assert words in shown.output
