"""Forgetting users: nothing is left in any table or file, a reload brings nobody back, and a kill changes nothing."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest
from click.testing import Result
from lifecycle import query

from lcm_ml.privacy import keys, places, record, snapshots
from lcm_ml.privacy.forget import PENDING, forget, searching, survey
from lcm_ml.privacy.tables import is_distinctive
from lcm_ml.publishing import manifest
from lcm_ml.warehouse import contracts, writer
from lcm_ml.warehouse.connection import connect

Cli = Callable[..., Result]
GONE, STAYS, VISITOR = "customer-4711", "customer-0815", "visitor-99aa"
TIME = "2025-03-01 10:00:00"
STEPS = ("delete", "build", "publish", "files", "compact", "verify", "record")


def silent(*_: object) -> None:
    """Listens to nobody."""


def write(path: Path, *rows: dict[str, object]) -> Path:
    pl.DataFrame(rows).write_csv(path)
    return path


def shop(tmp_path: Path) -> list[object]:
    """The arguments of a load whose every table has both users; the one to be forgotten is in other rows' texts too."""
    tables: dict[str, list[dict[str, object]]] = {
        "events": [
            {"event_id": f"{user}-{n}", "user_id": user, "event_time": time, "event_type": "review", "text": text}
            for user in (GONE, STAYS, VISITOR)
            for n, (time, text) in enumerate([(TIME, "fine"), (TIME, f"as {GONE} said"), ("never", "")])
        ],
        "users": [{"user_id": user, "signed_up_at": TIME} for user in (GONE, STAYS)],
        "campaign_touches": [{"campaign_id": "c", "user_id": user, "touched_at": TIME} for user in (GONE, STAYS)],
        "support_tickets": [
            {"ticket_id": f"t-{user}", "user_id": user, "created_at": TIME, "text": "help"} for user in (GONE, STAYS)
        ],
        "identities": [{"anonymous_id": VISITOR, "user_id": GONE, "linked_at": TIME}],
    }
    arguments: list[object] = []
    for name, rows in tables.items():
        arguments += [f"--{name.replace('_', '-')}", write(tmp_path / f"{name}.csv", *rows)]
    return arguments


