"""Backups: what is kept comes back, damage is named, and a restore that is killed leaves one state or the other."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from click.testing import Result
from test_load_files import ROWS, write

from lcm_ml import project
from lcm_ml.publishing import catalogue, manifest

Cli = Callable[..., Result]


@pytest.fixture
def kept(cli: Cli, warehouse: Path, tmp_path: Path) -> Path:
    """A loaded warehouse with a model's folder and a published snapshot; and the keys that no backup may hold."""
    assert cli("load", "files", "--events", write(ROWS, tmp_path / "events.parquet")).exit_code == 0
    model = project.beside_warehouse("artefacts") / "tree-1"
    model.mkdir(parents=True)
    (model / "model.ubj").write_bytes(b"splits")
    publish("snapshot-1", 1)
    keys = project.beside_warehouse("privacy")
    keys.mkdir()
    (keys / "key").write_text("secret of the forgotten")
    return warehouse


def publish(snapshot_id: str, value: int) -> None:
    published = catalogue.published_folder()
    folder = published / "snapshots" / snapshot_id
    folder.mkdir(parents=True)
    path = folder / "figures.parquet"
    duckdb.execute(f"copy (select {value} as figure, '{snapshot_id}' as snapshot_id) to '{path}' (format parquet)")
    relation = {
        "rows": 1,
        "sha256": manifest.digest(path),
        "columns": ["figure", "snapshot_id"],
        "description": "",
        "descriptions": {},
    }
    manifest.write(folder, {"snapshot_id": snapshot_id, "relations": {"figures": relation}})
    catalogue.activate(published, snapshot_id, {"figures": relation})


