"""Near real time: the inbox, loading without what is broken, parts of snapshots, scores by the last limits."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from lifecycle import WITHOUT_TESTS, build, lcm, query, warehouse_at
from polars.testing import assert_frame_equal

from lcm_ml.churn.current import decile_by, full_scoring, limits_of
from lcm_ml.churn.scoring import deciles
from lcm_ml.cli.watch import seconds_of
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import make_frame, read
from lcm_ml.live.inbox import Inbox, table_of
from lcm_ml.publishing import catalogue
from lcm_ml.publishing.snapshot import may_take_over, publish
from lcm_ml.sources.files import FileOptions, load_each
from lcm_ml.warehouse import state
from lcm_ml.warehouse.connection import connect

HEADER = "event_id,user_id,event_time,event_type\n"


def write(path: Path, text: str, age: float = 0) -> Path:
    path.write_text(text, encoding="utf-8")
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    return path


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("events-1.parquet", "events"),
        ("2026-01-31.csv", "events"),
        ("users-2026.csv", "users"),
        ("Campaign-Touches.jsonl", "campaign_touches"),
        ("campaigns_1.csv", "campaigns"),
    ],
)
def test_a_name_says_its_table(name: str, table: str) -> None:
    assert table_of(name) == table


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("2m", 120), ("10", 10)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    for wrong in ("", "0s", "5 days", "-1s"):
        with pytest.raises(UsageError):
            seconds_of(wrong)


def test_files_come_when_they_are_whole_and_the_oldest_first(tmp_path: Path) -> None:
    box = Inbox(tmp_path / "inbox")
    with box.held():
        for name, age in (("b.csv", 1), ("a.csv", 2), ("c.csv.tmp", 0), ("d.csv.part", 0), (".e.csv", 0)):
            write(box.folder / name, HEADER, age)
        assert [file.path.name for file in box.arrived()] == ["a.csv", "b.csv"]
        with pytest.raises(LcmError, match="another `lcm-ml watch`"), Inbox(box.folder).held():
            pass


def test_no_file_takes_the_place_of_another(tmp_path: Path) -> None:
    box = Inbox(tmp_path / "inbox")
    with box.held():
        for content in ("1", "2"):
            write(box.folder / "a.csv", content)
            box.take_away(box.arrived())
        for content in ("3", "4"):
            write(box.folder / "a.csv", content)
            box.put_aside(box.arrived()[0], LcmError("no events", "mend it"))
        found = {str(path.relative_to(box.folder)): path.read_text() for path in box.folder.rglob("a*")}
        reason = "no events\n  next: mend it\n"
        assert found == {
            **{"done/a.csv": "1", "done/a.2.csv": "2", "failed/a.csv": "3", "failed/a.2.csv": "4"},
            **{"failed/a.csv.error": reason, "failed/a.2.csv.error": reason},
        }
        write(box.folder / "a.csv", "5")
        Inbox(box.folder, delete=True).take_away(box.arrived())
        assert box.arrived() == []
        assert len(list((box.folder / "done").iterdir())) == 2


def test_what_cannot_be_loaded_is_left_out_and_the_rest_is_one_load(warehouse: Path, tmp_path: Path) -> None:
    good = [write(tmp_path / f"{n}.csv", f"{HEADER}e{n},u1,2026-01-01 10:00:0{n},view\n") for n in (1, 2, 3)]
    headless = write(tmp_path / "headless.csv", "nothing\n1\n")
    # Found only once it is read: half a load has to be taken back.
    torn = write(tmp_path / "torn.csv", f"{HEADER}e4,u1,2026-01-01 10:00:00,view\ne5,u1\n")
    unreadable = write(tmp_path / "unreadable.csv", f"{HEADER}e6,u1,some day,view\n")
    gone = tmp_path / "gone.csv"
    files = [("events", path) for path in (good[0], headless, torn, good[1], unreadable, gone)]
    loaded, refused = load_each(files, FileOptions(), print)
    assert sorted(path.name for path in refused) == ["headless.csv", "torn.csv", "unreadable.csv"]
    assert "no column 'user_id'" in refused[headless].message
    assert loaded["rows_loaded"] == 2
    again, _ = load_each([("events", good[1]), ("events", good[2])], FileOptions(), print)
    assert (again["rows_loaded"], again["skipped"]) == (1, [str(good[1])])
    assert query(warehouse, "select event_id from raw.events order by 1")["event_id"].to_list() == ["e1", "e2", "e3"]
    assert query(warehouse, "select count(distinct load_id) from raw.loads").item() == 2
    nothing, _ = load_each([("events", good[1])], FileOptions(), print)
    assert nothing["load_id"] is None


def test_deciles_by_limits_are_those_of_the_scoring_that_made_the_limits() -> None:
    probability = np.random.default_rng(1).permutation(1000) / 1000
    users = pl.Series(f"u{n}" for n in range(1000))
    told = deciles(probability, users)
    limits = limits_of(pl.DataFrame({"churn_decile": told, "churn_probability": probability}))
    assert decile_by(limits, probability).to_list() == told.to_list()
    assert decile_by(limits, np.array([1.0, 0.9, 0.8999, 0.0999, 0.0])).to_list() == [1, 1, 2, 10, 10]
    # A scoring of a few users has no one in most deciles.
    few = limits_of(pl.DataFrame({"churn_decile": [1, 5], "churn_probability": [0.7, 0.2]}))
    assert decile_by(few, np.array([0.9, 0.5, 0.2, 0.1])).to_list() == [1, 5, 5, 10]


def snapshot(path: Path, changed: tuple[str, ...] | None, keep: int = 2) -> str:
    with warehouse_at(path), connect(read_only=True) as con, catalogue.publishing_lock("test", print) as folder:
        if changed is not None:
            assert may_take_over(con, folder)
        return str(publish(con, folder, keep, lambda *_: None, changed)["snapshot_id"])


def test_a_part_takes_files_over_and_readers_see_one_snapshot(sample: Path) -> None:
    published = sample.parent / "lcm.published"
    whole = snapshot(sample, None)
    views = str(published / "lcm_published.duckdb")
    with duckdb.connect(views, read_only=True) as con:

        def seen() -> list[tuple[str, ...]]:
            return con.execute(
                "select distinct profiles.snapshot_id, stages.snapshot_id, now.snapshot_id "
                "from user_profiles as profiles, lifecycle_current as stages, lifecycle_now as now"
            ).fetchall()

        assert seen() == [(whole, whole, whole)]
        parts = [snapshot(sample, ("lifecycle_now",)) for _ in range(4)]
        assert seen() == [(parts[-1],) * 3]
        folders = {folder.name: folder for folder in catalogue.snapshot_folders(published)}
        # Parts must not push out the whole ones.
        assert list(folders) == [whole, *parts[-2:]]
        inodes = {
            name: {(folder / f"{name}.parquet").stat().st_ino for folder in folders.values()}
            for name in ("user_profiles", "lifecycle_now")
        }
        assert (len(inodes["user_profiles"]), len(inodes["lifecycle_now"])) == (1, 3)
        with warehouse_at(sample):
            assert [row["problem"] for row in catalogue.verify()] == [None] * 3
            # A connection that is open sees each by its own name, also after a rollback.
            for name in (whole, parts[-2]):
                with catalogue.publishing_lock("test", print) as folder:
                    catalogue.roll_back(folder, name)
                assert seen() == [(name,) * 3]


def test_a_reader_between_two_swaps_never_takes_a_file_for_another_snapshots(sample: Path) -> None:
    """The stamps of a later or earlier snapshot than the file, as when a swap comes between the two reads."""
    published = sample.parent / "lcm.published"
    first = snapshot(sample, None, 9)
    second = snapshot(sample, ("lifecycle_now",), 9)
    third = snapshot(sample, ("user_profiles",), 9)
    folders = {name: published / "snapshots" / name for name in (first, second, third)}
    has = {name: json.loads((folder / "manifest.json").read_text())["relations"] for name, folder in folders.items()}
    for rows_of in folders:
        for stamps_of in folders:
            for relation in ("user_profiles", "lifecycle_now", "lifecycle_current"):
                label = duckdb.sql(
                    f"select distinct coalesce(stamp.snapshot_id, rows_of.snapshot_id) "
                    f"from '{folders[rows_of]}/{relation}.parquet' as rows_of "
                    f"left join read_csv('{folders[stamps_of]}/stamps.txt', delim = '\t', header = false, "
                    "names = ['relation', 'written_in', 'snapshot_id']) as stamp "
                    f"on stamp.relation = '{relation}' and stamp.written_in = rows_of.snapshot_id"
                ).fetchall()
                assert has[label[0][0]][relation]["sha256"] == has[rows_of][relation]["sha256"]


# A shop whose history ends with 2025, scored; files of events after it, or late ones.
CUT = "2026-01-01"
# Told by the population as it was at the last full scoring, and by where the user stood then.
BY_POPULATION = ("is_suspected_bot", "is_suspected_reseller")
SINCE_FULL_SCORING = ("previous_stage", "stage_since_date", "days_in_stage")
BY_GAP = ("stage", "typical_gap_days", "at_risk_after_days", "dormant_after_days", "churned_after_days")
SCRIPT = Path(sys.executable).with_name("lcm-ml")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated shop that is loaded, built, scored and published. Do not change it: take `shop`."""
    path = tmp_path_factory.mktemp("watched") / "lcm.duckdb"
    data = path.parent / "data"
    lcm(path, "simulate", "--users", "400", "--days", "250", "--seed", "5", "--out", str(data))
    tables = ("events", "users", "products", "campaigns", "campaign_touches", "identities")
    named = [part for name in tables for part in (f"--{name.replace('_', '-')}", str(data / f"{name}.parquet"))]
    lcm(path, "load", "files", *named)
    build(path, *WITHOUT_TESTS)
    lcm(path, "fit", "--model", "xgboost", "--folds", "1", "--resamples", "50")
    lcm(path, "score")
    lcm(path, "publish")
    return path


