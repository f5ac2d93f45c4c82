"""The main job on the sample, through the public commands and tables."""

import hashlib
import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import typer
import yaml
from click.testing import Result
from lifecycle import ROOT, WITHOUT_TESTS, build, change, dbt, lcm, query, warehouse_at
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.warehouse import contracts


@pytest.fixture(scope="module")
def done(sample_run: Path) -> Path:
    """A warehouse on which `lcm-ml run` ran once, on the sample seeds."""
    result = json.loads(sample_run.with_name("run.json").read_text(encoding="utf-8"))
    assert "sample" in result["built"]["source"]
    assert result["fit_because"] == "there is no champion yet"
    assert result["insights"]["failed"] == {}
    return sample_run


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    for source in done.parent.iterdir():
        if source.is_dir() and source.name != "target":
            shutil.copytree(source, tmp_path / source.name, symlinks=True)
    shutil.copy(done, tmp_path / "lcm.duckdb")
    return tmp_path / "lcm.duckdb"


def call(path: Path, *arguments: str) -> Result:
    with warehouse_at(path):
        return CliRunner().invoke(app, list(arguments))


def test_every_kind_of_dirt_in_the_sample_is_quarantined(done: Path) -> None:
    rules = set(query(done, "select distinct rule from staging.quarantined_events")["rule"])
    assert rules >= {
        "duplicate_event_id", "unreadable_event_time", "event_time_before_floor", "event_time_in_future",
        "unknown_event_type", "missing_user_id", "negative_price", "impossible_quantity", "unknown_currency",
    }  # fmt: skip
    originals = query(done, "select original from staging.quarantined_events")["original"].to_list()
    assert all(json.loads(original)["event_id"] for original in originals)


def test_scores_are_whole_and_follow_the_settings(done: Path) -> None:
    scores = query(done, "select * from serving.churn_scores_latest")
    population = query(
        done,
        "select user_id from marts.user_features inner join marts.as_of_dates using (as_of_date) "
        "where is_scoring_date and is_active_buyer",
    )
    assert set(scores["user_id"]) == set(population["user_id"])
    assert scores["churn_probability"].is_between(0, 1).all()
    assert (scores["is_predicted_churn"] == (scores["churn_probability"] > 0.5)).all()
    by_decile = scores.group_by("churn_decile").agg(pl.col("churn_probability").mean()).sort("churn_decile")
    assert by_decile["churn_decile"].to_list() == list(range(1, 11))
    assert by_decile["churn_probability"].is_sorted(descending=True)
    bands = scores.select(pl.col("risk_band"), pl.col("churn_probability").ge(0.5).alias("above")).unique()
    assert set(bands.rows()) <= {("high", True), ("medium", False), ("low", False)}


def test_metrics_stand_beside_the_baseline_with_intervals(done: Path) -> None:
    metrics = query(done, "select * from serving.model_performance where split = 'test'")
    assert set(metrics["model_name"]) == {"xgboost", "logistic", "recency", "rfm", "bg_nbd"}
    wanted = {"auc", "average_precision", "log_loss", "brier", "top_decile_lift", "accuracy", "majority_accuracy"}
    for (_,), own in metrics.group_by("model_name"):
        assert wanted <= set(own["metric"])
    auc = metrics.filter(pl.col("metric") == "auc")
    assert (auc["ci_low"] < auc["value"]).all()
    assert (auc["value"] < auc["ci_high"]).all()


def test_training_never_reaches_the_test_date(done: Path) -> None:
    versions = query(done, "select * from ml.model_versions")
    test = query(done, "select max(as_of_date) from ml.evaluation_predictions").item()
    evaluated = versions.filter(pl.col("status") == "evaluated")
    assert ((pl.Series([test] * evaluated.height) - evaluated["trained_to"]).dt.total_days() >= 28).all()
    champion = versions.filter(pl.col("status") == "champion")
    assert champion.height == 1
    assert champion["evaluated_version"][0] in evaluated["model_version"].to_list()


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(copy: Path) -> None:
    before = query(copy, "select * from ml.churn_scores").drop("run_id", "scored_at").sort("user_id")
    result = lcm(copy, "run")
    assert result["fitted"] is None
    assert result["built"]["rebuilt"] == []
    assert {"build", "score", "monitor", "publish"} <= set(result["seconds"])
    assert "fit" not in result["seconds"]
    after = query(copy, "select * from ml.churn_scores").drop("run_id", "scored_at").sort("user_id")
    assert after.equals(before)


