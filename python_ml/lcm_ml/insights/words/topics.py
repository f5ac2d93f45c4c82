"""What the texts are about: non-negative matrix factorisation of TF-IDF, with ids that stay from run to run."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.words.lexicon import lexicon

WORDS = 8
"""Words that describe a topic."""
FEWEST_TEXTS = 30
"""Different texts of a language from which on topics are looked for."""
MOST_TEXTS = 10_000
"""The newest so many different texts are looked at; every text then gets its topic."""
TOPIC_COUNTS = (4, 5, 6, 8, 10)
MOST_TRIED = 3000
"""The number of topics is chosen on the newest so many of them."""
VOCABULARY = 2000
SWEEPS = 20
LEAST_LOADING = 0.1
"""Of a text, whose TF-IDF has length 1, in a topic's direction: a text with less is about none."""
SAME_TOPIC = 0.25
"""Share of common words (Jaccard) from which on a topic takes over an earlier one's id."""
CONTAINED = 0.7
"""A Chinese n-gram that mostly occurs within a longer one is no word of its own."""

_ENGLISH_WORD = re.compile(r"[^\W\d_]{3,}")
_HAN = re.compile(r"[一-鿿]+")


@dataclass(frozen=True)
class Topics:
    """Fitted topics of one language.

    Attributes:
        ids: of each topic.
        words: of each topic, the heaviest first.
        quality: coherence times diversity at this number of topics.
    """

    language: str
    ids: tuple[int, ...]
    words: tuple[tuple[str, ...], ...]
    quality: float
    _tfidf: Any
    _factors: Any

    def of(self, plain: Sequence[str]) -> list[int | None]:
        """The topic of each text; None where none is in it to a noticeable degree."""
        weights = _loadings(self._tfidf.transform(plain), self._factors)
        best = weights.argmax(axis=1)
        found = weights.max(axis=1) >= LEAST_LOADING
        return [self.ids[topic] if there else None for topic, there in zip(best, found, strict=True)]


