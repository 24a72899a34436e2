"""Accuracy, format and pointing of one trajectory. Evaluation and reward share these functions."""

from cof_agent.scoring.answer_match import matches
from cof_agent.scoring.choice import choice_of
from cof_agent.scoring.normalise import normalise
from cof_agent.scoring.rules import accuracy, agreed, anls, choice, contains, is_right, number, relaxed, score, vqa
from cof_agent.scoring.turns import malformed, target_hits, well_formed

__all__ = [
    "accuracy",
    "agreed",
    "anls",
    "choice",
    "choice_of",
    "contains",
    "is_right",
    "malformed",
    "matches",
    "normalise",
    "number",
    "relaxed",
    "score",
    "target_hits",
    "vqa",
    "well_formed",
]
