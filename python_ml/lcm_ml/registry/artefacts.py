"""Artefact folders: a fitted model, its manifest, and hashes that show any change. Nothing in them can run code."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import lcm_ml
from lcm_ml import project
from lcm_ml.churn.calibration import Calibration
from lcm_ml.churn.encoding import Encoding
from lcm_ml.churn.estimator import CUSTOM, ESTIMATORS, estimator_class
from lcm_ml.churn.model import ChurnModel
from lcm_ml.errors import LcmError

FORMAT = 2
MANIFEST = "manifest.json"
CALIBRATION = "calibration.json"
AGAIN = "train again with `lcm-ml fit`, or score with another --model-version"
PACKAGES = ("numpy", "polars", "scikit-learn", "skops", "xgboost-cpu", "xgboost", "duckdb")


@dataclass(frozen=True)
class Saved:
    """An artefact on disk: its folder's name under the artefacts folder, and the SHA-256 of its manifest."""

    artefact: str
    artefact_hash: str


def save(model: ChurnModel, version: str, facts: dict[str, Any]) -> Saved:
    """Write the artefact into a folder of its own, which appears whole or not at all.

    Args:
        model: what to keep.
        version: the folder's name; it must be new.
        facts: more for the manifest (run, metrics, data fingerprint ...), as JSON takes it.

    Raises:
        OSError: when the folder cannot be written; nothing is left behind.
    """
    home = project.beside_warehouse("artefacts")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkdtemp makes the folder for its owner alone.
    partial = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=home))
    try:
        model.estimator.save(partial)
        (partial / CALIBRATION).write_text(json.dumps(model.calibration.to_dict()), encoding="utf-8")
        manifest = _manifest(model, version, facts) | {
            "files": {
                path.relative_to(partial).as_posix(): _sha256(path.read_bytes())
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            }
        }
        content = json.dumps(manifest, indent=2, allow_nan=False).encode()
        (partial / MANIFEST).write_bytes(content)
        for path in partial.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        os.rename(partial, home / version)  # noqa: PTH104
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Saved(version, _sha256(content))


def load(artefact: str, artefact_hash: str) -> tuple[ChurnModel, dict[str, Any]]:
    """Read an artefact back, after checking every hash.

    Args:
        artefact: the folder's name, from ml.model_versions.
        artefact_hash: SHA-256 of its manifest, from the same row.

    Returns:
        The model, which predicts exactly as it did when it was saved, and its manifest.

    Raises:
        LcmError: when it is missing, was changed, or has a format that this code does not know.
    """
    manifest = read_manifest(artefact, artefact_hash)
    folder = project.beside_warehouse("artefacts") / artefact
    try:
        estimator = estimator_class(manifest["kind"]).load(folder, manifest["seed"], manifest["settings"])
    except LcmError:
        raise
    except Exception as error:  # What a library says of bytes that it did not write can be anything.
        raise LcmError(f"{folder} holds no {manifest['kind']} model ({type(error).__name__})", AGAIN) from error
    model = ChurnModel(
        encoding=Encoding.from_dict(manifest["columns"]),
        estimator=estimator,
        calibration=Calibration.from_dict(json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))),
        trained_on=tuple(date.fromisoformat(day) for day in manifest["trained_on"]),
        horizon_days=manifest["label"]["horizon_days"],
        constant=tuple(manifest["constant_columns"]),
    )
    return model, manifest


def read_manifest(artefact: str, artefact_hash: str) -> dict[str, Any]:
    """The manifest alone, after checking every hash; arguments and errors are those of load."""
    if not re.fullmatch(r"[\w][\w.-]*", artefact):
        raise LcmError(f"{artefact!r} is no name of an artefact", AGAIN)
    folder = project.beside_warehouse("artefacts") / artefact
    if not (folder / MANIFEST).is_file():
        raise LcmError(f"the artefact {folder} is missing", AGAIN)
    content = (folder / MANIFEST).read_bytes()
    if _sha256(content) != artefact_hash:
        raise LcmError(f"{folder / MANIFEST} was changed after it was saved", AGAIN)
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format"] == 1:
        # Before one could bring an estimator of one's own, a model's name was its kind.
        manifest |= {"format": FORMAT, "kind": manifest["model_name"]}
    if manifest["format"] != FORMAT or manifest["kind"] not in (*ESTIMATORS, CUSTOM):
        raise LcmError(f"{folder} was saved by another version of lcm-ml ({manifest['code_version']})", AGAIN)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise LcmError(f"{path} is missing", AGAIN)
        if _sha256(path.read_bytes()) != expected:
            raise LcmError(f"{path} was changed after it was saved", AGAIN)
    return manifest


def _manifest(model: ChurnModel, version: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model_version": version,
        "model_name": model.name,
        "kind": model.name if model.name in ESTIMATORS else CUSTOM,
        "settings": model.estimator.settings,
        "seed": model.estimator.seed,
        "calibration": model.calibration.kind,
        "label": {
            "name": "is_churned",
            "definition": f"no purchase in [as_of_date, as_of_date + {model.horizon_days} days)",
            "horizon_days": model.horizon_days,
        },
        "trained_on": [day.isoformat() for day in model.trained_on],
        "columns": model.encoding.to_dict(),
        "constant_columns": list(model.constant),
        "code_version": lcm_ml.__version__,
        "python": platform.python_version(),
        "packages": _versions(),
        **facts,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
