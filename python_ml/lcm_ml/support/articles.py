"""Search in a knowledge base: BM25 over terms, and cosine in the space of a truncated SVD of TF-IDF."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.insights.words.language import plain_texts
from lcm_ml.support.tokens import terms

K1, B = 1.2, 0.75
TITLE_WEIGHT = 2
"""Terms of the title count so often."""
DIMENSIONS = 100
MOST_TERMS = 30_000
SHOWN = 400
"""Letters of an article that are cited whole."""
SENTENCES = 3

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ArticleIndex:
    """The articles of one language, ready to be searched.

    Attributes:
        language: en or zh.
        articles: article_id, intent, title, body and plain (title and body); a row per article.
    """

    language: str
    articles: pl.DataFrame
    _counter: Any
    _weights: Any
    _idf: Matrix
    _tfidf: Any
    _projection: Matrix
    _places: Matrix
    _intents: tuple[str | None, ...]
    _intent_of: npt.NDArray[np.intp]

    def bm25(self, plain: Sequence[str]) -> Matrix:
        """(n, articles) share of the greatest BM25 that each question could reach, 0 to 1.

        Terms that no article has count in the greatest one with the largest weight there is, so that a question about
        something else stays low whatever single word it shares.
        """
        found = np.zeros((len(plain), self.articles.height))
        vocabulary, weights = self._counter.vocabulary_, self._weights
        for row, text in zip(found, plain, strict=True):
            asked = dict.fromkeys(terms(text, self.language))
            known = [vocabulary[term] for term in asked if term in vocabulary]
            if known:
                for term in known:
                    own = slice(weights.indptr[term], weights.indptr[term + 1])
                    row[weights.indices[own]] += weights.data[own]
                row /= (K1 + 1) * (self._idf[known].sum() + (len(asked) - len(known)) * self._idf.max())
        return found

    def cosine(self, plain: Sequence[str]) -> Matrix:
        """(n, articles) cosine with each article, 0 where it is negative."""
        if not plain or not self._projection.shape[1]:
            return np.zeros((len(plain), self.articles.height))
        places = _unit(self._tfidf.transform(plain) @ self._projection)
        return np.asarray(np.maximum(places @ self._places.T, 0.0))

    def priors(self, intents: Sequence[str], probabilities: Matrix) -> Matrix:
        """(n, articles) probability of each article's intent.

        An intent that is none of `intents`, or none at all: nothing is known for or against it, so all are equal.

        Args:
            intents: of the columns of `probabilities`.
            probabilities: (n, intents).
        """
        columns = {intent: place for place, intent in enumerate(intents)}
        padded = np.hstack([probabilities, np.full((len(probabilities), 1), 1 / len(intents))])
        by_intent = padded[:, [columns.get(intent or "", -1) for intent in self._intents]]
        return np.asarray(by_intent[:, self._intent_of])

    def overlap(self, plain: Sequence[str]) -> Matrix:
        """(n, articles) number of different terms in common: plain keyword matching, to compare with."""
        asked = self._counter.transform([("", text) for text in plain])
        return np.asarray(((asked > 0).astype(float) @ (self._weights > 0).astype(float).T).todense())

    def passage(self, place: int, plain: str) -> str:
        """What an article says to a question: the body, or the sentences of a long one that share the most terms."""
        body = str(self.articles.item(place, "body") or "")
        if len(body) <= SHOWN:
            return body
        sentences = _sentences(body)
        asked = set(terms(plain, self.language))
        shared = [len(asked & set(terms(sentence.lower(), self.language))) for sentence in sentences]
        sums = [sum(shared[start : start + SENTENCES]) for start in range(max(1, len(sentences) - SENTENCES + 1))]
        start = int(np.argmax(sums))
        return "".join(sentences[start : start + SENTENCES]).strip()[: 2 * SHOWN]


def index_articles(articles: pl.DataFrame) -> dict[str, ArticleIndex]:
    """An index for each language that has articles with any words in them.

    Args:
        articles: article_id, intent, title, body.
    """
    told = articles.with_columns(
        text=pl.concat_str(pl.col("title").fill_null(""), pl.lit("\n"), pl.col("body").fill_null(""))
    )
    found = {}
    for (language,), rows in plain_texts(told).sort("article_id").group_by("language", maintain_order=True):
        if index := _index(str(language), rows):
            found[str(language)] = index
    return found


def _index(language: str, rows: pl.DataFrame) -> ArticleIndex | None:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    if language not in ("en", "zh"):
        return None
    titles = plain_texts(rows.select(text="title"))["plain"].to_list()
    plain = rows["plain"].to_list()
    counter = CountVectorizer(analyzer=_Analyser(language))
    try:
        counts = counter.fit_transform(list(zip(titles, plain, strict=True))).astype(np.float64)
    except ValueError:  # scikit-learn's word for texts without a single term
        return None
    present = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf = np.log1p((len(plain) - present + 0.5) / (present + 0.5))
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    weights = counts.tocoo()
    norm = K1 * (1 - B + B * lengths / lengths.mean())
    weights.data = idf[weights.col] * weights.data * (K1 + 1) / (weights.data + norm[weights.row])

    letters = (
        {"analyzer": "char_wb", "ngram_range": (3, 5)}
        if language == "en"
        else {"analyzer": "char", "ngram_range": (1, 2)}
    )
    tfidf = TfidfVectorizer(**letters, sublinear_tf=True, max_features=MOST_TERMS)
    matrix = tfidf.fit_transform(plain)
    size = min(DIMENSIONS, matrix.shape[0] - 1, matrix.shape[1] - 1)
    # What scikit-learn keeps is turned over, which would be copied with every question.
    projection = np.zeros((matrix.shape[1], 0))
    if size >= 1:
        projection = np.ascontiguousarray(TruncatedSVD(size, n_iter=2, random_state=0).fit(matrix).components_.T)
    names = tuple(rows["intent"].unique(maintain_order=True))
    codes = {name: place for place, name in enumerate(names)}
    intent_of = np.array([codes[name] for name in rows["intent"]])
    kept = rows.select("article_id", "intent", "title", "body", "plain")
    places = _unit(matrix @ projection)
    return ArticleIndex(language, kept, counter, weights.tocsc(), idf, tfidf, projection, places, names, intent_of)


class _Analyser:
    """Terms of an article: those of its title, more than once, and of its text, which has the title once already."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, article: tuple[str, str]) -> list[str]:
        title, plain = article
        return (TITLE_WEIGHT - 1) * terms(title, self.language) + terms(plain, self.language)


def _unit(rows: Matrix) -> Matrix:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1.0))


def _sentences(body: str) -> list[str]:
    return [
        part for part in re.findall(r"[^.!?。！？\n]*[.!?。！？\n]+\s*|[^.!?。！？\n]+$", body) if part.strip()
    ] or [body]
