"""Texts made plain, and the language each is written in."""

import html

import polars as pl

LANGUAGES = ("en", "zh")
"""Languages that a corpus and a lexicon are there for."""
NO_LETTERS, OTHER = "none", "other"
LONGEST = 2000
"""Letters that are read of a text; what comes after is cut off."""

_ENGLISH = r"\b(?:the|and|is|it|my|was|for|this|not|with|but|are|have|very|of|to|you|i)\b"
_FOREIGN = (
    r"\b(?:und|ist|nicht|der|das|eine|sehr|ich|mit|für|les|des|est|une|pas|très|avec|pour|el|los|las|una|muy|para|por|"
    r"pero|con|della|molto|sono|che|questo|het|een|niet|zeer|voor|maar|não|muito|uma|com|och|är|inte|nie|jest|bardzo)\b"
)


def plain_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """Texts without mark-up, invisible marks and what is too long, and their language.

    Args:
        texts: with a column text.

    Returns:
        The same rows with plain (lower case, one space between words; empty where nothing is left), is_cut and
        language: zh where Chinese characters prevail; en for Latin letters, unless small words of another European
        language outnumber the English ones; none without a letter (emoji, digits); other for everything else.
    """
    raw = pl.col("text").fill_null("")
    entities = raw.str.contains("&", literal=True)
    unescaped = pl.when(entities).then(raw.map_elements(html.unescape, return_dtype=pl.String)).otherwise(raw)
    # Format marks (right to left, zero width ...) and controls are nothing that anybody reads.
    spaced = (
        unescaped.str.slice(0, 4 * LONGEST)
        .str.replace_all(r"(?is)<(script|style)\b.*?</(script|style)>", " ")
        .str.replace_all(r"</?[a-zA-Z!][^<>]{0,300}>", " ")
        .str.normalize("NFKC")
        .str.replace_all(r"https?://\S+", " ")
        .str.replace_all(r"[\p{Cf}\p{Cc}\p{Co}\s]+", " ")
        .str.replace_all("[’‘`´]", "'")
        .str.to_lowercase()
        .str.strip_chars()
    )
    han, latin, letters, kana, english, foreign = (
        pl.col("plain").str.count_matches(pattern)
        for pattern in (r"\p{Han}", r"\p{Latin}", r"\p{L}", r"[\p{Hiragana}\p{Katakana}\p{Hangul}]", _ENGLISH, _FOREIGN)
    )
    language = (
        pl.when(letters == 0)
        .then(pl.lit(NO_LETTERS))
        .when((kana > 0) & (kana * 5 >= letters))
        .then(pl.lit(OTHER))
        # A Chinese character says about as much as three letters.
        .when((han > 0) & (3 * han >= letters - han))
        .then(pl.lit("zh"))
        .when((latin * 2 < letters) | (foreign > english))
        .then(pl.lit(OTHER))
        .otherwise(pl.lit("en"))
    )
    return (
        texts.with_columns(plain=spaced)
        .with_columns(
            plain=pl.col("plain").str.slice(0, LONGEST),
            is_cut=pl.col("plain").str.len_chars() > LONGEST,
        )
        .with_columns(language=language)
    )