@pytest.mark.slow
def test_two_fits_with_one_seed_score_alike(copy: Path) -> None:
    lcm(copy, "score")
    first = query(copy, "select user_id, churn_probability from serving.churn_scores_latest").sort("user_id")
    again = lcm(copy, "fit", "--seed", "0")
    assert not again["is_promoted"]
    assert "did not learn from later dates" in again["verdict"]
    lcm(copy, "models", "promote", again["version"], "--force", "--why", "the same data and seed")
    lcm(copy, "score")
    second = query(copy, "select user_id, churn_probability from serving.churn_scores_latest").sort("user_id")
    assert second.equals(first)
    versions = query(copy, "select model_version from ml.model_versions where status = 'champion'")
    assert versions.height == 1


def test_history_stays_when_another_version_scores(copy: Path) -> None:
    lcm(copy, "fit", "--model", "logistic", "--seed", "1", "--force", "--why", "to see another version serve")
    lcm(copy, "score")
    scores = query(copy, "select model_name, is_served, count(*) as n from ml.churn_scores group by all")
    assert set(scores.select("model_name", "is_served").rows()) == {("logistic", True), ("xgboost", False)}
    one_date = lcm(copy, "score", "--as-of", "2025-10-27")
    assert one_date["is_in_training_data"]
    served = query(copy, "select distinct as_of_date from serving.churn_scores_latest")
    assert served.height == 1
    assert str(served.item()) == "2025-12-31"


@pytest.mark.slow
def test_the_champion_changes_by_the_rule_or_for_a_reason(copy: Path) -> None:
    first = query(copy, "select model_version from ml.model_versions where status = 'champion'").item()
    other = lcm(copy, "fit", "--model", "logistic")
    assert other["champion_version"] == first
    refused = call(copy, "models", "promote", other["version"])
    assert refused.exit_code == 1
    assert "was not promoted" in refused.output
    assert call(copy, "models", "promote", other["version"], "--force").exit_code == 2
    lcm(copy, "models", "promote", other["version"], "--force", "--why", "the auditor wants coefficients")
    assert lcm(copy, "score")["model_version"] == other["version"]
    listed = lcm(copy, "models", "list")["versions"]
    assert [row["model_version"] for row in listed if row["status"] == "champion"] == [other["version"]]
    assert lcm(copy, "models", "rollback")["model_version"] == first
    assert call(copy, "models", "rollback").exit_code == 1
    assert call(copy, "models", "delete", first, "--yes").exit_code == 1
    lcm(copy, "models", "delete", other["version"], "--yes")
    assert not (copy.parent / "lcm.artefacts" / other["version"]).exists()
    assert call(copy, "score", "--model-version", other["version"]).exit_code == 1
    decisions = query(copy, "select action, is_forced from ml.model_promotions order by promotion_id").rows()
    assert decisions == [
        ("promote", False), ("refuse", False), ("refuse", False), ("promote", True), ("rollback", False),
        ("delete", False),
    ]  # fmt: skip


def test_a_version_tells_what_it_is(copy: Path) -> None:
    version = query(copy, "select model_version from ml.model_versions where status = 'champion'").item()
    shown = lcm(copy, "models", "show", version)
    assert shown["manifest"]["data_fingerprint"]
    assert shown["decisions"][0]["reason"] == "there is no champion yet"
    card = lcm(copy, "models", "card")["card"]
    for part in (version, "## Limits", "recency", "calibration slope", "lifecycle_stage: loyal"):
        assert part in card
    assert "nan" not in card.lower()
    evaluated = shown["evaluated_version"]
    compared = lcm(copy, "models", "compare", version, evaluated)
    assert compared["log_loss_difference"]["value"] == 0


@pytest.mark.slow
def test_dbt_full_refresh_keeps_the_ml_tables(copy: Path) -> None:
    before = query(copy, "select count(*) from ml.churn_scores").item()
    build(copy, "--full-refresh", *WITHOUT_TESTS)
    assert query(copy, "select count(*) from ml.churn_scores").item() == before > 0


def test_a_column_of_ones_own_becomes_a_feature(copy: Path) -> None:
    change(
        copy,
        "create table marts.my_features as select user_id, as_of_date, length(user_id) + orders_total as my_feature "
        "from marts.user_features",
        """update meta.settings set value = '["marts.my_features"]' where name = 'extra_feature_models'""",
    )
    lcm(copy, "fit")
    assert "my_feature" in query(copy, "select feature from ml.feature_importance")["feature"].to_list()
    lcm(copy, "score")


def test_a_feature_that_tells_the_label_is_refused(copy: Path) -> None:
    change(
        copy,
        "create table marts.my_features as select user_id, as_of_date, is_churned::int as from_the_future "
        "from marts.user_churn_labels",
        """update meta.settings set value = '["marts.my_features"]' where name = 'extra_feature_models'""",
    )
    result = call(copy, "fit")
    assert result.exit_code == 1
    assert "from_the_future" in result.output