@pytest.fixture
def shop(scored: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    for name in scored.parent.iterdir():
        if name.name.startswith("lcm."):
            (shutil.copytree if name.is_dir() else shutil.copyfile)(name, tmp_path / name.name, **LINKS[name.is_dir()])
    return tmp_path / "lcm.duckdb"


LINKS: dict[bool, dict[str, Any]] = {True: {"symlinks": True}, False: {}}


class Files:
    """Files of events for a shop: sessions of users it knows, of new ones, and late events of days before."""

    def __init__(self, path: Path, inbox: Path) -> None:
        self.inbox = inbox
        self.event_ids: list[str] = []
        self._users = query(path, "select user_id from serving.lifecycle_current order by hash(user_id)")
        self._products = query(path, "select product_id from staging.stg_products order by 1")["product_id"].to_list()
        self._number = 0

    def write(self, day: str = CUT, users: int = 8, *, new: bool = True) -> Path:
        """One file: a visit of each of some users, every second of which buys."""
        self._number += 1
        n = self._number
        known = self._users["user_id"].to_list()
        who = [known[(n * 7 + place) % len(known)] for place in range(users)] + ([f"NEW-{n}"] if new else [])
        lines = []
        for place, user in enumerate(who):
            for step, kind in enumerate(["view", "cart", "purchase"][: 3 if place % 2 else 1]):
                self.event_ids.append(f"w{n}-{place}-{step}")
                lines.append(
                    {
                        "event_id": self.event_ids[-1],
                        "user_id": user,
                        "event_time": f"{day} {10 + n // 60:02}:{n % 60:02}:{place:02}",
                        "event_type": kind,
                        "session_id": f"ws{n}-{place}",
                        "order_id": f"wo{n}-{place}" if kind == "purchase" else None,
                        "product_id": self._products[(n + place) % len(self._products)],
                        "quantity": 1,
                        "unit_price": 10 + place,
                    }
                )
        target = self.inbox / f"events-{n:04}.jsonl"
        unfinished = target.with_name(f"{target.name}.tmp")
        unfinished.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return unfinished.rename(target)


def rebuilt(path: Path) -> Path:
    """A copy in which all is made anew of the same raw rows."""
    again = path.parent / "rebuilt" / "lcm.duckdb"
    again.parent.mkdir()
    shutil.copyfile(path, again)
    # Now as a date of the grid: everybody is computed, by the whole population.
    now = query(path, "select max(as_of_date) from marts.current_user_features").item()
    wanted = ("--select", "+user_features", "+user_lifecycle")
    build(again, "--full-refresh", *WITHOUT_TESTS, *wanted, variables={"data_end_date": str(now)})
    return again


def _own_gap(column: str) -> pl.Expr:
    return pl.when(pl.col("purchase_days") > 3).then(column).alias(column)


def assert_as_rebuilt(path: Path) -> None:
    """Features, stages and scores of the touched users are those of a full rebuild."""
    again = rebuilt(path)
    for name in ("user_features", "user_lifecycle"):
        ignored = ["as_of_ts", "load_id", *BY_POPULATION, *SINCE_FULL_SCORING]
        newest = f"where as_of_date = (select max(as_of_date) from marts.{{}}{name})"
        now = query(path, f"select * from marts.current_{name} {newest.format('current_')} order by user_id")
        then = query(again, f"select * from marts.{name} {newest.format('')} order by user_id")
        then = then.join(now.select("user_id"), on="user_id", how="semi", maintain_order="left")
        assert now.height > 4
        if name == "user_lifecycle":
            # Who has too few purchases for a gap of its own has the population's, as it was at the last full scoring.
            before = query(path, "select * from marts.user_lifecycle as l inner join marts.as_of_dates as d "
                           "on l.as_of_date = d.as_of_date where d.is_scoring_date and purchase_days <= 3")  # fmt: skip
            few = now.filter(pl.col("purchase_days") <= 3)
            assert few["typical_gap_days"].unique().to_list() == before["typical_gap_days"].unique().to_list()
            now, then = (frame.with_columns(_own_gap(name) for name in BY_GAP) for frame in (now, then))
        left, right = (frame.drop(ignored, strict=False) for frame in (now, then))
        assert_frame_equal(left, right, check_exact=False, rel_tol=1e-9, abs_tol=1e-9, check_column_order=False)
    with warehouse_at(path), connect(read_only=True) as con:
        settings = state.settings(con)
        full = full_scoring(con, settings)
        scores = read(
            con,
            "select * from ml.current_churn_scores "
            "where as_of_date = (select max(as_of_date) from marts.current_user_features) order by user_id",
        )
    rows = query(
        again,
        "select * from marts.user_features where is_active_buyer "
        "and as_of_date = (select max(as_of_date) from marts.user_features) order by user_id",
    ).join(scores.select("user_id"), on="user_id", how="semi", maintain_order="left")
    frame = make_frame(rows, full.model.horizon_days, settings["non_model_features"])
    expected = full.model.predict(frame.data)
    assert frame.data["user_id"].to_list() == scores["user_id"].to_list()
    np.testing.assert_allclose(scores["churn_probability"].to_numpy(), expected, rtol=0, atol=1e-6)
    assert scores["churn_decile"].to_list() == decile_by(full.limits, expected).to_list()


def cycles_of(path: Path, inbox: Path, *options: str) -> list[dict[str, Any]]:
    """What `lcm-ml watch --once` did, in a process of its own, as dbt's is not given back within one."""
    command = [SCRIPT, "watch", "--inbox", inbox, "--once", "--json", *options]
    environment = os.environ | {"LCM_WAREHOUSE": str(path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.slow
def test_new_events_reach_scores_reasons_and_stages_and_nobody_else_is_touched(shop: Path) -> None:
    inbox = shop.parent / "inbox"
    inbox.mkdir()
    before = query(shop, "select * from serving.churn_scores_now").sort("user_id")
    files = Files(shop, inbox)
    files.write()
    (inbox / "events-broken.csv").write_text("no such file\n")
    [cycle] = cycles_of(shop, inbox)
    assert (cycle["files"], cycle["events"], list(cycle["failed"])) == (1, 17, ["events-broken.csv"])
    assert cycle["snapshot_id"]
    touched = set(query(shop, "select distinct user_id from raw.events where event_id like 'w%'")["user_id"])
    now = query(shop, "select * from serving.churn_scores_now").sort("user_id")
    old, new = (frame.filter(~pl.col("user_id").is_in(touched)) for frame in (before, now))
    assert old.equals(new)
    moved = now.filter(pl.col("user_id").is_in(touched))
    assert moved.height > 2
    assert moved["as_of_date"].unique().to_list() == [date(2026, 1, 2)]
    assert (moved["as_of_ts"] >= datetime(2026, 1, 1)).all()
    known = moved.join(before, on="user_id", suffix="_before")
    assert known["previous_probability"].to_list() == known["churn_probability_before"].to_list()
    # Contributions add up to the log-odds, also for those whose reasons are new.
    sums = query(
        shop,
        "select scores.user_id, any_value(churn_probability) as p, sum(contribution) as told "
        "from serving.churn_scores_now as scores inner join serving.churn_reasons_now using (user_id) group by 1",
    )
    p = sums["p"].to_numpy()
    np.testing.assert_allclose(np.log(p / (1 - p)), sums["told"].to_numpy(), atol=1e-4)
    stages = query(shop, "select * from serving.lifecycle_now")
    assert stages["user_id"].is_unique().all()
    assert stages.filter(user_id="NEW-1")["stage"].to_list() == ["prospect"]
    alerts = query(shop, "select cause from serving.alerts_latest")
    assert "failed_files" in alerts["cause"]
    views = shop.parent / "lcm.published" / "lcm_published.duckdb"
    published = query(views, "select * from churn_scores_now").sort("user_id")
    assert published.drop("snapshot_id").equals(now)
    assert published["snapshot_id"].unique().to_list() == [cycle["snapshot_id"]]
    # The next day, a late event, and a user who is touched again.
    files.write("2026-01-02")
    files.write("2025-11-15", new=False)
    [second] = cycles_of(shop, inbox)
    assert second["files"] == 2
    again = query(shop, "select * from ml.current_churn_scores")
    assert set(again["as_of_date"]) == {date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)}
    assert cycles_of(shop, inbox) == []


@pytest.mark.slow
@pytest.mark.long
def test_what_the_watch_computed_is_what_a_full_rebuild_computes_and_a_full_scoring_takes_over(shop: Path) -> None:
    inbox = shop.parent / "inbox"
    inbox.mkdir()
    files = Files(shop, inbox)
    for _ in range(3):
        files.write()
    cycles_of(shop, inbox)
    files.write()
    files.write("2025-12-20", new=False)
    cycles_of(shop, inbox)
    assert_as_rebuilt(shop)
    build(shop, *WITHOUT_TESTS)
    left = query(shop, "select user_id from marts.current_user_features")["user_id"]
    # Late events are in the rows of the scoring date now; those after it are not.
    day = query(shop, "select as_of_date from marts.as_of_dates where is_scoring_date").item()
    later = query(shop, f"select distinct user_id from intermediate.int_events where event_date >= '{day}'")["user_id"]
    assert sorted(left) == sorted(later)
    lcm(shop, "score")
    scores = query(shop, "select * from serving.churn_scores_now")
    assert scores["user_id"].is_unique().all()
    assert query(shop, f"select 1 from ml.current_churn_scores where as_of_date <= '{day}'").is_empty()
    assert cycles_of(shop, inbox)[0]["files"] == 0  # publishes the new scoring, whole
    manifest = json.loads((shop.parent / "lcm.published" / "current" / "manifest.json").read_text())
    assert manifest["kind"] == "whole"


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_any_moment_nothing_is_lost_and_nothing_comes_twice(shop: Path) -> None:
    inbox = shop.parent / "inbox"
    inbox.mkdir()
    files = Files(shop, inbox)
    chance = random.Random(3)
    environment = os.environ | {"LCM_WAREHOUSE": str(shop), "OMP_NUM_THREADS": "1"}
    command = [str(SCRIPT), "watch", "--inbox", str(inbox), "--every", "200ms", "--json"]
    for kill in range(6):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
        # It takes some seconds until dbt is there; then cycles follow each other.
        ends = time.monotonic() + 5 + chance.uniform(0, 6)
        while time.monotonic() < ends:
            files.write("2025-12-10" if kill % 3 == 2 else CUT, users=3, new=kill % 2 == 0)
            time.sleep(chance.uniform(0.1, 0.8))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        with warehouse_at(shop):
            assert all(row["problem"] is None for row in catalogue.verify())
    cycles_of(shop, inbox)
    assert not list(inbox.glob("events-*"))
    names = sorted(path.name for path in (inbox / "done").iterdir())
    assert names == sorted({f"events-{n + 1:04}.jsonl" for n in range(len(names))})
    raw = query(shop, "select event_id from raw.events where event_id like 'w%' order by 1")["event_id"].to_list()
    assert raw == sorted(files.event_ids)
    taken = query(shop, "select event_id from intermediate.int_events where event_id like 'w%' order by 1")
    assert taken["event_id"].to_list() == raw
    assert_as_rebuilt(shop)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to_and_other_jobs_get_their_turn(shop: Path, number: signal.Signals) -> None:
    inbox = shop.parent / "inbox"
    inbox.mkdir()
    files = Files(shop, inbox)
    environment = os.environ | {"LCM_WAREHOUSE": str(shop), "OMP_NUM_THREADS": "1"}
    command = [str(SCRIPT), "watch", "--inbox", str(inbox), "--every", "1s", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    files.write()
    first = json.loads(process.stdout.readline())
    assert first["files"] == 1
    with warehouse_at(shop):
        lcm(shop, "score")  # takes the writer lock between two cycles
    files.write()
    assert json.loads(process.stdout.readline())["files"] == 1
    files.write()
    process.send_signal(number)
    assert process.wait(30) == 0
    assert not list((inbox / "failed").iterdir())
