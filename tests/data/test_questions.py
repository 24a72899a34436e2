"""Questions without marks, with instructions kept apart and choices taken out."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cof_agent.data.questions import common_instruction, cut_instruction, marks, parse, without_marks

INSTRUCTIONS = (
    "Answer with the option's letter from the given choices directly.",
    "Answer the question using a single word or phrase.",
    "Please answer yes or no.",
    "Please select the correct answer from the options above.",
    "First think, then call a tool or give the final answer.",
    "You should think first, and then answer.\nThe final answer must be put into \\boxed{}.",
    "Let's think step by step.",
    "Your answer should be in <answer></answer> tags.",
    "Answer:",
)
ASKS = (
    "What is the final score?",
    "Give the date in the format DD/MM.",
    "Which of the options is on the board?",
    "There is a sign. Write the word on it.",
    "Two clocks hang there. State the correct time.",
    "Answer the question.",
    "Pick the largest flag. Which colour has it?",
    "Look at the menu. Report the choices listed under 'Drinks'.",
    "Look at the ballot. Output the choice that is ticked.",
    "Find the person in red. If the person is holding a tool, name it.",
    "Look at the workbench. Use the picture to find which tools are missing.",
    "Look at the scoreboard. Give the final answer of the team in blue.",
    "Look at the diagram. Present the short phrase below the arrow.",
    "Please provide the bounding box coordinate of the region this sentence describes: the red kite.",
)


@pytest.mark.parametrize(
    "instruction",
    [
        "Give your answer as a number.",
        "Write only the letter.",
        "Output the answer in <answer></answer> tags.",
        "Use the zoom tool when needed, then give the final answer.",
        "Provide a short answer.",
    ],
)
def test_an_instruction_behind_an_order_goes_where_it_can_be_nothing_else(instruction: str) -> None:
    assert cut_instruction(f"Name the kite on the left. {instruction}") == ("Name the kite on the left.", instruction)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
@pytest.mark.parametrize("gap", [" ", "\n", "\n\n"])
def test_an_instruction_behind_the_question_goes(instruction: str, gap: str) -> None:
    assert cut_instruction(f"How many kites?{gap}{instruction}") == ("How many kites?", instruction)


@pytest.mark.parametrize("text", ASKS)
def test_what_is_asked_stays(text: str) -> None:
    assert cut_instruction(text) == (text, "")


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("<image>\nHow many?", "How many?"),
        ("How many?\n<image>", "How many?"),
        ("How many? <image 1>", "How many?"),
        ("What is shown in <image_1>?", "What is shown in the image?"),
        ("Describe the <image>.", "Describe the image."),
        ("<|vision_start|><|image_pad|><|vision_end|>How many?", "How many?"),
        ("Picture 1: <img>a/b.png</img>\nHow many?", "How many?"),
        ("[IMG] How  many?", "How many?"),
        ("Is <image> a cat?", "Is the image a cat?"),
        ("Which one is like <image 1>?", "Which one is like the image?"),
        ("Given <image>, what is x?", "Given the image, what is x?"),
        ("<image 1> shows a chart. What is the mean?", "The image shows a chart. What is the mean?"),
        ("<image> is this a cat?", "is this a cat?"),
        ("What is it?<image>", "What is it?"),
        ("What is it like <image>", "What is it like"),
        ("<image> Is the man tall. Say yes or no.", "Is the man tall. Say yes or no."),
        ("Is a < b and c > d?", "Is a < b and c > d?"),
    ],
)
def test_marks_of_images_go(text: str, question: str) -> None:
    assert without_marks(text) == question


def test_marks_are_counted() -> None:
    assert [marks(text) for text in ("<image><image>x", "<image 2> and <|image_1|>", "image", "<imagery>")] == [
        2,
        2,
        0,
        0,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Which?\n(A) red\n(B) light blue",
        "Which?\nA. red\nB. light blue",
        "Which? A. red B. light blue",
        "Which?\nOptions:\nA) red\nB) light blue",
        "Which?\nOptions: A: red, B: light blue",
        "Which?\nChoices: (A) red; (B) light blue",
        "Question: Which?\nAnswer choices:\n- A. red\n- B. light blue\nAnswer with the letter of the right option.",
        "Which?\n（A）red\n（B）light blue",
        "Hint: Please answer and give the option letter.\nQuestion: Which?\nChoices:\n(A) red\n(B) light blue",
        "Which? Select from the following choices.\n(a) red\n(b) light blue",
    ],
)
def test_choices_leave_the_question(text: str) -> None:
    found = parse(text)
    assert (found.text, list(found.choices.values())) == ("Which?", ["red", "light blue"])


@pytest.mark.parametrize(
    "text",
    [
        "Is vitamin A. or B. Jones right?",
        "Who is A. Smith?",
        "Compare A: the kite with C: the boat.",
        "What does plan A) say about plan C)?",
        "(A) red\n(B) blue",  # nothing is asked
    ],
)
def test_what_only_looks_like_choices_stays(text: str) -> None:
    assert parse(text).text == parse(text).whole == text


def test_a_line_behind_the_choices_is_no_part_of_the_last() -> None:
    found = parse("Which?\nA. red\nB. blue\nDistances are in metres.")
    assert (found.text, found.choices) == ("Which?\nDistances are in metres.", {"A": "red", "B": "blue"})


@pytest.mark.parametrize(
    "told",
    [
        "Reply only with the last word of the sign.",
        "Answer in euros.",
        "Give your answer in degrees, rounded to one decimal place.",
        "Output the answer in 24-hour format.",
        "Answer in alphabetical order.",
        "Choose from the following options: red, blue, green.",
        "Answer with one word from: left, right, above, below.",
        "Pick the correct answer from [left, right].",
        "Your answer should be one of left, right, above or below.",
        "Give the answer in millions.",
        "Answer in the format DD/MM/YYYY.",
        "Answer in kg.",
        "Answer in Chinese.",
        "Answer in Roman numerals.",
        "Answer with T or F.",
        "Answer with AM or PM.",
    ],
)
def test_what_decides_which_answer_is_right_stays(told: str) -> None:
    assert parse(f"What does the sign say? {told}").text == f"What does the sign say? {told}"


@pytest.mark.parametrize(
    "told",
    [
        "Answer with one of A, B, C, D.",
        "Answer with the option letter (i.e., A, B, C, or D) directly.",
        "Answer with the letter from the given choices (no explanation).",
        "Please think and answer within 3 seconds.",
        "Choose the correct option: (A), (B), (C) or (D).",
        "Choose one of the following options.",
        "Answer in the following format: <think>...</think><answer>...</answer>",
        "Please answer yes or no.",
    ],
)
def test_letters_alone_are_no_answers_that_a_question_lists(told: str) -> None:
    assert parse(f"What does the sign say? {told}").text == "What does the sign say?"


def test_what_decides_stays_where_every_question_has_it() -> None:
    behind = " Answer in kg."
    assert common_instruction([f"How heavy is {one}?{behind}" for one in ("he", "she", "the dog")]) == ""


def test_what_stands_behind_every_question_is_an_instruction() -> None:
    suffix = "Obey the rules of the format."
    questions = ["How many kites? ", "Which colour?\n", "Who?\n"]
    assert common_instruction([question + suffix for question in questions]) == suffix
    assert parse("Which colour?\n" + suffix, suffix).text == "Which colour?"
    assert common_instruction([question + "Look at the red one." for question in questions]) == ""  # asks something
    assert common_instruction(["What is the format of the tool? " + suffix] * 3) == ""  # one question


WORDS = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=8), min_size=1, max_size=6).map(" ".join)


@given(
    WORDS,
    st.lists(WORDS, min_size=2, max_size=6, unique=True),
    st.sampled_from(["({}) {}", "{}. {}", "{}) {}", "{}: {}"]),
)
@example("x", ["a", "b"], "({}) {}")
def test_choices_written_into_a_question_come_out(asked: str, choices: list[str], mark: str) -> None:
    lines = [mark.format(letter, text) for letter, text in zip(string.ascii_uppercase, choices, strict=False)]
    found = parse("\n".join([f"{asked}?", *lines]))
    assert (found.text, list(found.choices.values())) == (f"{asked}?", choices)


@given(st.text(max_size=80))
def test_any_text_can_be_parsed(text: str) -> None:
    text = without_marks(text)
    found = parse(text)
    assert bool(found.text) == bool(text) and found.whole in text
