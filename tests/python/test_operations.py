"""Operations: logs, failures that status tells, two writers, a full disk, a read-only folder, an older layout."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from click.testing import Result
from lifecycle import ROOT
from test_load_files import ROWS, write

from lcm_ml.errors import LcmError, LockedError
from lcm_ml.registry.runs import Run, failure_recorded, record
from lcm_ml.warehouse import contracts
from lcm_ml.warehouse.connection import WAREHOUSE_VERSION, connect, lock_holder, writer_lock

Cli = Callable[..., Result]
LAYOUT_1 = ROOT / "tests" / "python" / "layout_1.sql"
LCM = "from lcm_ml.cli.main import entry_point; entry_point()"


@pytest.fixture
def loaded(cli: Cli, warehouse: Path, tmp_path: Path) -> Path:
    assert load(cli, tmp_path, "good.parquet").exit_code == 0
    return warehouse


def load(cli: Cli, tmp_path: Path, name: str, *more: str) -> Result:
    return cli("load", "files", "--events", write(ROWS, tmp_path / name), *more)


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute(sql).fetchall()


def status(cli: Cli) -> list[dict[str, str]]:
    result = cli("status", "--json")
    assert result.exit_code == 0, result.output
    failures: list[dict[str, str]] = json.loads(result.stdout)["failures"]
    return failures


def script(*lines: str) -> subprocess.Popen[str]:
    """Another process; it has printed a line, so it is where it should be."""
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def run_lcm(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + LCM, *map(str, arguments)], capture_output=True, text=True, check=False
    )


# --- logs


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_log_has_one_id_for_each_call(
    cli: Cli, loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "logs" / "lcm.jsonl"
    monkeypatch.setenv("LCM_LOG", str(log))
    assert load(cli, tmp_path, "more.csv", "--append").exit_code == 0
    assert cli("load", "files", "--events", tmp_path / "none.csv").exit_code == 1
    assert log.stat().st_mode & 0o777 == 0o600
    first, second = list(dict.fromkeys(line["run_id"] for line in lines(log)))
    by_call = {call: [line for line in lines(log) if line["run_id"] == call] for call in (first, second)}
    assert [line["event"] for line in by_call[first] if line["event"] != "step"] == ["start", "end"]
    assert by_call[second][-1]["event"] == "failed"
    assert by_call[second][-1]["level"] == "error"
    assert "none.csv" in str(by_call[second][-1]["message"])
    assert by_call[second][-1]["next_step"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["time"])) for line in lines(log))
    assert all(line["command"] == "lcm-ml load" for line in lines(log))
    assert float(str(by_call[first][-1]["seconds"])) > 0


def test_a_log_on_stderr_is_json_alone_and_stdout_is_as_ever(loaded: Path) -> None:
    plain, logged = run_lcm("status"), run_lcm("--log", "-", "status")
    assert plain.stderr == ""
    assert [json.loads(line)["event"] for line in logged.stderr.splitlines()] == ["start", "end"]
    assert logged.stdout == plain.stdout
    failed = run_lcm("--log", "-", "backup", "--verify", "nothing.tar")
    assert json.loads(failed.stderr.splitlines()[-1])["event"] == "failed"


def test_a_log_that_cannot_be_written_stops_before_the_job(
    cli: Cli, loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LCM_LOG", str(tmp_path / "file" / "lcm.jsonl"))
    result = load(cli, tmp_path, "more.csv", "--append")
    assert result.exit_code == 1
    assert "lcm.jsonl" in result.output
    assert query(loaded, "select count(*) from raw.loads") == [(1,)]


def test_users_and_secrets_stay_out_of_logs(tmp_path: Path, sample: Path) -> None:
    log = tmp_path / "lcm.jsonl"
    secret = "a key that is long enough for this purpose"
    environment = os.environ | {"LCM_WAREHOUSE": str(sample), "LCM_LOG": str(log), "LCM_ID_KEY": secret}
    for arguments in (["profile", "user-4711"], ["pseudonym", "user-4711"]):
        subprocess.run([sys.executable, "-c", LCM, *arguments], env=environment, capture_output=True, check=False)
    assert [line["event"] for line in lines(log)] == ["start", "failed", "start", "end"]
    text = log.read_text(encoding="utf-8")
    assert "4711" not in text
    assert secret not in text


def test_every_ml_table_tells_its_run() -> None:
    lacking = {name for name, table in contracts.tables("ml").items() if "run_id" not in table.column_names} - {
        "model_promotions",  # a decision of its own: promotion_id
        "model_exports",  # of a model_version, which has its run
    }
    assert not lacking


# --- failures


def test_a_failed_load_is_told_until_one_succeeds(cli: Cli, loaded: Path, tmp_path: Path) -> None:
    assert status(cli) == []
    assert cli("load", "files", "--events", tmp_path / "none.csv", "--append").exit_code == 1
    (failure,) = status(cli)
    assert failure["command"] == "lcm-ml load files"
    assert "none.csv" in failure["message"]
    assert failure["next_step"]
    shown = cli("status").output
    assert "none.csv" in shown
    assert "next: " in shown
    assert load(cli, tmp_path, "more.csv", "--append").exit_code == 0
    assert status(cli) == []


def test_a_failed_run_is_told_with_what_to_do_until_one_succeeds(cli: Cli, loaded: Path) -> None:
    run = Run("segment", {})
    with pytest.raises(LcmError) as raised, failure_recorded(run, lambda _: None):
        raise LcmError("too few users", "load more")
    assert raised.value.run_id == run.run_id
    (failure,) = status(cli)
    assert (failure["command"], failure["message"], failure["next_step"], failure["run_id"]) == (
        "lcm-ml segment", "too few users", "load more", run.run_id,
    )  # fmt: skip
    record(Run("score", {}), lambda _: {}, lambda _: None)
    assert len(status(cli)) == 1, "another command settles nothing"
    record(Run("segment", {}), lambda _: {}, lambda _: None)
    assert status(cli) == []


def test_a_failed_or_killed_build_is_told(cli: Cli, loaded: Path) -> None:
    with connect() as con:
        con.execute("create schema if not exists meta")
        con.execute(contracts.tables("meta")["builds"].create_sql())
        started = "timestamp '2026-01-01 10:00:00'"
        con.execute(f"insert into meta.builds values ('b1', 'build', 'dev', 'raw', {started}, null, 'open', null)")
    assert "killed" in status(cli)[0]["message"]
    with connect() as con:
        con.execute("update meta.builds set status = 'failed', failed_nodes = 'stg_events'")
    assert "stg_events" in status(cli)[0]["message"]
    with connect() as con:
        con.execute("update meta.builds set status = 'ok'")
    assert status(cli) == []


def test_a_killed_job_is_told_until_the_next_one(cli: Cli, loaded: Path, tmp_path: Path) -> None:
    job = script(
        "import sys\nfrom lcm_ml.warehouse.connection import writer_lock",
        "with writer_lock('lcm-ml fit'):\n    print(1, flush=True)\n    sys.stdin.read()",
    )
    job.kill()
    job.communicate()
    (failure,) = status(cli)
    assert failure["command"] == "lcm-ml fit"
    assert "killed" in failure["message"]
    assert load(cli, tmp_path, "more.csv", "--append").exit_code == 0
    assert status(cli) == []


def test_what_another_process_holds_is_not_waited_for_twice(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = script(
        f"import duckdb, sys\ncon = duckdb.connect({str(loaded)!r})\nprint(1, flush=True)\nsys.stdin.read()"
    )
    monkeypatch.setenv("LCM_LOCK_TIMEOUT", "2")
    before = time.monotonic()
    with pytest.raises(LockedError), failure_recorded(Run("fit", {}), lambda _: None), connect():
        pass
    assert time.monotonic() - before < 4
    holder.communicate()


# --- two writers


@pytest.mark.slow
def test_loads_at_once_all_arrive(loaded: Path, tmp_path: Path) -> None:
    files = [
        write([{**row, "event_id": f"{row['event_id']}-{number}"} for row in ROWS], tmp_path / f"{number}.csv")
        for number in range(3)
    ]
    environment = os.environ | {"LCM_LOCK_TIMEOUT": "120"}
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", LCM, "load", "files", "--append", "--events", str(file)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for file in files
    ]  # fmt: skip
    ends = [(*job.communicate(), job.returncode) for job in jobs]
    assert [code for _, _, code in ends] == [0, 0, 0], ends
    count, distinct = query(loaded, "select count(*), count(distinct event_id) from raw.events")[0]
    assert count == distinct == 4 * len(ROWS)


@pytest.mark.slow
def test_dbt_waits_its_turn_and_says_for_whom(loaded: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dbt.cli.main", "debug", "--connection", "--no-use-colors"]
    command += ["--log-path", str(tmp_path / "logs")]
    with writer_lock("lcm-ml run"):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "`lcm-ml run`" in done.stdout
    assert f"process {os.getpid()}" in done.stdout
    assert "waiting up to 1 s" in done.stdout
    assert "LCM_LOCK_TIMEOUT" in done.stdout
    assert "Traceback" not in done.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout


def test_a_holder_is_named_by_its_command_without_its_arguments() -> None:
    code = "import sys; print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "dbt.cli.main", "build", "--vars", "{secret: 1}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        told = lock_holder(f"Conflicting lock is held in /usr/bin/python (PID {process.pid}). See also")
        process.communicate()
    assert told.startswith("`dbt build` (process ")
    assert "secret" not in told


# --- a full disk, a read-only folder


def limited(size: int) -> str:
    return (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY)); "
    )


def test_a_load_that_does_not_fit_changes_nothing(loaded: Path, tmp_path: Path) -> None:
    before = query(loaded, "select * from raw.events order by all")
    big = tmp_path / "big.parquet"
    names = "md5(cast(i as varchar)) event_id, md5(cast(i + 1 as varchar)) user_id"
    duckdb.execute(f"copy (select {names}, now() event_time, 'view' event_type from range(300000) as n (i)) to '{big}'")
    done = run_lcm("load", "files", "--append", "--events", big, before=limited(loaded.stat().st_size + 2**20))
    assert done.returncode == 1, done.stderr
    assert "full" in done.stderr
    assert str(loaded.parent) in done.stderr
    assert "Traceback" not in done.stderr
    assert query(loaded, "select * from raw.events order by all") == before
    assert run_lcm("load", "files", "--append", "--events", big).returncode == 0


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that even root cannot write to."""
    made = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a folder read-only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("arguments", [["load", "files", "--append", "--events", "EVENTS"], ["backup"], ["upgrade"]])