def test_the_published_snapshot_is_read_while_the_warehouse_is_locked(done: Path) -> None:
    folder = done.parent / "lcm.published"
    views = folder / "lcm_published.duckdb"
    reader = (
        f"import duckdb; con = duckdb.connect({str(views)!r}, read_only=True); "
        "print(con.execute('select count(*), count(distinct snapshot_id) from user_profiles').fetchall()[0])"
    )
    with duckdb.connect(str(done)):
        said = subprocess.run(
            [sys.executable, "-c", reader], capture_output=True, text=True, check=True, cwd="/"
        ).stdout
    users = query(done, "select count(*) from serving.user_profiles").item()
    assert said.strip() == f"({users}, 1)"
    manifest = json.loads((folder / "current" / "manifest.json").read_text())
    for name, relation in manifest["relations"].items():
        content = (folder / "current" / f"{name}.parquet").read_bytes()
        assert hashlib.sha256(content).hexdigest() == relation["sha256"]
        assert pl.read_parquet(content).height == relation["rows"]


@pytest.mark.slow
def test_an_open_reader_sees_the_next_snapshot(copy: Path) -> None:
    folder = copy.parent / "lcm.published"
    lcm(copy, "publish")
    with duckdb.connect(str(folder / "lcm_published.duckdb"), read_only=True) as con:
        before = con.execute("select distinct snapshot_id from churn_scores_latest").fetchall()
        published = lcm(copy, "publish")
        after = con.execute("select distinct snapshot_id from churn_scores_latest").fetchall()
    assert before != after == [(published["snapshot_id"],)]


def test_nothing_of_it_can_be_read_by_others(done: Path) -> None:
    paths = [done, *(done.parent / "lcm.published").rglob("*.parquet"), *(done.parent / "lcm.artefacts").rglob("*")]
    assert len(paths) > 5
    for path in paths:
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path


def test_sensitive_attributes_stay_out_of_the_models(done: Path) -> None:
    sensitive = {
        column.name for table in contracts.raw_inputs().values() for column in table.columns if column.sensitive
    }
    assert sensitive
    features = set(query(done, "select * from marts.user_features limit 0").columns)
    used = query(done, "select feature from ml.feature_importance")["feature"].to_list()
    assert not sensitive & features
    assert not [feature for feature in used if any(name in feature for name in sensitive)]


def test_the_report_stands_alone_and_escapes(copy: Path) -> None:
    change(copy, "update marts.data_quality set rule = '<script>alert(1)</script>' where kind = 'noted'")
    lcm(copy, "publish")
    text = (copy.parent / "lcm.published" / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r"(?:src|href)=\"https?:", text)
    assert text.count("<svg") >= 4


def test_status_and_doctor(done: Path, copy: Path) -> None:
    status = lcm(done, "status")
    totals = {row["kind"]: 0 for row in status["rows"]}
    for row in status["rows"]:
        totals[row["kind"]] += row["row_count"]
    assert totals["rows_in"] == totals["kept"] + totals["duplicate"] + totals["quarantined"]
    assert {"users per lifecycle stage", "out of time", "champion", "published"} <= {
        words for words in ("users per lifecycle stage", "out of time", "champion", "published")
        if words in call(done, "status").output
    }  # fmt: skip
    assert call(done, "doctor").exit_code == 0
    change(copy, "alter table ml.churn_scores drop column churn_decile")
    broken = call(copy, "doctor")
    assert broken.exit_code == 1
    assert "ml.churn_scores.churn_decile" in broken.output


def test_a_tampered_model_is_refused(copy: Path) -> None:
    champion = query(copy, "select artefact from ml.model_versions where status = 'champion'").item()
    folder = copy.parent / "lcm.artefacts" / champion
    model = max(
        (path for path in folder.iterdir() if path.name != "manifest.json"), key=lambda path: path.stat().st_size
    )
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    result = call(copy, "score")
    assert result.exit_code == 1
    assert champion in result.output
    assert "Traceback" not in result.output


def test_a_model_in_the_place_of_another_is_refused(copy: Path) -> None:
    champion = query(copy, "select artefact from ml.model_versions where status = 'champion'").item()
    folder = copy.parent / "lcm.artefacts" / champion
    other = next(each for each in folder.parent.iterdir() if each != folder)
    swap = folder.with_name("swap")
    folder.rename(swap)
    other.rename(folder)
    swap.rename(other)
    result = call(copy, "score")
    assert result.exit_code == 1
    assert f"{champion}/manifest.json was changed" in result.output.replace("\n", "")


