"""Fixtures of the command-line tests: a warehouse of their own, and lcm-ml as a user calls it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import settings
from typer.testing import CliRunner

from lcm_ml.cli.main import app

# How long an example takes says more about the machine than about the code.
settings.register_profile("lcm", deadline=None)
settings.load_profile("lcm")


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