def test_a_folder_that_is_read_only_is_named(cli: Cli, loaded: Path, tmp_path: Path, arguments: list[str]) -> None:
    events = write(ROWS, tmp_path / "more.csv")
    before = query(loaded, "select * from raw.events order by all")
    with read_only(loaded.parent):
        done = cli(*(events if word == "EVENTS" else word for word in arguments))
    assert done.exit_code == 1, done.output
    assert str(loaded.parent) in done.output
    assert isinstance(done.exception, SystemExit)
    assert "next: " in done.output
    assert query(loaded, "select * from raw.events order by all") == before


# --- an older layout


@pytest.fixture
def layout_1(warehouse: Path) -> Path:
    warehouse.parent.mkdir()
    with duckdb.connect(str(warehouse)) as con:
        con.execute(LAYOUT_1.read_text(encoding="utf-8"))
    return warehouse


def history(path: Path) -> list[tuple[object, ...]]:
    scores = "select user_id, as_of_date, model_version, churn_probability from ml.churn_scores order by all"
    metrics = "select run_id, model_name, metric, value from ml.model_metrics order by all"
    return [*query(path, scores), *query(path, metrics)]


@pytest.mark.slow
def test_an_older_layout_is_brought_along_after_a_backup(cli: Cli, layout_1: Path, tmp_path: Path) -> None:
    before = history(layout_1)
    assert before
    refused = cli("status")
    assert refused.exit_code == 1
    assert "lcm-ml upgrade" in refused.output
    assert history(layout_1) == before

    result = load(cli, tmp_path, "events.parquet")
    assert result.exit_code == 0, result.output
    assert "from layout 1 to 2" in result.output
    assert history(layout_1) == before
    assert query(layout_1, "select distinct method from ml.feature_importance") == [("model",)]
    assert query(layout_1, "select max(version) from meta.warehouse_version") == [(WAREHOUSE_VERSION,)]
    for schema in ("ml", "meta"):
        for table in contracts.tables(schema).values():
            have = {row[0] for row in query(layout_1, f"describe {table.full_name}")}
            assert have >= set(table.column_names), table.full_name

    (archive,) = (layout_1.parent / "lcm.backups").iterdir()
    assert cli("backup", "--verify", archive).exit_code == 0
    assert cli("restore", archive, "--yes").exit_code == 0
    assert query(layout_1, "select max(version) from meta.warehouse_version") == [(1,)]
    assert cli("upgrade").exit_code == 0
    assert "nothing to do" in cli("upgrade").output
    assert cli("status").exit_code == 0


def test_an_upgrade_without_space_for_its_backup_changes_nothing(
    cli: Cli, layout_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    result = cli("upgrade")
    assert result.exit_code == 1
    assert "MiB" in result.output
    assert query(layout_1, "select max(version) from meta.warehouse_version") == [(1,)]


def test_dbt_and_lcm_ml_mean_the_same_layout() -> None:
    macros = (ROOT / "macros" / "build_state" / "build_log.sql").read_text(encoding="utf-8")
    assert f"{{% macro warehouse_version() -%}}{{{{ return({WAREHOUSE_VERSION}) }}}}" in macros


def test_a_memory_limit_leaves_room_for_frames(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(**how: bool) -> str:
        with connect(**how) as con:
            return str(con.execute("select current_setting('memory_limit')").fetchone()[0])

    monkeypatch.setenv("LCM_MEMORY_LIMIT", "900MiB")
    assert limit(read_only=True) == limit(beside_frames=True) == "300.0 MiB"
    assert limit() == limit(read_only=True, beside_frames=False) == "900.0 MiB"
