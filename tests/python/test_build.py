"""`build` runs dbt: what it says of a failure, and how many models run beside each other."""

from pathlib import Path

import pytest

from lcm_ml.errors import LcmError
from lcm_ml.warehouse.build import build
from lcm_ml.warehouse.connection import connect

PROJECT = "name: small\nprofile: small\nmodel-paths: [models]\n"
OUTPUT = "{type: duckdb, path: \"{{ env_var('LCM_WAREHOUSE') }}\", threads: 3}"
PROFILES = f"small: {{target: own, outputs: {{own: {OUTPUT}}}}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dbt project of two models, the second of which reads what is not there."""
    (tmp_path / "models" / "ml").mkdir(parents=True)
    (tmp_path / "dbt_project.yml").write_text(PROJECT)
    (tmp_path / "profiles.yml").write_text(PROFILES)
    (tmp_path / "models" / "good.sql").write_text("select 1 as one")
    (tmp_path / "models" / "bad.sql").write_text("select * from missing_table")
    monkeypatch.setenv("LCM_PROJECT_DIR", str(tmp_path))
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    monkeypatch.setenv("LCM_WAREHOUSE", str(tmp_path / "lcm.duckdb"))
    monkeypatch.delenv("LCM_THREADS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def threads(project: Path) -> int:
    lines = (project / "logs" / "dbt.log").read_text().splitlines()
    told = [line for line in lines if "Concurrency:" in line][-1]
    return int(told.split("Concurrency:")[1].split()[0])


def test_a_failure_names_the_model_and_what_the_database_said(project: Path) -> None:
    with pytest.raises(LcmError) as failure:
        build(lambda *_: None, print)
    first, *reasons = failure.value.message.splitlines()
    assert first == "dbt build failed:"
    assert "Runtime Error in model bad (models/bad.sql)" in reasons[0]
    assert "missing_table" in "\n".join(reasons)
    assert "Traceback" not in failure.value.message
    assert threads(project) == 3


def test_one_model_at_a_time_where_the_warehouse_is_larger_than_memory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "models" / "bad.sql").unlink()
    with connect() as con:
        con.execute("create table numbers as select random() as x from range(1_000_000)")
    monkeypatch.setenv("LCM_MEMORY_LIMIT", "1MB")
    assert build(lambda *_: None, print)["nodes"] == 1
    assert threads(project) == 1
    monkeypatch.setenv("LCM_THREADS", "2")
    build(lambda *_: None, print)
    assert threads(project) == 3, "profiles.yml says how many"
    monkeypatch.setenv("LCM_MEMORY_LIMIT", "1GB")
    monkeypatch.delenv("LCM_THREADS")
    build(lambda *_: None, print)
    assert threads(project) == 3
