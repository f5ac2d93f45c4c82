"""What a text says word by word: its n-grams, and opinion words with what turns them round."""

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import pairwise

import yaml

COUNTS = (
    "positive",
    "negative",
    "not_positive",
    "not_negative",
    "neutral",
    "question",
    "positive_last",
    "negative_last",
)
MOST = 3
"""Opinion words of a kind beyond this many add nothing."""
NEGATED_WORDS, NEGATED_CHARACTERS = 4, 5
"""How far "not" reaches, unless a clause ends before."""
LONGEST_PHRASE = {"en": 6, "zh": 8}

_ENGLISH_UNITS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[:;]-?[()d]|<3|[^\w\s]️?")
_CHINESE_UNITS = re.compile(r"[a-z]+|\d+|[^\s]️?")
_CLAUSE_ENDS = frozenset(".,!?;:()，。！？；：、…~～-")
_EMPTY: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """A text as the model sees it: tokens for TF-IDF, and counts of opinion words in the order of COUNTS."""

    tokens: list[str]
    counts: list[float]

    @property
    def is_empty(self) -> bool:
        """Nothing in it that could carry an opinion."""
        return not self.tokens and not any(self.counts)


@dataclass(frozen=True)
class Lexicon:
    """Opinion words of a language. `roles` maps a phrase to its role, `reach` a first unit to the longest phrase."""

    language: str
    roles: dict[str, str]
    reach: dict[str, int]
    stop: frozenset[str]
    _memory: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def joint(self) -> str:
        """Between the units of a phrase."""
        return " " if self.language == "en" else ""

    def role_of_word(self, word: str) -> str:
        """The role of an English word, by itself or without an ending; empty where it has none."""
        known = self._memory.get(word)
        if known is None:
            known = self._memory[word] = self._found(word)
        return known

    def _found(self, word: str) -> str:
        if word.endswith("n't"):
            return "negator"
        for ending, instead in (("", _EMPTY), ("s", ("",)), ("ed", ("", "e")), ("ing", ("", "e")), ("ly", ("",))):
            if not ending:
                if word in self.roles:
                    return self.roles[word]
            elif word.endswith(ending) and len(word) > len(ending) + 2:
                for letters in instead:
                    role = self.roles.get(word[: -len(ending)] + letters, "")
                    if role in ("positive", "negative"):
                        return role
        return ""


@cache
def lexicon(language: str) -> Lexicon:
    """The lexicon of a language, from data/<language>_lexicon.yml."""
    source = resources.files("lcm_ml.insights.words") / "data" / f"{language}_lexicon.yml"
    entries = yaml.safe_load(source.read_text(encoding="utf-8"))
    roles: dict[str, str] = {}
    for role in ("question", "neutral", "positive", "negative", "contrast", "negator"):
        for term in str(entries[role]).split(","):
            phrase = " ".join(_units(language, term.strip().lower())) if language == "en" else term.strip().lower()
            if phrase:
                roles[phrase] = role
    reach: dict[str, int] = {}
    for phrase in roles:
        units = phrase.split(" ") if language == "en" else _units(language, phrase)
        reach[units[0]] = max(reach.get(units[0], 0), min(len(units), LONGEST_PHRASE[language]))
    stop = frozenset(term.strip() for term in str(entries["stop"]).split(","))
    return Lexicon(language, roles, reach, stop)


def _units(language: str, text: str) -> list[str]:
    return (_ENGLISH_UNITS if language == "en" else _CHINESE_UNITS).findall(text)


def read_text(text: str, words: Lexicon) -> Reading:
    """Scan a plain text once.

    A negator turns the opinion words that follow it in its clause; what comes after the last "but" counts once more,
    since it is what a writer ends on.
    """
    units = _units(words.language, text)
    tokens: list[str] = []
    opinions: list[tuple[str, int]] = []
    contrast_at = -1
    turned = 0
    neutral = question = 0
    place, length, english = 0, len(units), words.language == "en"
    joint, roles, reach = words.joint, words.roles, words.reach
    while place < length:
        unit = units[place]
        size, role = 1, ""
        longest = reach.get(unit, 0)
        for tried in range(min(longest, length - place), 0, -1):
            role = roles.get(joint.join(units[place : place + tried]) if tried > 1 else unit, "")
            if role:
                size = tried
                break
        if not role and english:
            role = words.role_of_word(unit)
        if role in ("positive", "negative"):
            opinions.append((f"not_{role}" if turned > 0 else role, place))
        elif role == "neutral":
            neutral += 1
        elif role == "question":
            question += 1
        elif role == "contrast":
            contrast_at, turned = place, 0
        if unit in _CLAUSE_ENDS:
            turned = 0
            question += unit in "?？"
        elif english:
            tokens.append(f"not_{unit}" if turned > 0 else unit)
            tokens.extend(f"not_{unit}" if turned > 0 else unit for unit in units[place + 1 : place + size])
        turned -= size
        if role == "negator":
            turned = NEGATED_WORDS if english else NEGATED_CHARACTERS
        place += size
    counts = dict.fromkeys(COUNTS, 0.0)
    for opinion, _ in opinions:
        counts[opinion] += 1
    if contrast_at > 0:
        for opinion, where in opinions:
            if where > contrast_at:
                counts["positive_last" if opinion in ("positive", "not_negative") else "negative_last"] += 1
    counts["neutral"], counts["question"] = neutral, question
    return Reading(_n_grams(tokens if english else units, english), [min(counts[name], MOST) for name in COUNTS])


def _n_grams(units: list[str], english: bool) -> list[str]:
    if english:
        return units + [f"{first} {second}" for first, second in pairwise(units)]
    text = "".join(" " if unit in _CLAUSE_ENDS else unit for unit in units)
    grams = [letter for letter in text if letter != " "]
    for size in (2, 3):
        grams += [gram for k in range(len(text) - size + 1) if " " not in (gram := text[k : k + size])]
    return grams
