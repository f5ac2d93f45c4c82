"""Run dbt on this warehouse, as `dbt build` on the command line would."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import duckdb

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.warehouse.connection import LOCK_HELD, Notify, connect, first_row

Advance = Callable[[str, float], None]


def build(advance: Advance, notify: Notify, *, full_refresh: bool = False) -> dict[str, Any]:
    """Run `dbt build` in a process of its own, so that its file lock and its memory go with it.

    Args:
        advance: told the node under way and the share done, by what each node took the last time.
        notify: told when another process has to be waited for, and of a change of layout.
        full_refresh: rebuild everything.

    Returns:
        `nodes` run, `rebuilt` messages of models that were rebuilt whole, and the `source` that was read.

    Raises:
        LcmError: naming the nodes that failed, with dbt's own message.
    """
    # Wait here, where the holder can be named and the time-out is ours, rather than in dbt.
    with connect(notify=notify) as con:
        one_at_a_time = "LCM_THREADS" not in os.environ and _is_larger_than_memory(con)
    command = [sys.executable, "-m", "dbt.cli.main", "--log-format", "json", "--no-use-colors", "build"]
    # Unit tests are about the models, not about this warehouse's rows: `make test` runs them.
    command += ["--exclude-resource-type", "unit_test"]
    if one_at_a_time:
        # Beside each other, models that each need more than there is would write it to disk and read it again.
        command += ["--threads", "1"]
    if full_refresh:
        command.append("--full-refresh")
    environment = os.environ | {LOCK_HELD: "1"}
    with subprocess.Popen(
        command, cwd=project.root(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        messages, nodes = _follow(process, advance)
    if process.returncode:
        raise LcmError(f"dbt build failed:\n{_why(messages)}", "see logs/dbt.log, mend it, then run it again")
    own = [text.removeprefix("lcm: ") for _, text in messages if text.startswith("lcm: ")]
    return {
        "nodes": nodes,
        "source": next((text for text in own if text.startswith("reading")), ""),
        "rebuilt": [text for text in own if text.startswith("rebuilt")],
    }


def _is_larger_than_memory(con: duckdb.DuckDBPyConnection) -> bool:
    row = first_row(con, "select parse_formatted_bytes(current_setting('memory_limit'))")
    return row is not None and project.warehouse_path().stat().st_size > row[0]


def _why(messages: list[tuple[str, str]]) -> str:
    """What dbt says of each node that failed; else its errors; else the last that was printed."""
    nodes = [text for level, text in messages if level == "error" and " Error in " in text]
    errors = [text for level, text in messages if level == "error" and text.strip()]
    return "\n".join(list(dict.fromkeys(nodes or errors))[:12]) or "\n".join(text for _, text in messages[-12:])


def _follow(process: "subprocess.Popen[str]", advance: Advance) -> tuple[list[tuple[str, str]], int]:
    messages: list[tuple[str, str]] = []
    total, share = 0, 0.0
    took = _last_durations()
    usual = sum(took.values()) / len(took) if took else 1.0
    finished: dict[str, float] = {}
    assert process.stdout is not None
    for line in process.stdout:
        try:
            entry = json.loads(line)
        except ValueError:
            messages.append(("", line.rstrip()))
            continue
        info, data = entry.get("info", {}), entry.get("data", {})
        messages.append((info.get("level", ""), info.get("msg", "")))
        if data.get("index") and data.get("total"):
            total = max(total, data["total"])
            node = data.get("node_info") or {}
            unique_id = node.get("unique_id", "")
            if data.get("execution_time") is not None:
                finished[unique_id] = took.get(unique_id, usual)
                expected = sum(took.values()) + usual * max(0, total - len(took))
                share = max(share, min(1.0, sum(finished.values()) / (expected or 1.0)))
            advance(node.get("node_name", ""), share)
    return messages, total


def _last_durations() -> dict[str, float]:
    """Seconds of each node in the last build of this checkout; empty where there was none."""
    try:
        results = json.loads((project.root() / "target" / "run_results.json").read_text(encoding="utf-8"))["results"]
        # A node that does nothing this time still takes some time.
        return {result["unique_id"]: max(result["execution_time"], 0.05) for result in results}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
