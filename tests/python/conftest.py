"""Fixtures of the tests: a built sample, a warehouse of their own, and lcm-ml as a user calls it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from filelock import FileLock
from hypothesis import settings
from lifecycle import WITHOUT_TESTS, build, lcm, warehouse_at
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.warehouse.connection import connect

# How long an example takes says more about the machine than about the code.
settings.register_profile("lcm", deadline=None)
settings.load_profile("lcm")

# Files of the most processor time, which the workers of pytest-xdist begin with: one that comes last keeps one worker
# busy while the others have nothing left. What needs a whole run comes after the file that makes it.
FIRST = ("test_end_to_end", "test_point_in_time", "test_monitoring", "test_own_tables", "test_segments")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", help="a warehouse in which dbt built the sample; without it the tests build one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def sample_build(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The sample, built once for all tests; nothing was fitted. Do not change it: take `sample`."""
    given = pytestconfig.getoption("sample")
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "sample"
    folder.mkdir(exist_ok=True)
    path = folder / "lcm.duckdb"
    # The workers of pytest-xdist share it: the first one builds, the others wait.
    with FileLock(folder / "build.lock"):
        if not (folder / "done").exists():
            if given:
                shutil.copyfile(given, path)
            else:
                build(path, *WITHOUT_TESTS)
            (folder / "done").touch()
    return path


@pytest.fixture(scope="session")
def sample_run(sample_build: Path) -> Path:
    """The sample after `lcm-ml run`, once for all tests; run.json beside it is what the run said. Do not change it."""
    path = sample_build.parent / "run" / "lcm.duckdb"
    path.parent.mkdir(exist_ok=True)
    with FileLock(sample_build.with_name("run.lock")):
        if not path.with_name("run.json").exists():
            with warehouse_at(path), connect():
                pass  # so that the file is made as lcm-ml makes it
            shutil.copyfile(sample_build, path)
            before = os.umask(0)  # so that what is private is so by lcm-ml's own doing
            try:
                result = lcm(path, "run")
            finally:
                os.umask(before)
            path.with_name("run.json").write_text(json.dumps(result), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sample(sample_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the built sample for one test module, which it may change."""
    path = tmp_path_factory.mktemp("sample") / "lcm.duckdb"
    shutil.copy(sample_build, path)
    return path


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a warehouse that does not exist yet; commands use it, and wait for no lock for long."""
    path = tmp_path / "warehouse" / "lcm.duckdb"
    monkeypatch.setenv("LCM_WAREHOUSE", str(path))
    monkeypatch.setenv("LCM_LOCK_TIMEOUT", "1")
    return path


@pytest.fixture
def cli(warehouse: Path) -> Callable[..., Result]:
    """Call lcm-ml with these arguments."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call