@pytest.fixture(autouse=True)
def no_project_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of target/ and logs/, which other tests write to meanwhile."""
    folder = tmp_path / "target"
    folder.mkdir()
    monkeypatch.setattr(places, "of_dbt", lambda: sorted(folder.iterdir()))
    return folder


@pytest.fixture
def loaded(cli: Cli, warehouse: Path, tmp_path: Path) -> list[object]:
    """A loaded shop with scores, intents of tickets, an older snapshot, an export and a report. Gives the load."""
    arguments = shop(tmp_path)
    assert cli("load", "files", *arguments).exit_code == 0
    ml = contracts.tables("ml")
    with connect() as con:
        writer.ensure(con, ml)
        for user in (GONE, STAYS, VISITOR):
            con.execute("insert into ml.churn_scores (user_id, churn_probability) values (?, 0.5)", [user])
            con.execute("insert into ml.ticket_intents (ticket_id, intent) values (?, 'refund')", [f"t-{user}"])
            con.execute("insert into ml.model_runs (run_id, message) values (?, ?)", [user[:3], f"failed at {user}"])
    snapshot = warehouse.with_name("lcm.published") / "snapshots" / "20250301T000000-abc"
    snapshot.mkdir(parents=True)
    path = snapshot / "user_profiles.parquet"
    rows = f"(values ('{GONE}', 1), ('{STAYS}', 2), ('{VISITOR}', 3)) as t (user_id, orders)"
    duckdb.execute(f"copy (from {rows}) to '{path}' (format parquet)")
    relation = {"rows": 3, "sha256": manifest.digest(path), "columns": ["user_id", "orders"]}
    manifest.write(snapshot, {"snapshot_id": snapshot.name, "relations": {"user_profiles": relation}})
    (snapshot.parents[1] / "card.html").write_text(f"<h1>{GONE}</h1>")
    exports = warehouse.with_name("lcm.exports")
    exports.mkdir()
    write(exports / "treated.csv", {"user_id": GONE, "arm": "a"}, {"user_id": STAYS, "arm": "b"})
    (exports / "notes.txt").write_text(f"call {VISITOR} and {STAYS}")
    return arguments


def everything(warehouse: Path) -> bytes:
    """All bytes beside the warehouse, its rows as text, and those of Parquet files."""
    found = b"".join(path.read_bytes() for path in warehouse.parent.rglob("*") if path.is_file())
    with duckdb.connect(str(warehouse), read_only=True) as con:
        for (name,) in con.execute("select schema_name || '.' || table_name from duckdb_tables()").fetchall():
            found += repr(con.execute(f"select * from {name}").fetchall()).encode()
        for path in warehouse.parent.rglob("*.parquet"):
            found += repr(con.execute("select * from read_parquet(?)", [str(path)]).fetchall()).encode()
    return found


def assert_forgotten(cli: Cli, warehouse: Path) -> None:
    found = cli("forget", GONE, "--verify", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["found"] == []
    content = everything(warehouse)
    assert GONE.encode() not in content
    assert VISITOR.encode() not in content
    assert STAYS.encode() in content
    assert cli("forget", "--check-record").exit_code == 0
    assert not (keys.folder() / PENDING).exists()


def test_nothing_is_left(cli: Cli, warehouse: Path, loaded: list[object]) -> None:
    before = cli("forget", GONE, "--verify")
    assert before.exit_code == 1
    assert "raw.events" in before.output
    planned = json.loads(cli("forget", GONE, "--dry-run", "--json").stdout)
    assert GONE.encode() in everything(warehouse)
    result = cli("forget", GONE, "--yes", "--json")
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout)
    assert done["rows"] == planned["rows"]
    assert (done["users"], done["visitors"]) == (1, 1)
    expected = {
        "raw.events": 4, "raw.rejected_rows": 2, "raw.users": 1, "raw.campaign_touches": 1, "raw.support_tickets": 1,
        "raw.identities": 1, "ml.churn_scores": 2, "ml.ticket_intents": 1,
    }  # fmt: skip
    assert {name: n for name, n in done["rows"].items() if name in expected} == expected
    assert {Path(path).name: outcome for path, outcome in done["outcomes"].items() if "/lcm." in path} == {
        "card.html": "removed", "treated.csv": "rewritten", "notes.txt": "masked",
    }  # fmt: skip
    assert_forgotten(cli, warehouse)
    # What others wrote stays, with a mask where it named the user.
    events = query(warehouse, "select event_id, text from raw.events order by 1").rows()
    assert events == [(f"{STAYS}-0", "fine"), (f"{STAYS}-1", "as (forgotten) said")]
    files = query(warehouse, "select * from raw.load_files where table_name = 'events'").row(0, named=True)
    assert (files["rows_in"], files["rows_loaded"], files["rows_rejected"], files["rows_suppressed"]) == (9, 2, 1, 6)
    snapshot = next((warehouse.with_name("lcm.published") / "snapshots").iterdir())
    checked = manifest.check(snapshot)
    assert checked["relations"]["user_profiles"]["rows"] == 1
    assert "rewritten_at" in checked
    for path in keys.folder().iterdir():
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_reload_brings_nobody_back(cli: Cli, warehouse: Path, loaded: list[object], tmp_path: Path) -> None:
    assert cli("forget", GONE, "--yes").exit_code == 0
    for append in ([], ["--append"]):
        again = json.loads(cli("load", "files", *loaded, *append, "--json").stdout)
        assert not append or again["load_id"] is None
        # Nobody can tell from a hash that another user's text names the forgotten one: that is looked for by id.
        found = json.loads(cli("forget", GONE, "--verify", "--json").stdout)["found"]
        assert found == ["raw.events.text: 1 cells of text"]
        assert VISITOR.encode() not in everything(warehouse)
    files = query(warehouse, "select * from raw.load_files where table_name = 'events'").row(0, named=True)
    assert (files["rows_in"], files["rows_loaded"], files["rows_rejected"], files["rows_suppressed"]) == (9, 2, 1, 6)
    # A visitor that turns out to be the user is the user, in the load that says so.
    late = {"event_id": "x", "user_id": "visitor-late", "event_time": TIME, "event_type": "view"}
    link = {"anonymous_id": "visitor-late", "user_id": f" {GONE} ", "linked_at": TIME}
    more = ["--events", write(tmp_path / "more.csv", late), "--identities", write(tmp_path / "link.csv", link)]
    assert json.loads(cli("load", "files", *more, "--append", "--json").stdout)["rows_suppressed"] == 2
    assert b"visitor-late" not in everything(warehouse)


def test_a_load_without_the_key_is_refused(cli: Cli, warehouse: Path, loaded: list[object]) -> None:
    assert cli("forget", GONE, "--yes").exit_code == 0
    (keys.folder() / "key").unlink()
    result = cli("load", "files", *loaded)
    assert result.exit_code == 1
    assert keys.KEY_VARIABLE in result.output
    assert query(warehouse, "select count(*) from raw.events").item() == 2


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_pass_that_was_killed_goes_on(cli: Cli, warehouse: Path, loaded: list[object], step: str) -> None:
    def kill(what: str, _: float) -> None:
        if what == step:
            raise KeyboardInterrupt

    plan = survey([GONE], silent, silent)
    with pytest.raises(KeyboardInterrupt):
        forget(plan, kill, silent)
    assert (keys.folder() / PENDING).exists()
    assert cli("forget", GONE, "--yes").exit_code == 0
    assert_forgotten(cli, warehouse)
    assert record.entries()[-1]["rows"] == plan.rows


@pytest.mark.slow
def test_a_snapshot_is_old_or_new_whenever_it_is_killed(
    cli: Cli, warehouse: Path, loaded: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each of its renames in turn: the next pass finishes, and the checksums are right."""
    published = warehouse.with_name("lcm.published")
    snapshot = next((published / "snapshots").iterdir())
    rename = Path.replace
    for allowed in (0, 1, 1):
        left = iter(range(allowed))

        def limited(self: Path, target: Path, left: object = left) -> Path:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", limited)
        with searching([GONE, VISITOR], keys.keyed_hash(create=True)) as search, pytest.raises(KeyboardInterrupt):
            snapshots.rewrite(search, published, silent)
        monkeypatch.setattr(Path, "replace", rename)
    with searching([GONE, VISITOR], keys.keyed_hash()) as search:
        assert snapshots.rewrite(search, published, silent) == [snapshot.name]
        assert snapshots.rewrite(search, published, silent) == []
    assert manifest.check(snapshot)["relations"]["user_profiles"]["rows"] == 1
    assert [path.name for path in snapshot.glob(".*")] == []


