"""Hostile names, tampered artefacts, private files and secrets: what must hold whatever somebody else wrote."""

import ast
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lifecycle import ROOT, query, warehouse_at
from mutations import HOSTILE
from rich.table import Table
from typer.main import get_command

from lcm_ml.cli import console
from lcm_ml.cli.main import app

Cli = Callable[..., Result]
SHOWN = ("'; drop table raw.events; --", "../../etc/passwd", "[/]", "\x1b[31mred", "\u202eevil", "a\nb", "50%_", "-rf")
COMMANDS = (
    ["profile"],
    ["report", "--user"],
    ["similar", "items"],
    ["similar", "users"],
    ["runs", "show"],
    ["runs", "compare"],
    ["models", "show"],
    ["models", "export"],
    ["experiment", "show"],
    ["score", "--model-version"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_hostile_argument_is_data_or_refused(sample_build: Path, command: list[str]) -> None:
    """The warehouse keeps every table, nothing is written beside it, and the terminal gets no escape sequence."""
    beside = sorted(path.name for path in sample_build.parent.iterdir())
    tables = query(sample_build, "select count(*) from duckdb_tables()").item()
    for text in SHOWN:
        # A leading dash is an option to every command line: -- says that it is not.
        arguments = [*command[:-1], f"{command[-1]}={text}"] if command[-1].startswith("--") else [*command, "--", text]
        with warehouse_at(sample_build):
            result = CliRunner().invoke(get_command(app), arguments)
        assert result.exit_code in (1, 2), (text, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit), (text, repr(result.exception))
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
    assert query(sample_build, "select count(*) from duckdb_tables()").item() == tables
    new = {path.name for path in sample_build.parent.iterdir()} - set(beside)
    assert not {name for name in new if "passwd" in name or "drop" in name}


def test_texts_of_the_shop_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with console.out.capture() as captured:
        table = Table("a")
        table.add_row("[red]x[/red] [/] :smile:")
        console.out.print(table)
        console.out.print("[link=http://x.invalid]y[/link] \x1b]8;;http://x.invalid\x07z \u202eevil")
        console.line("label", "[bold]not bold[/bold]")
    shown = captured.get()
    for kept in ("[red]x[/red] [/] :smile:", "[link=http://x.invalid]y[/link]", "[bold]not bold[/bold]"):
        assert kept in shown
    assert not set(shown) & set("\x1b\x07\u202e")
    assert all(console.visible(text).isprintable() or set(text) & set("\n\t\u200b\ufeff") for text in HOSTILE)


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_unpickles() -> None:
    """No module imports what unpickles; skops reads only after its types were looked at; numpy keeps pickle off."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}
    files = sorted((ROOT / "python_ml" / "lcm_ml").rglob("*.py"))
    assert len(files) > 100
    loads_skops = []
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & modules, path
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[0] not in modules, path
        for name, call in _calls(tree):
            assert not any(
                word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in call.keywords
            ), path
            assert not name.endswith(("read_pickle", "to_pickle")), path
            if name.endswith(("skops.io.load", "skops.io.loads")):
                assert all(ast.unparse(word.value) != "True" for word in call.keywords), path
                loads_skops.append(path.name)
    assert loads_skops == ["pipeline.py"]


def test_what_a_run_writes_is_for_its_owner_alone(sample_run: Path) -> None:
    """The fixture ran with umask 0. What the test itself put there is left out."""
    own = {"run.json", "target"}
    found = [path for path in sample_run.parent.rglob("*") if not own & set(path.relative_to(sample_run.parent).parts)]
    assert {".parquet", ".duckdb", ".html", ".json"} <= {path.suffix for path in found}
    open_to_others = [path for path in found if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert open_to_others == []


@pytest.mark.parametrize("failing", [False, True])
def test_a_secret_of_the_environment_is_nowhere(
    cli: Cli, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    marker = "s3cr3t-marker-0123456789abcdef"
    for name in ("LCM_ID_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "LCM_API_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, marker)
    events = tmp_path / "e.csv"
    time = "noon" if failing else "2025-01-01"
    events.write_text(f"event_id,user_id,event_time,event_type\ne1,u1,{time},view\n")
    said = [cli("load", "files", "--events", events, "--pseudonymise", *more) for more in ([], ["--json"])]
    said += [cli("pseudonym", "u1"), cli("status"), cli("doctor"), cli("load", "files", "--events", "none.csv")]
    assert {result.exit_code for result in said} <= {0, 1}
    assert (said[0].exit_code == 1) is failing
    assert not [result.output for result in said if marker in result.output]
    written = [path for path in warehouse.parent.rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if marker.encode() in path.read_bytes()] == []
