"""The report: what it says, that it stands alone, and that a browser draws it, on a desk, on a phone and on paper."""

import itertools
import json
import re
import shutil
import stat
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import chromium
import polars as pl
import pytest
from click.testing import Result
from lifecycle import change, lcm, query, warehouse_at
from synthetic import churn_frame
from typer.testing import CliRunner

from lcm_ml.churn.estimator import recipes
from lcm_ml.churn.model import fit_model
from lcm_ml.cli.main import app
from lcm_ml.frames.splits import split_by_date
from lcm_ml.registry import artefacts
from lcm_ml.reporting import charts
from lcm_ml.reporting.contents import GROUPS
from lcm_ml.reporting.sankey import Flow, sankey
from lcm_ml.reporting.section import listed
from lcm_ml.reporting.sections.models import with_wilson

HOSTILE = "<script>alert(1)</script>&\"'"
SVG = "{http://www.w3.org/2000/svg}"
TEST_DAY = "date '2025-11-24'"
DRAWN = 55
"""Charts in a report that lacks nothing, with one sensitive attribute."""
TOO_SMALL_FOR = {"strategy", "responses", "uplift", "uplift-overlap"}
"""Sections that the sample has too few campaign touches for; tests of their own show them filled."""
FOUND = (
    "user_values", "user_lifetime", "value_", "recommendation", "session_", "frequent_paths", "path_", "sequence_",
    "text_", "product_sentiments", "ticket_", "support_", "survival_", "purchase_", "forecast",
    "next_best_actions", "budget_",
)  # fmt: skip
"""How the tables are called that `lcm-ml run` fills with what it finds out about users."""
ABLATION = """
    insert into ml.feature_ablation by name
    select 'e' as run_id, feature_group, 'logistic' as model_name, metric, 'alone' as comparison, split,
        0.41 as value_with, 0.42 as value_without, -0.01 as difference, -0.02 as ci_low, 0.001 as ci_high, 4 as n_dates,
        3 as n_features, true as is_deciding, false as is_kept, date '2025-12-31' as as_of_date
    from (values ('interests'), ('words')) as groups(feature_group)
    cross join (values ('log_loss'), ('auc')) as metrics(metric)
    cross join (values ('choice'), ('last_date')) as splits(split)
"""
RULES = f"""
    insert into ml.association_rules by name
    select date '2025-12-31' as as_of_date, level, '["a"]' as antecedent,
        '{HOSTILE.replace("'", "''")}' || place as antecedent_names, 'b' || place as consequent,
        'lamps' as consequent_name,
        1 as antecedent_size, 40 as baskets, 0.01 as support,
        0.02 as antecedent_support, 0.1 as consequent_support, 0.5 as confidence, 0.4 as ci_low, 0.6 as ci_high,
        5.0 as lift, 1.8 as conviction, 0.008 as leverage, 0.0001 as p_value, 0.001 as q_value, 'r' as run_id
    from (values ('category'), ('product')) as levels(level) cross join range(5) as places(place)
"""
FIT, NEWER = "20260101T000000-aaaa-fit", "20260102T000000-bbbb-fit"


def report(path: Path, *arguments: str) -> Result:
    with warehouse_at(path):
        return CliRunner().invoke(app, ["report", *arguments])


@pytest.fixture(scope="module")
def built(sample: Path) -> Path:
    """The sample, built; nothing was fitted."""
    return sample


def metrics(run: str, split: str, day: str, auc: float) -> str:
    """Rows of ml.model_metrics of a champion and a baseline."""
    return f"""
        insert into ml.model_metrics by name
        select
            '{run}' as run_id, model_name, '{split}' as split, {day} as as_of_date, metric,
            value + shift as value, value + shift - 0.02 as ci_low, value + shift + 0.02 as ci_high,
            400 as n_users, 80 as n_churned
        from (values ('logistic', 0.0), ('recency', -0.1)) as models(model_name, shift)
        cross join (values ('auc', {auc}), ('log_loss', 0.4), ('accuracy', 0.8), ('majority_accuracy', 0.79))
            as figures(metric, value)
    """


