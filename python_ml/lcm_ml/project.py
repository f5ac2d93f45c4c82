"""Where things lie: the dbt project, the warehouse file, and what is kept beside it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lcm_ml.errors import LcmError

DEFAULT_WAREHOUSE = "warehouse/lcm.duckdb"
SCHEMAS = ("raw", "sample", "staging", "intermediate", "marts", "ml", "serving", "meta", "main", "temp", "system")


def root() -> Path:
    """The folder of dbt_project.yml: LCM_PROJECT_DIR, else the first one from here upwards, else this checkout.

    Raises:
        LcmError: where there is none.
    """
    named = os.environ.get("LCM_PROJECT_DIR")
    checkout = Path(__file__).resolve().parents[2]
    candidates = [Path(named)] if named else [Path.cwd(), *Path.cwd().parents, checkout]
    for folder in candidates:
        if (folder / "dbt_project.yml").is_file() and (folder / "models" / "ml").is_dir():
            return folder
    raise LcmError(
        f"no lcm project (dbt_project.yml) in {named or Path.cwd()}",
        "run in a checkout of lcm, or set LCM_PROJECT_DIR to one",
    )


def warehouse_path() -> Path:
    """The DuckDB file: LCM_WAREHOUSE, else warehouse/lcm.duckdb. A relative path starts at the project.

    profiles.yml reads the same variable with the same default, and dbt runs in the project's folder.

    Raises:
        LcmError: for a name that DuckDB would take for one of the schemas.
    """
    path = root() / os.environ.get("LCM_WAREHOUSE", DEFAULT_WAREHOUSE)
    if path.stem.lower() in SCHEMAS:
        raise LcmError(
            f"the warehouse cannot be called {path.name}: DuckDB names the database after the file, and {path.stem} "
            "is one of its schemas",
            "set LCM_WAREHOUSE to another name, e.g. lcm.duckdb",
        )
    return path


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment for a while; afterwards they are as they were."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def beside_warehouse(kind: str) -> Path:
    """The folder of `kind` (artefacts, published) that belongs to this warehouse: two files, two folders."""
    path = warehouse_path()
    return path.parent / f"{path.stem}.{kind}"
