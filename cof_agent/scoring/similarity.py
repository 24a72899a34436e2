"""How near two short texts come by their edit distance (ANLS), and the words in which VQA compares answers."""

from __future__ import annotations

import re
import unicodedata

MOST_DISTANCE = 0.5  # beyond which two texts have nothing in common: ST-VQA's (Biten et al., arXiv 1905.13648)


def similarity(said: str, true: str) -> float:
    """1 minus the edit distance as a share of the longer text, and 0 beyond `MOST_DISTANCE`: what ANLS is the mean of. The
    paper's formula gives 0 at that distance, too; the code that is used (of lmms-eval and VLMEvalKit) does not, and neither does
    this. Case and the width of spaces do not matter."""
    first, second = (" ".join(text.casefold().split()) for text in (said, true))
    longest = max(len(first), len(second))
    if not longest:
        return 1.0
    if abs(len(first) - len(second)) > MOST_DISTANCE * longest:  # the distance is no less: nothing to compute
        return 0.0
    share = levenshtein(first, second) / longest
    return 1 - share if share <= MOST_DISTANCE else 0.0


def levenshtein(first: str, second: str) -> int:
    """The least number of characters to insert, delete or replace that makes one text the other."""
    row = list(range(len(second) + 1))
    for number, character in enumerate(first, 1):
        above, row = row, [number]
        for column, other in enumerate(second, 1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (character != other)))
    return row[-1]


_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0", "a": "", "an": "", "the": ""}


_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_MARKS = re.escape(_PUNCTUATION)


def plain_words(text: str) -> str:
    """A short text as TextVQA's evaluation compares it (`EvalAIAnswerProcessor` in lmms-eval): lower case, without articles,
    commas, points that no digit follows, and other marks, of which one within a word parts it; small numbers as digits. Signs
    such as $ and % stay. Its list of contractions is left out: an apostrophe counts for nothing here."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace(",", "").replace("?", "")
    text = text.replace("'s", " 's").replace("'", "")
    text = re.sub(rf"(?<=\s)[{_MARKS}]|[{_MARKS}](?=\s)", "", text.strip().strip(_PUNCTUATION))
    text = re.sub(r"\.(?!\d)", "", re.sub(rf"[{_MARKS}]", " ", text))
    return " ".join(plain for word in text.split() if (plain := _WORDS.get(word, word)))
