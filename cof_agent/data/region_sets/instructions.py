"""What is asked about regions, in varied words (GPT4RoI, section 3.2, trains on many wordings of one task)."""

from __future__ import annotations

from random import Random

CATEGORY = (
    "What is <region1>?",
    "Name the object in <region1>.",
    "What kind of thing does <region1> show?",
    "Which object is <region1>?",
    "Say in a word or two what <region1> is.",
)
REFERRING = (
    "Describe <region1> so that nobody takes it for anything else in the image.",
    "Which one is <region1>? Tell it from the others.",
    "How would you point out <region1> in words?",
    "Give a phrase that fits <region1> and nothing else here.",
)
CAPTION = (
    "Describe <region1>.",
    "What can be seen in <region1>?",
    "Write a short caption for <region1>.",
    "What is going on in <region1>?",
    "In a few words, what does <region1> show?",
)
FURTHER = ("And {}?", "What about {}?", "Now {}.", "The same for {}, please.")
SCENE = (
    "Describe the image, and how {} come into it.",
    "Write one sentence about the image that mentions {}.",
    "What happens here, with {} in mind?",
)
WHY = ("Why?", "How can you tell?", "What makes you think so?", "Give your reason.")


def drawn(wordings: tuple[str, ...], key: str) -> str:
    """One of the wordings; the same for a key."""
    return Random(f"instruction:{key}").choice(wordings)


def listed(count: int) -> str:
    """`<region1>, <region2> and <region3>`."""
    names = [f"<region{number}>" for number in range(1, count + 1)]
    return names[0] if count == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def in_rounds(wordings: tuple[str, ...], answers: list[str], key: str) -> tuple[str, str, list[list[str]]]:
    """A conversation that asks the same of each region in turn: the first question and answer, and the further ones."""
    further = [
        [drawn(FURTHER, f"{key}:{number}").format(f"<region{number}>"), answer]
        for number, answer in enumerate(answers[1:], 2)
    ]
    return drawn(wordings, key), answers[0], further