def events(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute("select count(*) from raw.events").fetchall()[0][0]


def change(path: Path) -> None:
    """Another state: no events, no model, another snapshot."""
    with duckdb.connect(str(path)) as con:
        con.execute("delete from raw.events")
    (project.beside_warehouse("artefacts") / "tree-1" / "model.ubj").unlink()
    publish("snapshot-2", 2)


def back_up(cli: Cli, *arguments: object) -> Path:
    result = cli("backup", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return Path(json.loads(result.stdout)["path"])


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "next: " in result.output
    for word in words:
        assert word in result.output, result.output


def test_what_is_kept_comes_back(cli: Cli, kept: Path) -> None:
    before = events(kept)
    archive = back_up(cli)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert archive.parent == project.beside_warehouse("backups")
    change(kept)

    result = cli("restore", archive, "--yes", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert events(kept) == before > 0
    assert events(Path(told["kept"])) == 0, "the state before is kept aside"
    assert (project.beside_warehouse("artefacts") / "tree-1" / "model.ubj").read_bytes() == b"splits"
    assert catalogue.current_id(catalogue.published_folder()) == "snapshot-1"
    with duckdb.connect(str(catalogue.published_folder() / "lcm_published.duckdb"), read_only=True) as con:
        assert con.execute("select figure from figures").fetchall() == [(1,)]
    assert not project.beside_warehouse("restore").exists()


def test_it_comes_back_where_nothing_is_left(
    cli: Cli, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = back_up(cli, tmp_path / "elsewhere.tar")
    new = tmp_path / "new" / "lcm.duckdb"
    monkeypatch.setenv("LCM_WAREHOUSE", str(new))
    assert cli("restore", archive, "--yes").exit_code == 0
    assert events(new) == events(kept)
    with duckdb.connect(str(catalogue.published_folder() / "lcm_published.duckdb"), read_only=True) as con:
        assert con.execute("select figure from figures").fetchall() == [(1,)]
    assert new.stat().st_mode & 0o077 == 0


def test_a_damaged_warehouse_is_replaced(cli: Cli, kept: Path) -> None:
    archive = back_up(cli)
    before = events(kept)
    kept.write_bytes(b"nonsense" * 2000)
    assert cli("restore", archive, "--yes").exit_code == 0
    assert events(kept) == before


def test_writes_of_a_killed_job_are_in_the_backup(cli: Cli, kept: Path) -> None:
    code = (
        f"import duckdb, os\ncon = duckdb.connect({str(kept)!r})\n"
        "con.execute('set checkpoint_threshold = \\'1GB\\'; create table raw.late as select 7 as figure')\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert kept.with_name("lcm.duckdb.wal").exists()
    archive = back_up(cli)
    change(kept)
    assert cli("restore", archive, "--yes").exit_code == 0
    with duckdb.connect(str(kept), read_only=True) as con:
        assert con.execute("select figure from raw.late").fetchall() == [(7,)]


def test_no_key_is_in_a_backup(cli: Cli, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCM_ID_KEY", "a key of pseudonyms that nobody may read")
    content = back_up(cli).read_bytes()
    assert b"secret of the forgotten" not in content
    assert b"a key of pseudonyms" not in content


def test_verify_reads_everything(cli: Cli, kept: Path) -> None:
    archive = back_up(cli)
    result = cli("backup", "--verify", archive, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["tables"]["raw.events"] == events(kept)
    assert {name.split("/")[0] for name in told["files"]} == {"warehouse.duckdb", "artefacts", "published"}
    assert [path.name for path in archive.parent.iterdir()] == [archive.name], "it leaves nothing behind"


def rewrite(archive: Path, edit: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]) -> None:
    """Write the archive again, each member as `edit` has it."""
    with tarfile.open(archive) as old:
        members = [(member, old.extractfile(member).read()) for member in old.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(archive, "w") as new:
        for member, content in members:
            for changed, bytes_ in edit(member, content):
                changed.size = len(bytes_) if changed.isreg() else 0
                new.addfile(changed, io.BytesIO(bytes_))


@pytest.mark.parametrize(
    "name", ["warehouse.duckdb", "artefacts/tree-1/model.ubj", "published/snapshot-1/figures.parquet"]
)
def test_a_changed_byte_is_named_and_changes_nothing(cli: Cli, kept: Path, name: str) -> None:
    archive = back_up(cli)

    def flip(member: tarfile.TarInfo, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if member.name == name:
            content = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
        return [(member, content)]

    rewrite(archive, flip)
    change(kept)
    refused(cli("backup", "--verify", archive), str(archive), name)
    refused(cli("restore", archive, "--yes"), str(archive), name)
    assert events(kept) == 0
    assert catalogue.current_id(catalogue.published_folder()) == "snapshot-2"
    assert not project.beside_warehouse("restore").exists()


def link(name: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member, b""


@pytest.mark.parametrize(
    ("added", "word"),
    [
        ((tarfile.TarInfo("../outside"), b"x"), "outside"),
        ((tarfile.TarInfo("/tmp/outside"), b"x"), "outside"),
        ((tarfile.TarInfo("artefacts/../../outside"), b"x"), "outside"),
        ((tarfile.TarInfo("unknown"), b"x"), "unknown"),
        ((tarfile.TarInfo("warehouse.duckdb"), b"x"), "twice"),
        (link("artefacts/evil", tarfile.SYMTYPE), "evil"),
        (link("artefacts/evil", tarfile.LNKTYPE), "evil"),
    ],
)
def test_what_no_backup_has_is_refused(
    cli: Cli, kept: Path, tmp_path: Path, added: tuple[tarfile.TarInfo, bytes], word: str
) -> None:
    archive = back_up(cli, tmp_path / "backups" / "b.tar")
    rewrite(archive, lambda member, content: [(member, content), *([added] if member.name == "manifest.json" else [])])
    refused(cli("restore", archive, "--yes"), word)
    assert events(kept) > 0
    assert not list(tmp_path.rglob("outside"))


def test_a_wrong_manifest_is_refused(cli: Cli, kept: Path) -> None:
    archive = back_up(cli)

    def fewer(member: tarfile.TarInfo, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if member.name == "manifest.json":
            told = json.loads(content)
            told["tables"]["raw.events"] += 1
            content = json.dumps(told).encode()
        return [(member, content)]

    rewrite(archive, fewer)
    refused(cli("backup", "--verify", archive), "raw.events")
    rewrite(archive, lambda member, content: [] if member.name == "manifest.json" else [(member, content)])
    refused(cli("restore", archive, "--yes"), "manifest")


def test_a_truncated_archive_is_refused(cli: Cli, kept: Path) -> None:
    archive = back_up(cli)
    whole = archive.read_bytes()
    for share in (0.0, 0.3, 0.9):
        archive.write_bytes(whole[: int(len(whole) * share)])
        refused(cli("restore", archive, "--yes"), str(archive))
    assert events(kept) > 0
    refused(cli("restore", kept, "--yes"), "no backup")


def test_a_backup_of_a_newer_version_is_refused(cli: Cli, kept: Path) -> None:
    with duckdb.connect(str(kept)) as con:
        con.execute("create schema if not exists meta")
        con.execute("create table meta.warehouse_version as select 99 as version, now()::timestamp as written_at")
    archive = back_up(cli)
    refused(cli("restore", archive, "--yes"), "99", "newer")


KILL = """
import os, sys
from pathlib import Path
from lcm_ml.warehouse import restore
swap = restore._replace
def killed(*paths):
    {before}
    swap(*paths)
    os._exit(9)
restore._replace = killed
restore.restore(Path(sys.argv[1]), lambda *_: None, print)
"""


@pytest.mark.parametrize(("before", "is_new"), [("os._exit(9)", False), ("", True)])
def test_a_killed_restore_leaves_one_state_and_the_next_command_says_which(
    cli: Cli, kept: Path, tmp_path: Path, before: str, is_new: bool
) -> None:
    archive = back_up(cli)
    kept_events = events(kept)
    change(kept)
    killed = subprocess.run(
        [sys.executable, "-c", KILL.format(before=before), str(archive)], check=False, env=os.environ
    )
    assert killed.returncode == 9
    assert events(kept) == (kept_events if is_new else 0)
    result = cli("load", "files", "--append", "--events", write(ROWS, tmp_path / "events.parquet"))
    assert result.exit_code == 0, result.output
    assert ("the warehouse is the backup's now" if is_new else "the warehouse is the one from before it") in " ".join(
        result.output.split()
    )
    assert catalogue.current_id(catalogue.published_folder()) == ("snapshot-1" if is_new else "snapshot-2")
    assert not project.beside_warehouse("restore").exists()
    assert "cut short" not in cli("load", "files", "--append", "--events", tmp_path / "events.parquet").output


def test_nobody_to_ask_is_wrong_use(cli: Cli, kept: Path) -> None:
    archive = back_up(cli)
    result = cli("restore", archive)
    assert result.exit_code == 2
    assert "--yes" in result.output


def test_a_full_disk_leaves_no_half_archive(kept: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    small = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({kept.stat().st_size // 2}, resource.RLIM_INFINITY)); "
    code = small + limit + "from lcm_ml.cli.main import entry_point; entry_point()"
    done = subprocess.run([sys.executable, "-c", code, "backup"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(project.beside_warehouse("backups").iterdir())

    # What cannot fit is not begun.
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    refused(cli("backup"), "MiB")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    opened = f"con = duckdb.connect({str(path)!r}, read_only=True)"
    code = f"import duckdb, sys\n{opened}\nprint(1, flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        yield
        reader.communicate()


def test_readers_do_not_matter_to_a_backup_and_do_to_a_restore(cli: Cli, kept: Path) -> None:
    with reading(kept):
        archive = back_up(cli)
        refused(cli("restore", archive, "--yes"), "locked by")
    assert events(kept) > 0


def test_only_so_many_are_kept(cli: Cli, kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    old = [folder / f"lcm-2020010{day}T000000.tar" for day in (1, 2, 3)]
    own = [folder / "lcm-layout-1-20200101T000000.tar", folder / "other.tar"]
    for path in (*old, *own):
        path.write_bytes(b"")
    archive = back_up(cli, folder, "--keep", 2)
    assert sorted(folder.iterdir()) == sorted([old[-1], *own, archive])


def test_checksums_are_those_of_the_files(cli: Cli, kept: Path) -> None:
    archive = back_up(cli)
    with tarfile.open(archive) as tar:
        told = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert told["files"]["warehouse.duckdb"]["sha256"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert told["snapshot_id"] == "snapshot-1"
