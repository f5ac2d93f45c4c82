"""Sentiment of texts: a logistic regression on n-grams and counts of opinion words, refitted in every run.

Word n-grams and a lexicon with negation follow what is usual for short reviews (Pang, Lee and Vaithyanathan 2002; Hutto
and Gilbert 2014 for what "not" and "but" do). Nothing is downloaded and nothing is saved.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.words.language import plain_texts
from lcm_ml.insights.words.lexicon import COUNTS, Reading, lexicon, read_text

LABELS = ("negative", "neutral", "positive")
FEWEST_RATED = 50
"""Rated reviews of a language from which on they are learnt from."""
MOST_RATED = 2000
"""The newest so many of them are."""
C, COUNT_WEIGHT = 4.0, 1.0
"""Strength of the fit, and of the counts beside TF-IDF: chosen by cross-validation on the base corpus."""
MOST_TERMS = 8000
BATCH = 20_000


@dataclass(frozen=True)
class SentimentModel:
    """A fitted model of one language.

    Attributes:
        language: en or zh.
        rated: reviews of the shop that it learnt from, 0 for the base model.
    """

    language: str
    rated: int
    _tfidf: Any
    _classifier: Any

    def probabilities(self, plain: list[str]) -> npt.NDArray[np.float64]:
        """(n, 3) probabilities in the order of LABELS; NaN where a text has nothing to judge."""
        words = lexicon(self.language)
        found = np.full((len(plain), len(LABELS)), np.nan)
        for start in range(0, len(plain), BATCH):
            readings = [read_text(text, words) for text in plain[start : start + BATCH]]
            full = [place for place, reading in enumerate(readings) if not reading.is_empty]
            if full:
                matrix = _matrix([readings[place] for place in full], self._tfidf)
                found[[start + place for place in full]] = self._classifier.predict_proba(matrix)
        return found


def base_corpus(language: str) -> pl.DataFrame:
    """Labelled sentences that were written for this package: kind, label, text."""
    source = resources.files("lcm_ml.insights.words") / "data" / f"{language}_corpus.csv"
    return pl.DataFrame(list(csv.DictReader(source.read_text(encoding="utf-8").splitlines())))


@cache
def _base_readings(language: str) -> tuple[list[Reading], list[str]]:
    corpus = plain_texts(base_corpus(language))
    words = lexicon(language)
    return [read_text(text, words) for text in corpus["plain"]], corpus["label"].to_list()


@cache
def base_model(language: str) -> SentimentModel:
    """The model that knows the base corpus only: it judges tickets, whose writers gave no rating."""
    return _fitted(language, *_base_readings(language), rated=0)


def shop_model(language: str, rated: pl.DataFrame) -> SentimentModel:
    """The model that also knows the shop's own rated reviews; the base model where they are too few.

    Args:
        language: en or zh.
        rated: plain, rating; oldest first. The caller takes care that they lie before the as_of_date.
    """
    if rated.height < FEWEST_RATED:
        return base_model(language)
    newest = rated.tail(MOST_RATED)
    words = lexicon(language)
    readings, labels = _base_readings(language)
    own = [read_text(text, words) for text in newest["plain"]]
    return _fitted(language, readings + own, labels + rated_labels(newest["rating"]).to_list(), rated=newest.height)


def rated_labels(ratings: pl.Series) -> pl.Series:
    """Labels of ratings: up to 2 stars negative, from 4 on positive, between them neutral."""
    return pl.select(
        pl.when(ratings <= 2)
        .then(pl.lit("negative"))
        .when(ratings >= 4)
        .then(pl.lit("positive"))
        .otherwise(pl.lit("neutral"))
    ).to_series()


def _fitted(language: str, readings: list[Reading], labels: list[str], rated: int) -> SentimentModel:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    tfidf = TfidfVectorizer(analyzer=_tokens, sublinear_tf=True, min_df=2, max_features=MOST_TERMS, dtype=np.float64)
    tfidf.fit(readings)
    classifier = LogisticRegression(C=C, class_weight="balanced", max_iter=100, tol=1e-3)
    classifier.fit(_matrix(readings, tfidf), labels)
    return SentimentModel(language, rated, tfidf, classifier)


def _tokens(reading: Reading) -> list[str]:
    return reading.tokens


def _matrix(readings: list[Reading], tfidf: Any) -> Any:
    from scipy import sparse

    counts = COUNT_WEIGHT * np.array([reading.counts for reading in readings]).reshape(-1, len(COUNTS))
    return sparse.hstack([tfidf.transform(readings), sparse.csr_matrix(counts)], format="csr")
