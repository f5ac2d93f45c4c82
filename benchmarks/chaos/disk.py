"""Every stage on a disk that is full, and in a folder that is read-only: a clear error, and the last good state.

Needs the right to mount: `python benchmarks/chaos/disk.py WAREHOUSE [--steps 4]`, where WAREHOUSE was made by
`lcm-ml run` with loaded files or the sample. It works on copies.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

EVENTS = """
copy (
    select 'chaos' || i as event_id, 'u' || i % 5000 as user_id,
        timestamp '2025-11-01' + to_minutes(i % 80000) as event_time, 'view' as event_type,
        md5(cast(i as varchar)) as text
    from range(1000000) as numbers (i)
) to '{}' (format parquet)
"""
STAGES = {
    "load": ["lcm-ml", "load", "files", "--append", "--events", "{events}"],
    "dbt build": ["dbt", "build", "--full-refresh", "--no-use-colors", "--exclude-resource-type", "test", "unit_test"],
    "fit": ["lcm-ml", "fit"],
    "score": ["lcm-ml", "score"],
    "publish": ["lcm-ml", "publish"],
    "backup": ["lcm-ml", "backup"],
}
MADE_BY = {"load": ("raw",), "fit": ("ml",), "score": ("ml",), "publish": (), "backup": ()}
"""The schemas whose rows must be as before when that stage fails; a failed dbt build is refused until the next one."""


@contextmanager
def small_disk(mebibytes: float) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lcm-small-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(mebibytes * 1024)}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def content(warehouse: Path, schemas: tuple[str, ...]) -> dict[str, object]:
    """Rows and a hash of every table, without the runs on record: a failure adds one."""
    with duckdb.connect(str(warehouse), read_only=True) as con:
        names = con.execute(
            "select schema_name, table_name from duckdb_tables() where list_contains(?, schema_name) order by all",
            [list(schemas)],
        ).fetchall()
        return {
            f"{schema}.{name}": con.execute(
                f'select count(*), bit_xor(hash(t)) from "{schema}"."{name}" as t'
            ).fetchall()
            for schema, name in names
            if name != "model_runs"
        }


def published(warehouse: Path) -> dict[str, str]:
    current = warehouse.parent / f"{warehouse.stem}.published" / "current"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(current.glob("*.parquet"))}


def run(stage: str, warehouse: Path, events: Path) -> subprocess.CompletedProcess[str]:
    words = [word.format(events=events) for word in STAGES[stage]]
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    if words[0] == "dbt":
        scratch = tempfile.mkdtemp(prefix="lcm-target-")
        command += ["--target-path", scratch, "--log-path", scratch]
    environment = os.environ | {"LCM_WAREHOUSE": str(warehouse), "LCM_LOCK_TIMEOUT": "5"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def copy(source: Path, folder: Path) -> Path:
    for path in source.parent.glob(f"{source.stem}.*"):
        if path.is_dir() and path.suffix != ".backups":
            shutil.copytree(path, folder / path.name, symlinks=True)
        elif path == source:
            shutil.copy2(path, folder / path.name)
    return folder / source.name


def judge(
    stage: str, done: subprocess.CompletedProcess[str], warehouse: Path, before: tuple[object, object]
) -> list[str]:
    told = done.stdout + done.stderr
    wrong = []
    if "Traceback" in told:
        wrong.append("a traceback")
    if not any(word in told for word in (str(warehouse.parent), "disk", "space", "permission", "Permission")):
        wrong.append("the error names neither the place nor the cause")
    if content(warehouse, MADE_BY.get(stage, ())) != before[0]:
        wrong.append("tables changed")
    if published(warehouse) != before[1] and "is published, but" not in told:
        wrong.append("what is published changed")
    return wrong


def report(kind: str, stage: str, done: subprocess.CompletedProcess[str], wrong: list[str], note: str = "") -> bool:
    ending = (done.stderr or done.stdout).strip().splitlines()
    error = next((line for line in ending if "rror" in line or " full" in line), ending[-1] if ending else "")
    print(
        json.dumps(
            {"kind": kind, "stage": stage, "exit": done.returncode, "wrong": wrong, "said": error[:160], "note": note}
        )
    )
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("--steps", type=int, default=4, help="How many sizes of the disk, ever smaller.")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES))
    asked = parser.parse_args()
    events = Path(tempfile.mkdtemp(prefix="lcm-events-")) / "events.parquet"
    duckdb.execute(EVENTS.format(events))
    used = sum(path.stat().st_size for path in asked.warehouse.parent.rglob("*") if path.is_file()) / 2**20
    fine = True
    for stage in asked.stages:
        with small_disk(used + 2048) as folder:
            warehouse = copy(asked.warehouse, folder)
            before = content(warehouse, MADE_BY.get(stage, ())), published(warehouse)
            failures = 0
            for step in range(asked.steps):
                free = 2.0 / 4**step
                in_use = shutil.disk_usage(folder).used
                size = f"size={in_use // 1024 + int(free * 1024)}k"
                subprocess.run(["mount", "-o", f"remount,{size}", str(folder)], check=True)
                done = run(stage, warehouse, events)
                if done.returncode == 0:
                    report("full", stage, done, [], f"{free} MiB were enough")
                    before = content(warehouse, MADE_BY.get(stage, ())), published(warehouse)
                    continue
                failures += 1
                fine &= report("full", stage, done, judge(stage, done, warehouse, before), f"{free} MiB free")
                before = before[0], published(warehouse)
            subprocess.run(["mount", "-o", f"remount,size={int(used + 4096)}m", str(folder)], check=True)
            done = run(stage, warehouse, events)
            fine &= report("space again", stage, done, [f"exit {done.returncode}"] if done.returncode else [])
        with small_disk(used + 512) as folder:
            warehouse = copy(asked.warehouse, folder)
            before = content(warehouse, MADE_BY.get(stage, ())), published(warehouse)
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            done = run(stage, warehouse, events)
            wrong = judge(stage, done, warehouse, before) + ([] if done.returncode else ["it did not fail"])
            fine &= report("read-only", stage, done, wrong)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
