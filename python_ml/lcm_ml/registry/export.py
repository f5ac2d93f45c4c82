"""Saved models as ONNX files, which other programs score with; no file is kept that does not score like its model."""

import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from lcm_ml import project
from lcm_ml.churn.compact import TOLERANCE, Pair, pruned, student
from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.metrics import Measured, Outcome, Resamples, figure, measure_outcome
from lcm_ml.churn.model import ChurnModel
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import Frame, training_frame
from lcm_ml.frames.splits import Split, observed_before
from lcm_ml.registry import artefacts
from lcm_ml.registry.runs import Run, failure_recorded, record, utc_now
from lcm_ml.registry.versions import FIT, find_version
from lcm_ml.warehouse.connection import Notify, connect

FORMATS = ("onnx",)
FULL, PRUNED, STUDENT = VARIANTS = ("full", "pruned", "student")
AGREEMENT = 1e-5
"""Largest difference between a probability of the file and one of the model."""
SMALL_BATCH = 7
REPEATS = 30
RESAMPLES = 500


@dataclass(frozen=True)
class Source:
    """What is exported: a version's models, and the rows that they are measured on.

    Attributes:
        row: of ml.model_versions.
        pair: the model, and the one whose test stands for it.
        frame: labelled rows.
        split: dates of the evaluated model.
        saved_bytes: size of the artefact.
    """

    row: dict[str, Any]
    pair: Pair
    frame: Frame
    split: Split
    saved_bytes: int

    @property
    def version(self) -> str:
        """Its name."""
        return str(self.row["model_version"])


def export_version(
    version: str | None,
    variants: Sequence[str],
    out: Path | None,
    advance: Callable[[str, float], None],
    notify: Notify,
) -> dict[str, Any]:
    """Convert, compare with the model, measure, write the files and ml.model_exports.

    Args:
        version: None for the champion.
        variants: of VARIANTS; where there are several, one that is impossible is left out with a note.
        out: the file, for a single variant; by default they lie in the exports folder beside the warehouse.
        advance: told what is under way and the share done.
        notify: told when another process has to be waited for.

    Returns:
        Figures of each variant with their intervals, and notes.

    Raises:
        LcmError: when a package is missing, the version cannot be loaded, converted or measured, or a file would not
            score like its model; nothing is written then.
        UsageError: when `out` lies in no folder.
    """
    require_onnx()
    if out and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for --out", "make it, or name another file")
    run = Run("export", {"version": version, "variants": list(variants), "out": out})
    with failure_recorded(run, notify):
        advance("reading", 0.0)
        with connect(read_only=True, notify=notify) as con:
            source = read_source(con, version)
        test = source.frame.at(source.split.test)
        measure = _measure_on(test)
        whole = measure(source.pair.evaluated)
        exports, contents, notes = [], {}, []
        for place, variant in enumerate(variants):
            advance(variant, (place + 0.2) / (len(variants) + 1))
            pair, note = _variant(variant, source)
            notes += [note] if note else []
            if pair is None:
                if len(variants) == 1:
                    raise LcmError(note, "take --variant student, or full")
                continue
            content, difference = convert(pair.served, source.version, variant, test)
            own = whole if variant == FULL else measure(pair.evaluated)
            path = out or project.beside_warehouse("exports") / f"{source.version}-{variant}.onnx"
            contents[path] = content
            x = pair.served.encoding.matrix(test.data)
            exports.append(
                {
                    "variant": variant,
                    "file": path,
                    "bytes": len(content),
                    "microseconds_per_user": microseconds_per_user(onnx_scorer(content, threads=1), x),
                    "max_difference": difference,
                    "auc": figure(own["auc"]),
                    "log_loss": figure(own["log_loss"]),
                    "log_loss_less_full": figure(own["log_loss"].minus(whole["log_loss"])),
                }
            )
        advance("writing", 0.95)
        for path, content in contents.items():
            write_private(path, content)
        record(run, lambda _: {"model_exports": export_rows(source.version, exports, utc_now(), out)}, notify)
    served = source.pair.served
    return {
        "model_version": source.version,
        "measured_on": source.row["evaluated_version"] or source.version,
        "test_date": source.split.test,
        "test_users": test.data.height,
        "as_saved": {
            "bytes": source.saved_bytes,
            "microseconds_per_user": microseconds_per_user(served.predict_encoded, served.encoding.matrix(test.data)),
        },
        "exports": exports,
        "notes": notes,
    }