@pytest.mark.slow
def test_twice_unknown_and_wrong_use(cli: Cli, warehouse: Path, loaded: list[object], tmp_path: Path) -> None:
    unknown = cli("forget", "customer-0000", "--yes")
    assert unknown.exit_code == 1
    assert "no table has" in unknown.output
    assert record.entries() == []
    assert cli("forget", "--yes").exit_code == 2
    assert cli("forget", GONE).exit_code == 2
    assert GONE.encode() in everything(warehouse)
    several = tmp_path / "list.txt"
    several.write_text(f"{GONE}\n\ncustomer-0000\n{GONE}\n")
    assert cli("forget", "--file", several, "--yes").exit_code == 1
    assert cli("forget", "--file", several, "--yes", "--allow-unknown").exit_code == 0
    assert len(record.entries()) == 1
    assert_forgotten(cli, warehouse)
    # On the list already: nothing to do is no error.
    assert cli("forget", GONE, "--yes").exit_code == 0
    assert [entry["sequence"] for entry in record.entries()] == [1, 2]
    assert cli("forget", "--check-record").exit_code == 0


@pytest.mark.slow
def test_a_changed_record_shows(cli: Cli, warehouse: Path, loaded: list[object]) -> None:
    assert cli("forget", GONE, "--yes").exit_code == 0
    assert cli("forget", STAYS, "--yes").exit_code == 0
    path = keys.folder() / record.NAME
    lines = path.read_text().splitlines()
    assert GONE not in path.read_text()
    changed = [
        [lines[0].replace('"files": 3', '"files": 4'), lines[1]],
        [lines[1]],
        [lines[1], lines[0]],
        [lines[0]],
        [],
        [lines[0][:-9], lines[1]],
    ]
    for wrong in changed:
        assert wrong != lines
        path.write_text("".join(f"{line}\n" for line in wrong))
        assert cli("forget", "--check-record").exit_code == 1, wrong
        assert cli("forget", GONE, "--verify").exit_code == 1
    path.write_text("\n".join(lines) + "\n")
    assert cli("forget", "--check-record").exit_code == 0


