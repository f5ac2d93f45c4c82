"""Snapshots: listed, checked, rolled back, pruned; and what readers meet meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
import yaml
from click.testing import Result
from filelock import FileLock
from lifecycle import ROOT, change, lcm, query, warehouse_at
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from lcm_ml.cli.main import app
from lcm_ml.publishing import catalogue, snapshot
from lcm_ml.publishing.snapshot import RELATIONS, publish
from lcm_ml.warehouse.connection import connect


def snapshot_of(path: Path) -> str:
    """Publish without the report, which takes longer than the snapshot. Returns the id."""
    with warehouse_at(path), connect(read_only=True) as con, catalogue.publishing_lock("test", print) as folder:
        return str(publish(con, folder, None, lambda *_: None)["snapshot_id"])


@pytest.fixture(scope="module")
def three(sample: Path) -> list[str]:
    """The ids of three snapshots, oldest first."""
    return [snapshot_of(sample) for _ in range(3)]


@pytest.fixture
def shop(sample: Path, three: list[str]) -> Iterator[Path]:
    """The warehouse with exactly these three, the newest current; a test may change them."""
    published = sample.parent / "lcm.published"
    kept = sample.parent / "kept"
    if not kept.exists():
        shutil.copytree(published, kept, symlinks=True)
    yield sample
    shutil.rmtree(published)
    shutil.copytree(kept, published, symlinks=True)


def call(path: Path, *arguments: str) -> Result:
    with warehouse_at(path):
        return CliRunner().invoke(app, list(arguments))


def ids(path: Path) -> list[str]:
    return [row["snapshot_id"] for row in lcm(path, "snapshots", "list")["snapshots"]]


def current(path: Path) -> str:
    return next(row["snapshot_id"] for row in lcm(path, "snapshots", "list")["snapshots"] if row["is_current"])


def test_list_names_what_readers_see(shop: Path, three: list[str]) -> None:
    listed = lcm(shop, "snapshots", "list")["snapshots"]
    assert [row["snapshot_id"] for row in listed] == three[::-1]
    assert [row["is_current"] for row in listed] == [True, False, False]
    assert listed[0]["relations"] == len(RELATIONS)
    assert all(row["problem"] is None and row["rows"] > 0 and row["bytes"] > 0 for row in listed)


def test_an_open_reader_follows_a_rollback_and_the_way_back(shop: Path, three: list[str]) -> None:
    views = shop.parent / "lcm.published" / "lcm_published.duckdb"
    with duckdb.connect(str(views), read_only=True) as con:

        def seen() -> str:
            return str(con.execute("select distinct snapshot_id from user_profiles").fetchall()[0][0])

        assert seen() == three[2]
        assert lcm(shop, "snapshots", "rollback")["before"] == three[2]
        assert seen() == current(shop) == three[1]
        lcm(shop, "snapshots", "rollback")
        assert seen() == current(shop) == three[0]
        refused = call(shop, "snapshots", "rollback")
        assert refused.exit_code == 1
        assert "no snapshot is kept from before" in refused.output
        lcm(shop, "snapshots", "rollback", three[2])
        assert seen() == three[2]
        published = lcm(shop, "publish")["snapshot_id"]
        assert seen() == current(shop) == published


def test_a_rollback_does_not_wait_for_a_job_in_the_warehouse(shop: Path, three: list[str]) -> None:
    with FileLock(shop.with_name("lcm.duckdb.lock")), duckdb.connect(str(shop)):
        lcm(shop, "snapshots", "rollback")
    assert current(shop) == three[1]


def test_profiles_of_some_users_at_a_time_are_those_of_all(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def profiles() -> pl.DataFrame:
        return pl.read_parquet(shop.parent / "lcm.published" / "current" / "user_profiles.parquet")

    whole = profiles()
    monkeypatch.setattr(snapshot, "USERS_AT_ONCE", whole.height // 3)
    snapshot_of(shop)
    found = profiles().drop("snapshot_id").sort("user_id")
    assert found.height > 100
    assert_frame_equal(found, whole.drop("snapshot_id").sort("user_id"))


def test_views_and_columns_are_described(shop: Path) -> None:
    with duckdb.connect(str(shop.parent / "lcm.published" / "lcm_published.duckdb"), read_only=True) as con:
        views = con.execute("select view_name, comment from duckdb_views() where not internal").fetchall()
        columns = con.execute("select table_name, column_name, comment from duckdb_columns() where not internal")
        assert {name for name, _ in views} == set(RELATIONS)
        assert all(comment for _, comment in views)
        assert [row for row in columns.fetchall() if not row[2]] == []


def test_older_tools_can_open_the_views(shop: Path) -> None:
    header = (shop.parent / "lcm.published" / "lcm_published.duckdb").read_bytes()[:20]
    assert header[8:12] == b"DUCK"
    assert int.from_bytes(header[12:20], "little") == 64  # the storage version of DuckDB 1.0


def damage(shop: Path, snapshot_id: str, kind: str) -> str:
    """Returns the name of the file that was damaged."""
    folder = shop.parent / "lcm.published" / "snapshots" / snapshot_id
    path = folder / "churn_scores_latest.parquet"
    if kind == "changed":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == "missing":
        path.unlink()
    else:
        path = folder / "manifest.json"
        if kind == "no manifest":
            path.unlink()
        elif kind == "broken manifest":
            path.write_text(path.read_text()[:-40])
        else:
            path.write_text(path.read_text().replace(snapshot_id, "another"))
    return path.name


@pytest.mark.parametrize("kind", ["changed", "missing", "no manifest", "broken manifest", "another's manifest"])
def test_a_snapshot_that_is_not_what_was_published_is_refused(shop: Path, three: list[str], kind: str) -> None:
    name = damage(shop, three[1], kind)
    for command in (["rollback"], ["rollback", three[1]]):
        refused = call(shop, "snapshots", *command)
        assert refused.exit_code == 1
        assert f"{three[1]}/{name}" in refused.output
        assert "Traceback" not in refused.output
    assert current(shop) == three[2]
    checked = call(shop, "snapshots", "verify", "--json")
    assert checked.exit_code == 1
    problems = {row["snapshot_id"]: row["problem"] for row in json.loads(checked.stdout)["snapshots"]}
    assert name in problems.pop(three[1])
    assert set(problems.values()) == {None}
    if kind != "changed":
        assert name in call(shop, "snapshots", "list").output.replace("\n", "")
    assert call(shop, "snapshots", "verify", three[0]).exit_code == 0
    lcm(shop, "snapshots", "rollback", three[0])


def test_an_unknown_snapshot_is_no_path(shop: Path, three: list[str]) -> None:
    for name in ("nothing", f"../snapshots/{three[0]}", "."):
        refused = call(shop, "snapshots", "rollback", name)
        assert refused.exit_code == 1
        assert "there is no snapshot" in refused.output


def test_prune_keeps_the_newest_and_what_readers_see(shop: Path, three: list[str]) -> None:
    lcm(shop, "snapshots", "rollback", three[0])
    views = shop.parent / "lcm.published" / "lcm_published.duckdb"
    with duckdb.connect(str(views), read_only=True) as con:
        assert lcm(shop, "snapshots", "prune", "--keep", "1")["removed"] == [three[1]]
        assert con.execute("select distinct snapshot_id from user_profiles").fetchall() == [(three[0],)]
    assert ids(shop) == [three[2], three[0]]
    assert call(shop, "snapshots", "prune", "--keep", "0").exit_code == 2


@pytest.mark.slow
def test_the_setting_and_its_option_say_how_many_stay(shop: Path, three: list[str]) -> None:
    change(shop, "update meta.settings set value = '2' where name = 'kept_snapshots'")
    try:
        assert lcm(shop, "snapshots", "prune")["removed"] == [three[0]]
        newest = lcm(shop, "publish")["snapshot_id"]
        assert ids(shop) == [newest, three[2]]
        alone = lcm(shop, "publish", "--keep", "1")["snapshot_id"]
        assert ids(shop) == [alone]
    finally:
        change(shop, "update meta.settings set value = '5' where name = 'kept_snapshots'")


def test_an_older_snapshot_with_less_in_it_has_views_of_its_own(shop: Path, three: list[str]) -> None:
    folder = shop.parent / "lcm.published" / "snapshots" / three[1]
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["relations"]["alerts_latest"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "alerts_latest.parquet").unlink()
    views = shop.parent / "lcm.published" / "lcm_published.duckdb"
    names = "select view_name from duckdb_views() where not internal"
    lcm(shop, "snapshots", "rollback")
    assert {name for (name,) in query(views, names).rows()} == set(RELATIONS) - {"alerts_latest"}
    lcm(shop, "snapshots", "rollback", three[2])
    assert {name for (name,) in query(views, names).rows()} == set(RELATIONS)
    assert query(views, "select count(*) from alerts_latest").height == 1


# A publish in a process of its own that is killed at the n-th rename: of the folder, of the link.
KILLED = """
import os, pathlib, signal, sys
renames = 0
replace = pathlib.Path.replace
def killing(self, target):
    global renames
    renames += 1
    if renames == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
