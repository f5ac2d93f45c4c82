"""What a question is about: a linear model on TF-IDF of words and characters, with calibrated probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.support.corpus import UNKNOWN
from lcm_ml.support.tokens import terms

C = 0.3
"""Strength of the fit: chosen, like the features, by cross-validation on the base questions."""
MOST_TERMS = 10_000
FOLDS = 5
LEAST_PROBABILITIES = tuple(np.arange(0.2, 0.81, 0.02).round(2).tolist())

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class IntentModel:
    """A fitted model of one language.

    Attributes:
        intents: what it tells apart, in the order of the probabilities; unknown is one of them.
        least_probability: below it, the intent is unknown.
        out_of_fold: (n, intents) calibrated probabilities of what it learnt from, by models without it.
    """

    intents: tuple[str, ...]
    least_probability: float
    out_of_fold: Matrix
    _temperature: float
    _pipeline: Any

    def probabilities(self, plain: Sequence[str]) -> Matrix:
        """(n, intents) calibrated probabilities."""
        if not plain:
            return np.empty((0, len(self.intents)))
        return _softened(_margins(self._pipeline.decision_function(list(plain))), self._temperature)

    def told(self, probabilities: Matrix) -> list[tuple[str, float]]:
        """The likeliest intent of each row with its probability; unknown below `least_probability`."""
        best = probabilities.argmax(axis=1)
        return [
            (self.intents[place] if row[place] >= self.least_probability else UNKNOWN, float(row[place]))
            for place, row in zip(best, probabilities, strict=True)
        ]


def fit_intents(language: str, rows: pl.DataFrame) -> IntentModel:
    """Fit, calibrate and choose the least probability, all by cross-validation on the rows themselves.

    Calibration is temperature scaling (Guo et al. 2017): one number, so few texts are enough. The least probability
    is the one with the greatest macro-F1 out of fold.

    Args:
        language: en or zh.
        rows: plain and intent, from `lesson`; at least 5 of each intent.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    texts, intents = rows["plain"].to_list(), rows["intent"].to_numpy()
    names, truth = np.unique(intents.astype(str), return_inverse=True)
    pipeline = _pipeline(language)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    logits = _margins(cross_val_predict(pipeline, texts, truth, cv=folds, method="decision_function"))
    temperature = _temperature(logits, truth)
    calibrated = _softened(logits, temperature)
    unknown = int(np.flatnonzero(names == UNKNOWN)[0]) if UNKNOWN in names else len(names)
    best, surest = calibrated.argmax(axis=1), calibrated.max(axis=1)
    quality = [_macro_f1(truth, np.where(surest >= least, best, unknown)) for least in LEAST_PROBABILITIES]
    least = LEAST_PROBABILITIES[int(np.argmax(quality))]
    return IntentModel(tuple(names.tolist()), least, calibrated, temperature, pipeline.fit(texts, truth))


def _pipeline(language: str) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    if language == "en":
        words = TfidfVectorizer(analyzer=partial(terms, language="en"), sublinear_tf=True, max_features=MOST_TERMS)
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=MOST_TERMS)
        features = make_union(words, letters)
    else:
        features = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_TERMS)
    return make_pipeline(features, LinearSVC(C=C, class_weight="balanced", random_state=0))


def _margins(found: Matrix) -> Matrix:
    """(n, intents) distances from the planes; of two intents scikit-learn tells one distance alone."""
    return np.column_stack([-found, found]) if found.ndim == 1 else found


def _softened(logits: Matrix, temperature: float) -> Matrix:
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    softened: Matrix = powers / powers.sum(axis=1, keepdims=True)
    return softened


def _temperature(logits: Matrix, truth: npt.NDArray[np.intp]) -> float:
    from scipy.optimize import minimize_scalar

    def log_loss(exponent: float) -> float:
        told = _softened(logits, float(np.exp(exponent)))[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(told, 1e-12)).mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=(-5.0, 2.0), method="bounded").x))


def _macro_f1(truth: npt.NDArray[np.intp], told: npt.NDArray[np.intp]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, told, labels=np.unique(truth), average="macro", zero_division=0))