class Bomb:
    """Makes a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_place_of_a_model_runs_nothing(copy: Path) -> None:
    """Not even where every hash was made to fit, the warehouse's own as well."""
    champion = query(copy, "select artefact from ml.model_versions where status = 'champion'").item()
    folder = copy.parent / "lcm.artefacts" / champion
    manifest = json.loads((folder / "manifest.json").read_text())
    trap = copy.parent / "sprung"
    for name in manifest["files"]:
        if not name.endswith(".json"):
            (folder / name).write_bytes(pickle.dumps(Bomb(trap)))
            manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    told = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    change(copy, f"update ml.model_versions set artefact_hash = '{told}' where artefact = '{champion}'")
    result = call(copy, "score")
    assert result.exit_code == 1
    assert champion in result.output.replace("\n", "")
    assert "Traceback" not in result.output
    assert not trap.exists()
    pickle.loads(pickle.dumps(Bomb(trap)))
    assert trap.exists(), "the trap itself works"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("delete from marts.user_churn_labels", "label"),
        ("update marts.user_churn_labels set is_churned = false", "one class only"),
        ("delete from marts.user_churn_labels where as_of_date < date '2025-11-24'", "date"),
    ],
)
def test_data_that_allows_no_fit_is_explained(copy: Path, statement: str, words: str) -> None:
    before = query(copy, "select * from ml.model_versions order by all")
    change(copy, statement)
    result = call(copy, "fit")
    assert result.exit_code == 1
    assert words in result.output
    assert "next: " in result.output
    assert "Traceback" not in result.output
    assert query(copy, "select * from ml.model_versions order by all").equals(before)


@pytest.mark.slow
def test_dbt_docs_and_source_freshness(done: Path) -> None:
    for arguments in (["docs", "generate"], ["source", "freshness"]):
        run = dbt(done, *arguments)
        assert run.success, run.messages[-20:]


def test_every_column_is_described() -> None:
    for path in ROOT.glob("models/**/*.yml"):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = list(document.get("models", []))
        entries += [table for source in document.get("sources", []) for table in source["tables"]]
        for entry in entries:
            assert entry.get("description"), (path.name, entry["name"])
            assert entry["columns"], (path.name, entry["name"])
            for column in entry["columns"]:
                assert column.get("description"), (path.name, entry["name"], column["name"])


def test_settings_are_listed_where_they_are_recorded(done: Path) -> None:
    variables = yaml.safe_load((ROOT / "dbt_project.yml").read_text(encoding="utf-8"))["vars"]
    recorded = query(done, "select name from meta.settings")["name"].to_list()
    assert sorted(recorded) == sorted(variables)


def test_only_settings_of_sources_are_read_while_dbt_parses() -> None:
    """The tests' builds share one parsed project (lifecycle.py), whatever their other settings are."""
    parsed = [path.read_text(encoding="utf-8") for path in (ROOT / "models").rglob("*.yml")]
    for path in (ROOT / "models").rglob("*.sql"):
        parsed += re.findall(r"\{\{\s*config\(.*?\)\s*\}\}", path.read_text(encoding="utf-8"), re.DOTALL)
    names = {name for text in parsed for name in re.findall(r"var\('(\w+)'", text)}
    assert names == {"raw_database", "raw_schema", "raw_identifiers"}


def every_command(group: Any, *path: str) -> list[list[str]]:
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += every_command(command, *path, name)
        else:
            found.append([*path, name])
    return found


def test_every_command_has_an_example() -> None:
    runner = CliRunner()
    commands = every_command(typer.main.get_command(app))
    assert ["load", "files"] in commands
    assert len(commands) > 20
    for command in commands:
        result = runner.invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        assert "Example" in result.output, command
        assert "--json" in result.output, command


def test_unknown_words_exit_with_2() -> None:
    runner = CliRunner()
    for command in (
        ["fit", "--model", "oracle"],
        ["score", "--as-of", "yesterday"],
        ["bake"],
        ["simulate", "--users", "0"],
    ):
        assert runner.invoke(app, command).exit_code == 2, command


def test_the_locks_name_no_address() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert text.count("--hash=sha256:") > 100


def test_helping_is_fast_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom lcm_ml.cli.main import app\n"
        "print([m for m in ('polars', 'sklearn', 'xgboost', 'dbt', 'altair') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_prod_target_wants_its_warehouse_named(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LCM_WAREHOUSE"}
    command = [sys.executable, "-m", "dbt.cli.main", "parse", "--target", "prod", "--target-path", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "LCM_WAREHOUSE" in ended.stdout