@pytest.mark.slow
def test_a_restored_backup_is_found_and_forgotten_again(cli: Cli, warehouse: Path, loaded: list[object]) -> None:
    backups = warehouse.with_name("lcm.backups")
    backups.mkdir()
    archive = backups / "lcm.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(warehouse, "warehouse.duckdb")
    kept = warehouse.read_bytes()
    result = cli("forget", GONE, "--yes", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["left"] == [str(archive)]
    archive.unlink()
    assert_forgotten(cli, warehouse)
    warehouse.write_bytes(kept)
    # The record is not in the backup, so a load knows even now.
    assert cli("forget", GONE, "--verify").exit_code == 1
    assert cli("forget", "--again", "--yes").exit_code == 0
    assert_forgotten(cli, warehouse)


def test_a_short_id_is_looked_for_in_columns_of_users_alone(cli: Cli, warehouse: Path, tmp_path: Path) -> None:
    assert not is_distinctive("150")
    events = [
        {"event_id": f"e{user}", "user_id": user, "event_time": TIME, "event_type": "purchase", "order_id": "150",
         "quantity": quantity, "text": "150"}
        for user, quantity in (("150", "1"), ("151", "1"), ("152", "150 pieces"), ("150", "two"))
    ]  # fmt: skip
    assert cli("load", "files", "--events", write(tmp_path / "e.csv", *events)).exit_code == 0
    exports = warehouse.with_name("lcm.exports")
    exports.mkdir()
    write(exports / "a.csv", {"user_id": "150", "n": "1"}, {"user_id": "9", "n": "150"})
    assert cli("forget", "150", "--yes").exit_code == 0
    found = json.loads(cli("forget", "150", "--verify", "--json").stdout)
    assert (found["found"], found["short_ids"]) == ([], 1)
    assert query(warehouse, "select user_id, text from raw.events").rows() == [("151", "150")]
    assert query(warehouse, "select original from raw.rejected_rows").height == 1
    assert (exports / "a.csv").read_text().split() == ["user_id,n", "9,150"]


@pytest.mark.slow
def test_a_user_gets_all_that_is_held(cli: Cli, warehouse: Path, loaded: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = json.loads(cli("export-user", GONE, "--out", folder, "--json").stdout)
    held = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert {name: len(rows) for name, rows in held.items()} == result["rows"]
    assert {row["user_id"] for row in held["raw.events"]} == {GONE, VISITOR}
    assert result["visitors"] == [VISITOR]
    assert len(held["raw.rejected_rows"]) == 2
    assert held["ml.ticket_intents"][0]["intent"] == "refund"
    assert STAYS not in "".join(path.read_text() for path in folder.iterdir())
    index = (folder / "index.md").read_text()
    for name in result["rows"]:
        assert f"| {name}.json |" in index
    assert "One row per behaviour event" in index
    assert cli("export-user", GONE, "--out", folder).exit_code == 1
    assert cli("export-user", "nobody-here").exit_code == 1

    # The default place is beside the warehouse: forget takes it along, under a name that gives nobody away.
    assert cli("export-user", GONE).exit_code == 0
    default = places.export_folder(keys.keyed_hash(), GONE)
    assert GONE not in str(default)
    assert (default / "index.md").exists()
    assert cli("forget", GONE, "--yes").exit_code == 0
    assert not default.exists()
    assert_forgotten(cli, warehouse)
    assert cli("export-user", GONE).exit_code == 1


def test_help_has_an_example(cli: Cli) -> None:
    for name in ("forget", "export-user"):
        assert "Example" in cli(name, "--help").output