def fit_topics(language: str, plain: Sequence[str], known: pl.DataFrame, n_topics: int | None = None) -> Topics | None:
    """Topics of the texts; None where there are too few.

    Without `n_topics`, the number is that of TOPIC_COUNTS with the greatest topic quality: NPMI coherence of a topic's
    words times the share of words that no other topic has (Dieng, Ruiz and Blei 2020).

    Args:
        language: en or zh.
        plain: texts, oldest first.
        known: topic_id and words (joined by ", ") of earlier runs, newest first; a topic that has most words in
            common with one of the newest takes over its id, and no other id is used again.
        n_topics: of them, where it is given.
    """
    distinct = list(dict.fromkeys(reversed(plain)))[:MOST_TEXTS]
    if len(distinct) < FEWEST_TEXTS:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer

    terms = _terms(language, distinct)
    if len(terms) < 2 * WORDS:
        return None
    vocabulary = {term: place for place, term in enumerate(terms)}
    analyse = _words if language == "en" else _Segmenter(vocabulary)
    tfidf = TfidfVectorizer(analyzer=analyse, vocabulary=vocabulary, sublinear_tf=True)
    matrix = tfidf.fit_transform(distinct)
    matrix = matrix[matrix.getnnz(axis=1) > 0]
    most = min(matrix.shape[0] // 5, len(terms) // WORDS)
    counts = [n for n in ([n_topics] if n_topics else TOPIC_COUNTS) if n <= most]
    if not counts:
        return None
    if len(counts) > 1:
        counts = [max(counts, key=lambda n: _factorised(matrix[:MOST_TRIED], terms, n)[0])]
    quality, factors, words = _factorised(matrix, terms, counts[0])
    return Topics(language, _ids(words, known), words, quality, tfidf, factors)


def _words(text: str) -> list[str]:
    stop = lexicon("en").stop
    return [word for word in _ENGLISH_WORD.findall(text.replace("'", "")) if word not in stop]


class _Segmenter:
    """Cuts Chinese text into known terms, the longest first."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.vocabulary = vocabulary

    def __call__(self, text: str) -> list[str]:
        found = []
        for run in _HAN.findall(text):
            place = 0
            while place < len(run) - 1:
                for size in (4, 3, 2):
                    if (term := run[place : place + size]) in self.vocabulary:
                        found.append(term)
                        place += len(term)
                        break
                else:
                    place += 1
        return found


def _terms(language: str, texts: list[str]) -> list[str]:
    """The vocabulary: terms of at least 2 and at most half of the texts, the most frequent ones, in order."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(_words(text)) if language == "en" else _han_grams(text))
    fewest = max(2, len(texts) // 2000)
    kept = {term: n for term, n in counts.items() if fewest <= n <= len(texts) / 2}
    if language == "zh":
        longer: dict[str, int] = {}
        for term, n in kept.items():
            for part in (term[1:], term[:-1]):
                longer[part] = max(longer.get(part, 0), n)
        kept = {term: n for term, n in kept.items() if longer.get(term, 0) < CONTAINED * n}
    ranked = sorted(kept, key=lambda term: (-kept[term], term))
    return sorted(ranked[:VOCABULARY])


def _han_grams(text: str) -> set[str]:
    """Runs of 2 to 4 Chinese characters without a function word at either end: what may be a word."""
    stop = lexicon("zh").stop
    grams = set()
    for run in _HAN.findall(text):
        for size in (2, 3, 4):
            for start in range(len(run) - size + 1):
                gram = run[start : start + size]
                if gram[0] not in stop and gram[-1] not in stop:
                    grams.add(gram)
    return grams


def _factorised(matrix: Any, terms: list[str], n_topics: int) -> tuple[float, npt.NDArray[np.float64], tuple[Any, ...]]:
    import warnings

    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    # nndsvda with a fixed state: the same texts have the same topics.
    model = NMF(n_topics, init="nndsvda", random_state=0, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(matrix)
    factors = model.components_
    heaviest = np.argsort(-factors, axis=1, kind="stable")[:, :WORDS]
    words = tuple(tuple(terms[k] for k in row if factor[k] > 0) for row, factor in zip(heaviest, factors, strict=True))
    return _quality(matrix, heaviest), factors, words


def _quality(matrix: Any, heaviest: npt.NDArray[np.intp]) -> float:
    """Mean NPMI of the word pairs of each topic, times the share of distinct words."""
    used, places = np.unique(heaviest, return_inverse=True)
    seen = (matrix[:, used] > 0).astype(float)
    together = np.asarray((seen.T @ seen).todense()) / matrix.shape[0]
    alone = np.diag(together)
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi = np.log(together / np.outer(alone, alone)) / -np.log(together)
    npmi = np.where(together > 0, np.nan_to_num(npmi, nan=1.0, posinf=1.0), -1.0)
    topics = places.reshape(heaviest.shape)
    upper = np.triu_indices(heaviest.shape[1], 1)
    coherence = float(np.mean([npmi[np.ix_(topic, topic)][upper].mean() for topic in topics]))
    return (coherence + 1) / 2 * len(used) / heaviest.size


def _loadings(matrix: Any, factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much of each topic is in each text: non-negative least squares by coordinate descent, all texts at once."""
    scale = np.linalg.norm(factors, axis=1, keepdims=True)
    unit = factors / np.where(scale > 0, scale, 1.0)
    toward, between = np.asarray(matrix @ unit.T), unit @ unit.T
    weights: npt.NDArray[np.float64] = np.maximum(toward, 0.0) / len(factors)
    for _ in range(SWEEPS):
        for topic in range(len(factors)):
            rest = weights @ between[:, topic] - weights[:, topic] * between[topic, topic]
            weights[:, topic] = np.maximum(toward[:, topic] - rest, 0.0) / max(between[topic, topic], 1e-12)
    return weights


def _ids(words: tuple[tuple[str, ...], ...], known: pl.DataFrame) -> tuple[int, ...]:
    """Ids by common words with the newest known topics (Hungarian assignment), new ones after the largest ever used."""
    from scipy.optimize import linear_sum_assignment

    largest = int(known["topic_id"].max() or 0) if known.height else 0  # type: ignore[arg-type]
    newest = known.filter(pl.col("as_of_date") == pl.col("as_of_date").max()) if known.height else known
    earlier = [(row["topic_id"], set(row["words"].split(", "))) for row in newest.to_dicts()]
    taken: dict[int, int] = {}
    if earlier:
        common = np.array([[len(set(own) & before) / len(set(own) | before) for _, before in earlier] for own in words])
        for own, before in zip(*linear_sum_assignment(-common), strict=True):
            if common[own, before] >= SAME_TOPIC:
                taken[int(own)] = int(earlier[before][0])
    ids = []
    for topic in range(len(words)):
        if topic not in taken:
            largest += 1
            taken[topic] = largest
        ids.append(taken[topic])
    return tuple(ids)
