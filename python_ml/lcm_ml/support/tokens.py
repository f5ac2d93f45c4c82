"""Texts as terms to search by: words without their endings for English, pairs of characters for Chinese."""

import re
from functools import cache

from lcm_ml.insights.words.lexicon import lexicon

_ENGLISH = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_CHINESE = re.compile(r"[a-z0-9]+|[一-鿿]+")
_ENDINGS = (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", ""))
_SHORTEST = 3


def terms(text: str, language: str) -> list[str]:
    """Terms of a plain text, in order, with repeats. Words that say nothing are left out."""
    if language == "zh":
        found = []
        for run in _CHINESE.findall(text):
            pairs = [run[k : k + 2] for k in range(len(run) - 1)]
            found += [run] if run[0].isascii() or len(run) == 1 else pairs
        return found
    stop = _stop()
    return [_stem(word) for word in _ENGLISH.findall(text) if word.replace("'", "") not in stop]


@cache
def _stop() -> frozenset[str]:
    return frozenset(word.replace("'", "") for word in lexicon("en").stop)


def _stem(word: str) -> str:
    """The word without a common ending: enough for "returned" to meet "returns"; no more is wanted of it."""
    word = word.removesuffix("'s")
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST:
            return _without_double(word[: -len(ending)] + instead)
    return word


def _without_double(stem: str) -> str:
    return stem[:-1] if len(stem) > _SHORTEST and stem[-1] == stem[-2] and stem[-1] not in "aeiouls" else stem