pathlib.Path.replace = killing
from lcm_ml.publishing import catalogue, snapshot
from lcm_ml.warehouse.connection import connect
with connect(read_only=True) as con, catalogue.publishing_lock("test", print) as folder:
    snapshot.publish(con, folder, None, lambda *_: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rename", [1, 2])
def test_a_kill_at_any_step_leaves_the_last_good_state(shop: Path, three: list[str], rename: int) -> None:
    environment = os.environ | {"LCM_WAREHOUSE": str(shop)}
    ended = subprocess.run([sys.executable, "-c", KILLED, str(rename)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    views = shop.parent / "lcm.published" / "lcm_published.duckdb"
    assert query(views, "select distinct snapshot_id from user_profiles").item() == three[2]
    assert lcm(shop, "snapshots", "verify", three[2])["snapshots"][0]["problem"] is None
    after = snapshot_of(shop)
    assert query(views, "select distinct snapshot_id from user_profiles").item() == after
    assert not list((shop.parent / "lcm.published").rglob("*.unfinished"))
    assert all(row["problem"] is None for row in lcm(shop, "snapshots", "verify")["snapshots"])


@pytest.mark.slow
def test_swaps_at_once_do_not_meet(shop: Path, three: list[str]) -> None:
    """Two processes swap as fast as they can; a reader that joins on snapshot_id finds every row's partner."""
    swap = (
        "import sys; from lcm_ml.publishing.catalogue import publishing_lock, roll_back, current_id\n"
        "for turn in range(15):\n"
        "    with publishing_lock('swap', print) as folder:\n"
        "        wanted = sys.argv[1 + turn % 2]\n"
        "        current_id(folder) == wanted or roll_back(folder, wanted)\n"
    )
    environment = os.environ | {"LCM_WAREHOUSE": str(shop)}
    swappers = [
        subprocess.Popen([sys.executable, "-c", swap, *order], env=environment) for order in (three[:2], three[:0:-1])
    ]
    views = shop.parent / "lcm.published" / "lcm_published.duckdb"
    users = query(shop, "select count(*) from serving.user_profiles").item()
    seen = set()
    with duckdb.connect(str(views), read_only=True) as con:
        while any(swapper.poll() is None for swapper in swappers):
            joined = con.execute(
                "select count(*), min(profiles.snapshot_id), max(stages.snapshot_id) from user_profiles as profiles "
                "inner join lifecycle_current as stages using (user_id, snapshot_id)"
            ).fetchall()[0]
            assert joined[0] in (0, users)  # none where a swap came between the two, and never a mixture
            if joined[0]:
                assert joined[1] == joined[2]
                seen.add(joined[1])
    assert [swapper.returncode for swapper in swappers] == [0, 0]
    assert len(seen) > 1
    assert all(row["problem"] is None for row in lcm(shop, "snapshots", "verify")["snapshots"])


@pytest.mark.slow
def test_two_publishes_wait_for_each_other(shop: Path, three: list[str]) -> None:
    environment = os.environ | {"LCM_WAREHOUSE": str(shop)}
    script = Path(sys.executable).with_name("lcm-ml")
    started = [
        subprocess.Popen([script, "publish", "--json"], env=environment, stdout=subprocess.PIPE) for _ in range(2)
    ]
    made = {json.loads(process.communicate()[0])["snapshot_id"] for process in started}
    assert len(made) == 2
    assert set(ids(shop)[:2]) == made
    assert current(shop) == max(made)


def test_nothing_published_yet(sample_build: Path, tmp_path: Path) -> None:
    path = tmp_path / "lcm.duckdb"
    shutil.copy(sample_build, path)
    assert lcm(path, "snapshots", "list")["snapshots"] == []
    for command in ("verify", "rollback"):
        refused = call(path, "snapshots", command)
        assert refused.exit_code == 1
        assert "next: lcm-ml publish" in refused.output


def test_the_exposures_are_what_is_published() -> None:
    document = yaml.safe_load((ROOT / "models/serving/_exposures.yml").read_text(encoding="utf-8"))
    exposures = {exposure["name"]: exposure for exposure in document["exposures"]}
    assert set(exposures) == {"published_snapshot", "report", "service"}
    assert exposures["published_snapshot"]["depends_on"] == [f"ref('{name}')" for name in RELATIONS]
