"""Run a few of dbt's models within this process, again and again: dbt is imported and parses once."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.warehouse.connection import LOCK_HELD

COMMAND = "LCM_BUILD_COMMAND"
"""What meta.builds calls a build, where it is not dbt's own command."""


class PartialBuild:
    """dbt with this project, parsed as it is now: changes of models are seen by a new one.

    Args:
        target: where dbt keeps what it parsed; not the project's own target folder, which others use meanwhile.
        command: what meta.builds calls these builds.

    Raises:
        LcmError: when the project does not parse.
    """

    def __init__(self, target: Path, command: str) -> None:
        from dbt.cli.main import dbtRunner

        root = str(project.root())
        self._options = ["--project-dir", root, "--profiles-dir", os.environ.get("DBT_PROFILES_DIR", root)]
        self._options += ["--target-path", str(target), "--quiet", "--log-level", "none", "--log-level-file", "none"]
        # Nobody reads dbt's record of a cycle, and only the schemas of the models are looked at.
        self._options += ["--no-write-json", "--cache-selected-only"]
        self._command = command
        with self._environment():
            parsed = dbtRunner().invoke(["parse", *self._options])
        if not parsed.success:
            raise LcmError(f"dbt cannot read the project: {parsed.exception}", "see `dbt parse`")
        self._messages: list[tuple[str, str]] = []
        manifest: Any = parsed.result

        def listen(event: Any) -> None:
            self._messages.append((event.info.level, event.info.msg))

        self._runner = dbtRunner(manifest, [listen])

    def run(self, *select: str) -> list[str]:
        """Run models; the caller holds the writer lock. The file's own lock is given back.

        Returns:
            What lcm's macros said.

        Raises:
            LcmError: with dbt's message, when a model failed.
        """
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        self._messages.clear()
        with self._environment():
            try:
                result = self._runner.invoke(["run", *self._options, "--select", *select])
            finally:
                DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
        if not result.success:
            failed = [text for level, text in self._messages if level == "error" and text.strip()]
            told = "\n".join(failed[:12]) or str(result.exception or "no reason given")
            raise LcmError(f"dbt run failed:\n{told}", "mend it, or `dbt build`")
        return [text.removeprefix("lcm: ") for _, text in self._messages if text.startswith("lcm: ")]

    def _environment(self) -> AbstractContextManager[None]:
        return project.environment(
            {LOCK_HELD: "1", COMMAND: self._command, "LCM_WAREHOUSE": str(project.warehouse_path())}
        )
