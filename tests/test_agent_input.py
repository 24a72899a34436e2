"""What `Agent` refuses in a sentence, before anything is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cof_agent import Agent
from cof_agent.errors import InputError
from cof_agent.policy import ScriptedPolicy


@pytest.mark.parametrize(
    ("image", "question", "choices", "sentence"),
    [
        (None, " ", (), "the question is empty"),
        (None, "Which?", "red", "choices is a list of texts, not the text 'red'"),
        (123, "Which?", (), "an image is a path or a picture of Pillow's, not int"),
    ],
)
def test_what_is_no_question_is_refused(picture: Path, image: Any, question: str, choices: Any, sentence: str) -> None:
    agent = Agent(policy=ScriptedPolicy([]))
    with pytest.raises(InputError, match=sentence):
        agent.ask(image or picture, question, choices=choices)