def require_onnx() -> None:
    """Say what to install where the extra is missing.

    Raises:
        LcmError: naming the package.
    """
    for package in ("onnx", "onnxruntime", "skl2onnx"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise LcmError(f"an export needs {package}, which is not installed", "pip install 'lcm-ml[onnx]'") from None


def read_source(con: duckdb.DuckDBPyConnection, version: str | None) -> Source:
    """A version (default: the champion) with the rows that it learnt from.

    Raises:
        LcmError: when it cannot be loaded, or the marts lack its features or its test date.
    """
    row = find_version(con, version)
    served, manifest = artefacts.load(row["artefact"], row["artefact_hash"])
    evaluated = served
    if row["evaluated_version"]:
        other = find_version(con, row["evaluated_version"])
        evaluated = artefacts.load(other["artefact"], other["artefact_hash"])[0]
    frame = training_frame(con)
    served.encoding.check(frame.data.schema)
    evaluated.encoding.check(frame.data.schema)
    validation, test = (date.fromisoformat(manifest[name]) for name in ("validation_date", "test_date"))
    train = observed_before(evaluated.trained_on, validation, evaluated.horizon_days)
    _require_dates(frame, "measured", row["model_version"], test)
    folder = project.beside_warehouse("artefacts") / row["artefact"]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Source(row, Pair(served, evaluated), frame, Split(tuple(train), validation, test), size)


def _require_dates(frame: Frame, purpose: str, version: str, *dates: date) -> None:
    if gone := sorted(set(dates) - set(frame.dates())):
        raise LcmError(
            f"{version} cannot be {purpose}: {gone[0]} is no longer among the labelled as_of_dates that training reads",
            FIT + " and export its version",
        )


def _measure_on(test: Frame) -> Callable[[ChurnModel], dict[str, Measured]]:
    """A function that measures models on the same users and draws."""
    users, y = test.data.get_column("user_id").to_numpy(), test.labels()
    draws = Resamples([users], 0, RESAMPLES)

    def measure(model: ChurnModel) -> dict[str, Measured]:
        probability = model.predict(test.data)
        return measure_outcome(Outcome(users, y, probability, probability), draws)

    return measure


def _variant(variant: str, source: Source) -> tuple[Pair | None, str]:
    """The models of a variant, None where there is nothing to prune; and how they came about, or why not.

    Raises:
        LcmError: when dates that it learnt from are gone.
    """
    if variant == FULL:
        return source.pair, ""
    known = {*source.pair.served.trained_on, *source.pair.evaluated.trained_on}
    _require_dates(source.frame, "fitted again", source.version, *known)
    found = (pruned if variant == PRUNED else student)(source.pair, source.frame, source.split)
    if found is None:
        return (
            None,
            f"{source.version} has nothing to prune: no trees, or none that cost at most {TOLERANCE} of log loss",
        )
    near = "" if found.cost <= TOLERANCE else f" (no size tried comes within {TOLERANCE})"
    return found.pair, (
        f"{variant}: {found.size}{near}; on the validation date {source.split.validation} log loss "
        f"{found.validation_log_loss:.4f}, of the whole model {found.whole_log_loss:.4f}; expected cost "
        f"{found.expected_cost:.4f}"
    )


def convert(model: ChurnModel, version: str, variant: str, rows: Frame) -> tuple[bytes, float]:
    """The model as ONNX, and its largest difference from the model on these rows.

    Raises:
        LcmError: when it cannot be converted, or a probability differs by more than AGREEMENT.
    """
    from lcm_ml.churn.onnx_export import to_onnx

    content = to_onnx(model, version, variant)
    difference = largest_difference(content, model, model.encoding.matrix(rows.data))
    # Not a number is no agreement.
    if not difference <= AGREEMENT:
        raise LcmError(
            f"the {variant} export of {version} is not kept: a probability differs by {difference:.1e} from the "
            f"model's, more than {AGREEMENT:.0e}",
            "an isotonic calibration does this where two steps nearly touch; export a version with another calibration "
            "(`lcm-ml models show` names it) or estimator",
        )
    return content, difference


def largest_difference(content: bytes, model: ChurnModel, x: FloatMatrix) -> float:
    """Between the file's and the model's probabilities of these rows, in one batch and in small ones."""
    score = onnx_scorer(content)
    expected = model.predict_encoded(x)
    small = np.concatenate([score(x[start : start + SMALL_BATCH]) for start in range(0, len(x), SMALL_BATCH)])
    return float(max(np.abs(score(x) - expected).max(), np.abs(small - expected).max()))


def onnx_scorer(content: bytes, threads: int = 0) -> Callable[[FloatMatrix], Any]:
    """A function from encoded rows to probabilities; `threads` 0 is as many as there are cores."""
    import onnxruntime

    from lcm_ml.churn.onnx_export import INPUT

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {INPUT: x})[0]


def microseconds_per_user(score: Callable[[FloatMatrix], Any], x: FloatMatrix) -> float:
    """Median time of REPEATS runs over all rows in one batch, encoding left out."""
    score(x)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        score(x)
        seconds.append(time.perf_counter() - started)
    return 1e6 * statistics.median(seconds) / len(x)


def write_private(path: Path, content: bytes) -> None:
    """A file for its owner alone, which appears whole or not at all.

    Raises:
        OSError: when it cannot be written; nothing is left behind.
    """
    if path.parent == project.beside_warehouse("exports"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def export_rows(version: str, exports: list[dict[str, Any]], now: datetime, out: Path | None) -> pl.DataFrame:
    """Rows of ml.model_exports."""
    return pl.DataFrame(
        [
            {
                "model_version": version,
                "format": FORMATS[0],
                "variant": export["variant"],
                "file": str(out or export["file"].name),
                **{name: export[name] for name in ("bytes", "microseconds_per_user", "max_difference")},
                **{metric: export[metric]["value"] for metric in ("auc", "log_loss")},
                "exported_at": now,
            }
            for export in exports
        ]
    )