def results(run: str) -> list[str]:
    """What a fit, a score, monitor and fairness leave, with names that would break out of a page."""
    name = HOSTILE.replace("'", "''")
    bins = f"""
        select '{run}' as run_id, model_name, {TEST_DAY} as as_of_date, bin, 40 as n_users,
            bin * 0.09 as mean_probability, bin * 0.09 as churn_rate
        from (values ('logistic'), ('{name}')) as models(model_name) cross join range(1, 11) as bins(bin)
    """
    return [
        f"""
        insert into ml.model_versions by name
        select 'v-' || status as model_version, 'logistic' as model_name, '{run}' as run_id, status,
            date '2025-01-06' as trained_from, {TEST_DAY} as trained_to, 28 as horizon_days, 9 as n_features,
            'v-' || status as artefact, 'hash' as artefact_hash, timestamp '2026-01-01' as created_at
        from (values ('champion'), ('challenger')) as versions(status)
        """,
        metrics(run, "test", TEST_DAY, 0.8),
        metrics(run, "fold", TEST_DAY, 0.8),
        metrics(run, "fold", "date '2025-10-27'", 0.7),
        metrics(run, "fold", "null", 0.75),
        f"insert into ml.calibration_bins by name {bins}",
        f"""
        insert into ml.lift_bins by name
        select '{run}' as run_id, model_name, {TEST_DAY} as as_of_date, decile, 40 as n_users, 0.2 as churn_rate,
            (11 - decile) / 5.5 as lift, least(1, decile * 0.15) as cumulative_gain
        from (values ('logistic'), ('recency')) as models(model_name) cross join range(1, 11) as deciles(decile)
        """,
        f"""
        insert into ml.profit_curve by name
        select '{run}' as run_id, 'logistic' as model_name, {TEST_DAY} as as_of_date, step / 20 as threshold,
            1 - step / 20 as contacted_share, 0.5 as precision, 1 - step / 20 as recall, 90 - step as expected_profit,
            100 - step as realised_profit, 80 - step as ci_low, 120 - step as ci_high, step = 4 as is_chosen
        from range(20) as steps(step)
        """,
        f"""
        insert into ml.feature_importance by name
        select '{run}' as run_id, 'logistic' as model_name, 'permutation' as method, feature, 0.01 as importance,
            0.005 as ci_low, 0.015 as ci_high, rank
        from (values ('days_since_last_purchase', 1), ('{name}', 2)) as features(feature, rank)
        """,
        f"""
        insert into ml.segment_metrics by name
        select '{run}' as run_id, 'logistic' as model_name, {TEST_DAY} as as_of_date, 'lifecycle_stage' as dimension,
            level, metric, 0.7 as value, 0.6 as ci_low, 0.8 as ci_high, 200 as n_users
        from (values ('loyal'), ('{name}')) as levels(level)
        cross join (values ('auc'), ('base_rate')) as figures(metric)
        """,
        f"""
        insert into ml.churn_scores by name
        select user_id, as_of_date, 28 as horizon_days, 'logistic' as model_name, 'v-champion' as model_version,
            '{run}' as run_id, p as churn_probability, 1 as churn_decile,
            case when p > 0.5 then 'high' else 'low' end as risk_band, true as is_served, now() as scored_at
        from (
            select user_id, as_of_date, (hash(user_id) % 97) / 97 as p
            from marts.user_features inner join marts.as_of_dates using (as_of_date)
            where is_scoring_date and is_active_buyer
        )
        """,
        f"""
        insert into ml.churn_score_reasons by name
        select user_id, as_of_date, model_version, run_id, reason_rank, feature, contribution, 'linear' as method
        from ml.churn_scores
        cross join (values (1, 'orders_total', -2.0), (2, '{name}', 1.0), (3, 'views_84d', 0.5))
            as reasons(reason_rank, feature, contribution)
        """,
        f"""
        insert into ml.fairness_metrics by name
        select '20260101-fairness' as run_id, 'logistic' as model_name, {TEST_DAY} as as_of_date, 'none' as mitigation,
            'age_band' as attribute, level, metric, 0.3 as value, 0.2 as ci_low, 0.4 as ci_high, 150 as n_users,
            false as is_suppressed, level = '(gap)' and metric = 'false_negative_rate' as is_warning
        from (values ('(all)'), ('25-34'), ('{name}'), ('(gap)')) as levels(level)
        cross join (values ('false_negative_rate'), ('false_positive_rate'), ('selection_rate')) as figures(metric)
        """,
        f"""
        insert into ml.drift_metrics by name
        select '20260101-monitor' as run_id, kind, subject, metric, value, reference, threshold, value > 1 as is_alert
        from (values
            ('feature', 'orders_total', 'psi', 0.05, 0.04, 0.1), ('feature', '{name}', 'psi', 1.2, 0.1, 0.2),
            ('volume', 'view', 'events_per_user', 3.0, 3.1, null), ('performance', '2025-11-03', 'auc', 0.8, null, null)
        ) as figures(kind, subject, metric, value, reference, threshold)
        """,
        "insert into ml.model_runs by name select '20260101-monitor' as run_id, 'monitor' as command, "
        "'ok' as status, now() as started_at",
        f"""
        insert into ml.alerts by name
        select '20260101-monitor' as run_id, severity as alert_id, {TEST_DAY} as as_of_date, severity,
            'volume' as cause, '{name}' as subject, '{name}' as message, 'lcm-ml status' as advice
        from (values ('info'), ('critical')) as severities(severity)
        """,
        f"insert into marts.data_quality select load_id, 'quarantined', '{name}', 0 from marts.data_quality limit 1",
        f"insert into marts.lifecycle_transitions select as_of_date, '{name}', to_stage, 7 "
        "from marts.lifecycle_transitions where to_stage = 'loyal'",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def filled(built: Path, sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which every table that the report reads has rows."""
    path = tmp_path_factory.mktemp("filled") / "lcm.duckdb"
    shutil.copy(built, path)
    known = query(sample_run, "select table_name as name from information_schema.tables where table_schema = 'ml'")
    copied = [name for name in known["name"] if name.startswith(FOUND)]
    change(
        path,
        f"attach '{sample_run}' as done (read_only)",
        *(f"insert into ml.{name} by name select * from done.ml.{name}" for name in copied),
        "detach done",
        *results(FIT),
        ABLATION,
        RULES,
    )
    campaign = query(path, "select min(campaign_id) from staging.stg_campaigns").item()
    lcm(path, "experiment", "analyse", "--touches", campaign)
    lcm(path, "segment", "--as-of", "2025-11-24")
    lcm(path, "segment")
    return path


@pytest.fixture(scope="module")
def written(filled: Path) -> Path:
    """Its report."""
    return Path(lcm(filled, "report")["report"])


class Outline(HTMLParser):
    """The elements of a page, and the texts by id of the section around them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._section = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""

    def handle_data(self, data: str) -> None:
        self.texts[self._section] = self.texts.get(self._section, "") + data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def test_before_a_fit_each_empty_section_names_its_command_and_draws_nothing(built: Path, tmp_path: Path) -> None:
    path = Path(lcm(built, "report", "--out", str(tmp_path / "early.html"))["report"])
    page = Outline(path)
    told = {
        section: found[1]
        for section, text in page.texts.items()
        if (found := re.search(r"Nothing to show yet: (lcm-ml [\w-]+|dbt build)", text))
    }
    assert told == {
        "survival": "lcm-ml cohorts", "coming-back": "lcm-ml cohorts", "scores": "lcm-ml score",
        "reasons": "lcm-ml score", "segments": "lcm-ml segment", "segment-moves": "lcm-ml segment",
        "value-spread": "lcm-ml value", "value-forecasts": "lcm-ml value", "funnel": "lcm-ml paths",
        "paths": "lcm-ml paths", "transitions": "lcm-ml paths", "churn": "lcm-ml paths",
        "second-purchase": "lcm-ml paths", "rules-category": "lcm-ml rules", "rules-product": "lcm-ml rules",
        "words-sentiment": "lcm-ml words", "words-topics": "lcm-ml words", "forecast-sales": "lcm-ml forecast",
        "forecast-stages": "lcm-ml forecast", "forecast-accuracy": "lcm-ml forecast",
        "support-intents": "lcm-ml support", "support-queue": "lcm-ml support",
        "budget": "lcm-ml budget", "actions": "lcm-ml act", "strategy": "lcm-ml strategy",
        "responses": "lcm-ml response", "uplift": "lcm-ml uplift", "uplift-overlap": "lcm-ml uplift",
        "recommendation-quality": "lcm-ml recommend", "recommendations": "lcm-ml recommend",
        "experiments": "lcm-ml experiment", "test": "lcm-ml fit", "folds": "lcm-ml evaluate",
        "calibration": "lcm-ml fit", "lift": "lcm-ml fit", "profit": "lcm-ml fit", "importance": "lcm-ml fit",
        "groups": "lcm-ml fit", "ablation": "lcm-ml enrich", "fairness-groups": "lcm-ml fairness",
        "alerts": "lcm-ml monitor", "drift": "lcm-ml monitor", "signs": "lcm-ml monitor",
        "realised": "lcm-ml monitor", "versions": "lcm-ml fit",
    }  # fmt: skip
    assert len(page.all("figure")) == 5
    assert "Not published yet" in page.texts[""]


def test_a_mart_of_a_later_version_is_missing_and_no_error(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(built, path)
    change(path, "drop table marts.cohort_retention")
    page = Outline(Path(lcm(path, "report")["report"]))
    assert "dbt build fills this section" in page.texts["cohorts"]


def test_every_section_has_something_to_show(written: Path) -> None:
    page = Outline(written)
    assert len(page.all("section")) == sum(len(group.makers) for group in GROUPS)
    empty = {section for section, text in page.texts.items() if "Nothing to show yet" in text}
    assert empty == TOO_SMALL_FOR
    assert len(page.all("figure")) == DRAWN


def test_the_file_needs_nothing_else(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.findall(r"\bon\w+=", re.sub(r">[^<]*<", "><", text))
    addresses = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.findall(r"url\((?!#)", text)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_names_from_the_data_stay_text(written: Path) -> None:
    """The parser would see a script element, were one let through."""
    page = Outline(written)
    assert not page.all("script")
    shown = {section for section, text in page.texts.items() if HOSTILE in text}
    assert shown >= {
        "flow", "reasons", "calibration", "importance", "groups", "fairness-groups", "alerts", "drift", "quality",
        "rules-category", "rules-product",
    }  # fmt: skip


def test_structure_for_those_who_listen(written: Path) -> None:
    page = Outline(written)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids
    anchors = [link["href"] for link in page.all("a")]
    assert anchors[0] == "#content"
    assert all(str(anchor).removeprefix("#") in ids for anchor in anchors)
    for figure in page.all("figure"):
        assert figure["role"] == "img"
        assert figure["aria-labelledby"]
        assert figure["aria-describedby"]
    order = [tag for tag, _ in page.elements if tag in ("figure", "details", "table")]
    after = [order[place + 1 : place + 3] for place, tag in enumerate(order) if tag == "figure"]
    assert after == [["details", "table"]] * len(after)
    assert page.all("html")[0]["lang"] == "en"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of #rrggbb."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast(written: Path) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", written.read_text(encoding="utf-8")))
    for letters in ("ink", "quiet", "link"):
        for paper in ("paper", "soft"):
            assert contrast(colours[letters], colours[paper]) >= 4.5, (letters, paper)
    assert contrast(colours["warn"], colours["warn-soft"]) >= 4.5
    for colour in (charts.INK, charts.QUIET):
        assert contrast(colour, "#ffffff") >= 4.5
    for colour in charts.SERIES:
        assert contrast(colour, "#ffffff") >= 3, colour
    # The light colours of the stages are told by their outline and, in the heat map, black letters lie on blue.
    for colour in charts.STAGE_COLOURS:
        assert max(contrast(colour, "#ffffff"), contrast(charts.INK, colour)) >= 3, colour
    assert contrast("#000000", "#3182BD") >= 4.5


@pytest.fixture(scope="module")
def changed(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Outline:
    """The report after a newer fit that does not serve, with rows that went missing, and without alerts."""
    path = tmp_path_factory.mktemp("changed") / "lcm.duckdb"
    shutil.copy(filled, path)
    change(
        path,
        metrics(NEWER, "test", TEST_DAY, 0.99),
        "update marts.data_quality set row_count = row_count + 1 where kind = 'kept'",
        "delete from ml.alerts",
    )
    return Outline(Path(lcm(path, "report")["report"]))


def test_a_ceiling_tells_how_much_of_what_is_possible_was_reached(filled: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(filled, path)
    change(
        path,
        f"""
        insert into ml.model_metrics by name
        select * replace ('ceiling' as model_name, case metric when 'auc' then 0.8 else 0.2 end as value)
        from ml.model_metrics where run_id = '{FIT}' and split = 'fold' and model_name = 'logistic'
        """,
    )
    page = Outline(Path(lcm(path, "report")["report"]))
    # AUC: recency 0.65, logistic 0.75, the best 0.8.
    assert "logistic went 67% of the way from recency alone to the best there is" in page.texts["folds"]


def test_figures_are_those_of_the_version_that_serves(changed: Outline) -> None:
    assert "0.800\n0.780 to 0.820" in changed.texts["test"]
    assert "0.990" not in changed.texts["test"]


def test_rows_that_do_not_add_up_are_a_warning(changed: Outline) -> None:
    assert "warning" in {attributes.get("class") for attributes in changed.all("p")}
    assert re.search(r"[\d,]+ rows in are not [\d,]+ kept", changed.texts["quality"])


def test_no_alert_is_not_the_same_as_no_monitoring(changed: Outline) -> None:
    assert "no alerts" in changed.texts["alerts"]


def test_what_is_said_is_what_the_tables_hold(filled: Path, written: Path) -> None:
    page = Outline(written)
    high = query(filled, "select count(*) from serving.churn_scores_latest where risk_band = 'high'").item()
    # The first reason by size lowers the risk: the one that counts is the first that raises it.
    assert f"The first reason of 100% of {high} users at high risk: {HOSTILE}" in page.texts["reasons"]
    # 1 of 2 features is beyond its limit, 10 of 10 groups are right, the threshold is that of step 4.
    assert f"1 of 2 figures are beyond the limit: {HOSTILE}" in page.texts["drift"]
    assert "in 10 of 10 groups" in page.texts["calibration"]
    assert "At the threshold 20.0%" in page.texts["profit"]
    assert "age_band: the groups differ in churners missed by 30.0% (20.0% to 40.0%)" in page.texts["fairness-groups"]
    assert "1 alert is critical" in page.texts["alerts"]
    alerts = page.texts["alerts"]
    assert alerts.rindex("critical") < alerts.rindex("info")
    totals = dict(
        query(filled, "select kind, sum(row_count)::bigint from marts.data_quality group by kind").iter_rows()
    )
    assert (
        f"{totals['rows_in']:,} rows in = {totals['kept']:,} kept + {totals['duplicate']:,} duplicates + "
        f"{totals['quarantined']:,} quarantined."
    ) in page.texts["quality"]
    first = query(
        filled,
        "select sum(buyers) / sum(cohort_users) from marts.cohort_retention "
        "where period = 1 and acquisition_channel = '(all)'",
    ).item()
    assert f"{first:.0%} of the users of these cohorts bought again in days 28 to 55" in page.texts["cohorts"]


def test_wilson_interval() -> None:
    bins = pl.DataFrame({"churn_rate": [0.0, 0.5, 1.0], "n_users": [10, 10, 10]})
    found = with_wilson(bins)
    # Newcombe (1998): 0 of 10 gives 0 to 0.2775, 5 of 10 gives 0.2366 to 0.7634.
    assert found["ci_low"].to_list() == pytest.approx([0, 0.2366, 0.7225], abs=1e-4)
    assert found["ci_high"].to_list() == pytest.approx([0.2775, 0.7634, 1], abs=1e-4)


def heights(svg: str) -> dict[str, float]:
    """What each node is called, and its height."""
    nodes = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return {str(node.findtext(f"{SVG}title")): float(node.attrib["height"]) for node in nodes}


def test_a_sankey_is_to_scale_and_shows_every_flow() -> None:
    flows = [Flow(0, "active", "active", 300), Flow(0, "active", "churned", 100), Flow(0, "unseen", "new", 200)]
    drawn = sankey(["May", "June"], flows).wide
    found = heights(drawn)
    assert set(found) == {
        "active: 400 users", "unseen: 200 users", "active: 300 users", "churned: 100 users", "new: 200 users",
    }  # fmt: skip
    per_user = {height / int(name.split()[1]) for name, height in found.items()}
    assert max(per_user) == pytest.approx(min(per_user), rel=0.01)
    paths = ElementTree.fromstring(drawn).iter(f"{SVG}path")
    ribbons = {str(path.findtext(f"{SVG}title")): path.attrib["d"] for path in paths}
    thick = {name: float(re.findall(r"v([\d.]+)C", d)[0]) for name, d in ribbons.items()}
    assert thick["300 users: active to active, May to June"] == pytest.approx(300 * max(per_user), rel=0.01)
    assert thick["100 users: active to churned, May to June"] == pytest.approx(100 * max(per_user), rel=0.01)
    assert len(ribbons) == 3


def test_a_sankey_fits_its_drawing_escapes_and_is_shorter_on_a_phone() -> None:
    flows = [Flow(step, HOSTILE, stage, 50) for step in range(3) for stage in (HOSTILE, "loyal")]
    flows += [Flow(0, "loyal", "dormant", 0), Flow(2, "loyal", "loyal", 50)]
    drawing = sankey([HOSTILE, "b", "c", "d"], flows, height=300)
    for svg in (drawing.wide, drawing.narrow):
        picture = ElementTree.fromstring(svg)
        assert all(float(box.attrib["y"]) + float(box.attrib["height"]) <= 300 for box in picture.iter(f"{SVG}rect"))
        assert HOSTILE in {title.text.split(":")[0] for title in picture.iter(f"{SVG}title") if title.text}
        assert "dormant" not in svg
    assert HOSTILE in [text.text for text in ElementTree.fromstring(drawing.wide).iter(f"{SVG}text")]
    for svg, columns in ((drawing.wide, 4), (drawing.narrow, 3)):
        assert len({box.attrib["x"] for box in ElementTree.fromstring(svg).iter(f"{SVG}rect")}) == columns


def test_ids_of_drawings_never_meet() -> None:
    one = charts.scoped('<svg ><clipPath id="clip0"/><g clip-path="url(#clip0)"/></svg>')
    other = charts.scoped('<svg ><clipPath id="clip0"/><g clip-path="url(#clip0)" fill="red"/></svg>')
    ids = [re.findall(r'id="([^"]+)"', svg)[0] for svg in (one, other)]
    assert ids[0] != ids[1]
    assert f"url(#{ids[0]})" in one


def test_a_long_list_reads_as_a_sentence() -> None:
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_each_version_has_its_card_and_a_broken_one_stops_nothing(filled: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(filled, path)
    frame = churn_frame(dates=4)
    fitted = fit_model(recipes(["logistic"], {})[0], frame, split_by_date(frame.dates(), 28), 5)
    with warehouse_at(path):
        facts = {"test_date": "2025-11-24", "data_fingerprint": "f" * 64, "test_metrics": {}}
        saved = artefacts.save(fitted.model, "v-champion", facts)
    change(
        path,
        f"update ml.model_versions set artefact_hash = '{saved.artefact_hash}' where model_version = 'v-champion'",
    )
    result = lcm(path, "report")
    assert [Path(card).name for card in result["model_cards"]] == ["v-champion.md"]
    card = Path(result["model_cards"][0])
    assert card.parent == Path(result["report"]).parent / "model_cards"
    assert card.read_text().startswith("# Model card: v-champion")
    assert stat.S_IMODE(card.stat().st_mode) == 0o600
    assert "v-challenger" in Outline(Path(result["report"])).texts["versions"]


def test_the_command(filled: Path, tmp_path: Path) -> None:
    nothing = report(tmp_path / "none.duckdb")
    assert nothing.exit_code == 1
    assert "there is no warehouse" in nothing.output
    target = tmp_path / "deep" / "my report.html"
    done = report(filled, "--out", str(target), "--json")
    assert json.loads(done.stdout)["report"] == str(target)
    assert {path.name for path in target.parent.iterdir()} == {"my report.html", "model_cards"}
    assert report(filled, "--out", str(filled / "below a file.html")).exit_code == 1


needs_browser = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium: install chromium, or set CHROMIUM to one"
)

# Of each figure: the size of the drawing that is shown, how many marks have an extent, and its smallest letters.
FIGURES = """
    [...document.querySelectorAll('figure')].map(figure => {
        const shown = [...figure.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width > 0);
        const size = shown[0].getBoundingClientRect();
        const scale = size.width / shown[0].viewBox.baseVal.width;
        const marks = [...shown[0].querySelectorAll('path, rect, line')].map(mark => mark.getBoundingClientRect());
        const letters = [...shown[0].querySelectorAll('text')].filter(text => text.textContent);
        return {
            shown: shown.length, width: size.width, height: size.height, right: size.right,
            marks: marks.filter(box => box.width > 3 || box.height > 3).length,
            letters: Math.min(...letters.map(text => parseFloat(getComputedStyle(text).fontSize))) * scale,
        };
    })
"""


@pytest.fixture
def browser() -> Iterator[chromium.Page]:
    with chromium.page() as page:
        yield page


def problems(page: chromium.Page) -> list[object]:
    """What the browser complained of: console, exceptions, failed loads."""
    told = [event for event in page.told("Runtime.consoleAPICalled") if event["type"] in ("error", "warning")]
    return [*told, *page.told("Runtime.exceptionThrown"), *page.told("Log.entryAdded")]


@needs_browser
@pytest.mark.parametrize("width", [1100, 700, 360, 320])
def test_a_browser_draws_every_chart_at_any_width(written: Path, browser: chromium.Page, width: int) -> None:
    browser.open(written, width)
    assert problems(browser) == []
    asked = [event["request"]["url"] for event in browser.told("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:")] == [written.resolve().as_uri()]
    figures = browser.evaluate(FIGURES)
    assert len(figures) == DRAWN
    for figure in figures:
        assert figure["shown"] == 1
        assert figure["width"] >= 0.8 * min(width, 680) - 40
        assert figure["height"] > 50
        assert figure["right"] <= width
        assert figure["marks"] >= 2
        assert figure["letters"] >= 9
    # The page never moves sideways, with all tables open; they move inside their boxes.
    browser.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    boxes = browser.evaluate(
        "[...document.querySelectorAll('.scroll')].map(box => [box.scrollWidth > box.clientWidth, box.tabIndex])"
    )
    assert all(tab == 0 for _, tab in boxes)
    assert width > 360 or any(wide for wide, _ in boxes)


@needs_browser
def test_the_probe_of_the_browser_can_fail(tmp_path: Path, browser: chromium.Page) -> None:
    """An empty drawing, an address and a script error are all seen."""
    page = tmp_path / "broken.html"
    page.write_text(
        '<figure><svg width="300" height="100" viewBox="0 0 300 100"></svg></figure>'
        '<img src="http://example.invalid/x.png"><script>undefined.x</script>'
    )
    browser.open(page, 1100)
    assert problems(browser)
    assert len(browser.told("Network.requestWillBeSent")) == 2
    assert browser.evaluate(FIGURES)[0]["marks"] == 0


@needs_browser
def test_the_keyboard_reaches_the_report_and_opens_its_tables(written: Path, browser: chromium.Page) -> None:
    browser.open(written, 1100)
    browser.press("Tab")
    focused = "document.activeElement"
    assert browser.evaluate(f"{focused}.textContent") == "Skip to the report"
    assert browser.evaluate(f"{focused}.getBoundingClientRect().left") >= 0
    browser.press("Enter")
    assert browser.evaluate("location.hash") == "#content"
    for _ in range(40):
        browser.press("Tab")
        if browser.evaluate(f"{focused}.tagName") == "SUMMARY":
            break
    browser.press("Enter")
    assert browser.evaluate(f"{focused}.parentElement.open")


@needs_browser
def test_on_paper_nothing_is_cut_or_hidden_but_what_belongs_to_a_screen(written: Path, browser: chromium.Page) -> None:
    browser.open(written, 690)
    browser.call("Emulation.setEmulatedMedia", media="print")
    hidden = browser.evaluate(
        "['nav', 'details', '.skip'].map(name => document.querySelector(name).getBoundingClientRect().height)"
    )
    assert hidden == [0, 0, 0]
    assert all(figure["shown"] == 1 and figure["right"] <= 690 for figure in browser.evaluate(FIGURES))
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert 5 <= pages <= 30
