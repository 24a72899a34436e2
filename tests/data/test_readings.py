"""Rows as published sets have them, each of which was once misread: what is made of them, or why they are left out.

The shapes are those of public files (named behind each); the texts are ours.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cof_agent.data.dialogues import Dialogues
from cof_agent.data.samples import Reading, read
from cof_agent.data.unusable import Unusable
from cof_agent.errors import InputError

Rows = list[dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        Image.new("RGB", (640, 480)).save(tmp_path / f"{name}.png")
    return tmp_path


def of(rows: Rows, folder: Path, **options: Any) -> Reading:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(str(path), keep_images=folder / "kept", **options)


def read_one(row: dict[str, Any], folder: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    (sample,) = of([row], folder).samples
    return sample.question, sample.choices, sample.answers


def asked(*questions: str, behind: str, answer: str) -> Rows:
    return [{"image": "a.png", "question": one + behind, "answer": answer} for one in questions]


class TestSharedEndings:
    """What stands behind every question of a set is an instruction, unless it says what may be answered."""

    THREE = ("Is the bus red?", "Is it night?", "Is a dog there?")

    @pytest.mark.parametrize(
        "behind",
        [
            "\nPick one of these options.\n(A) yes\n(B) no",  # VisualSketchpad
            "\nOptions:\nA. yes\nB. no",
            " Options: (A) yes (B) no",
            "\n(A) yes\n(B) no\nAnswer with the letter of the option.",
        ],
    )
    def test_choices_stay_choices(self, behind: str, folder: Path) -> None:
        found = of(asked(*self.THREE, behind=behind, answer="B"), folder).samples
        assert [(one.question, one.choices, one.answers) for one in found] == [
            (question, ("yes", "no"), ("no",)) for question in self.THREE
        ]

    def test_a_list_of_labels_stays(self, folder: Path) -> None:
        behind = "\nMoods: happy, sad, angry.\nOutput only the mood."
        found = of(asked(*self.THREE, behind=behind, answer="sad"), folder).samples
        assert [one.question for one in found] == [f"{one}\nMoods: happy, sad, angry." for one in self.THREE]
        assert found[0].metadata["instruction"] == "Output only the mood."

    def test_an_answer_for_a_case_stays(self, folder: Path) -> None:
        behind = "\nOutput format:\n- The name of the fault.\n- If there are no faults, output: None"  # VLM-R1
        found = of(asked(*self.THREE, behind=behind, answer="None"), folder).samples
        assert all(one.question.endswith("output: None") for one in found)

    def test_a_sentence_that_is_the_task_stays(self, folder: Path) -> None:
        for question in (
            "The tree is far away. Answer the question by giving the distance of the tree.",  # MATH-V
            "Four drawings are shown. Choose the figure among the options that goes on with the row.",  # MathVista
        ):
            assert read_one({"image": "a.png", "question": question, "answer": "7"}, folder)[0] == question


CHOOSING: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"options": ["(A)", "(B)", "(C)"], "answer": "C"}, ("A", "B", "C"), "C"),  # MATH-V
    ({"option": "A. 3, 4;B. 4, 3; C. none", "answer": "B"}, ("3, 4", "4, 3", "none"), "4, 3"),  # We-Math
    ({"options": "(a) open (b) shut", "answer": "(b)"}, ("open", "shut"), "shut"),  # MMVP
    ({"choices": ["1", "2", "3"], "correct_choice_idx": 1}, ("1", "2", "3"), "2"),  # A-OKVQA
]


@pytest.mark.parametrize(("row", "choices", "answer"), CHOOSING)
def test_choices(row: dict[str, Any], choices: tuple[str, ...], answer: str, folder: Path) -> None:
    found = read_one({"image": "a.png", "question": "Which?", **row}, folder)
    assert found == ("Which?", choices, (answer,))


def test_the_letter_at_the_end_of_an_explanation(folder: Path) -> None:
    """ScienceQA, as LLaVA has it; and where it is no choice, a note says that the choices stay in the question."""
    question = "<image>\nWhich fish eats from the ground?\nOptions: (A) pike (B) catfish"
    for reply in ("Its mouth points down. The answer is B.", "The answer is B. BECAUSE: its mouth points down."):
        row = {
            "image": "a.png",
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": reply}],
        }
        assert read_one(row, folder) == ("Which fish eats from the ground?", ("pike", "catfish"), ("catfish",))
    row = {"image": "a.png", "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "Both."}]}
    found = of([row], folder)
    assert found.samples[0].choices == () and "(A) pike (B) catfish" in found.samples[0].question
    assert any("looks like choices in 1 questions" in note for note in found.tally.notes)


class TestPictures:
    def test_choices_that_are_images(self, folder: Path) -> None:
        row = {"question": "Which is odd?", "options": ["<image>", "<image>", "none"], "answer": "B"}  # MuirBench
        assert read_one(row | {"images": ["a.png", "b.png"]}, folder)[1:] == (
            ("picture 1", "picture 2", "none"),
            ("picture 2",),
        )
        row |= {"question": "<image> Which is like it?", "images": ["a.png", "b.png", "c.png"]}
        assert read_one(row, folder) == ("Which is like it?", ("picture 2", "picture 3", "none"), ("picture 3",))

    def test_marks_that_count_from_nought(self, folder: Path) -> None:
        said = [
            {"role": "user", "content": "Is <image_01> older than <image_00>?"},
            {"role": "assistant", "content": "Yes."},
        ]
        row = {"image": {"<image_00>": "a.png", "<image_01>": "b.png"}, "conversations": said}  # MiniCPM-V
        assert read_one(row, folder)[0] == "Is picture 2 older than picture 1?"
        shown = Dialogues({}).of(row)
        assert [one.value for one in shown.images] == ["b.png", "a.png"]
        plain = {"images": ["a.png", "b.png"], "question": "Is <image_1> older than <image_2>?", "answer": "Yes."}
        assert read_one(plain, folder)[0] == "Is picture 1 older than picture 2?"

    def test_a_question_sees_what_was_shown_before_it(self, folder: Path) -> None:
        said = [("<image>Who is it?", "Kim."), ("And is <image> older?", "No.")]  # LLaMA-Factory
        turns = [
            {"role": role, "content": text}
            for pair in said
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        first, second = of([{"messages": turns, "images": ["a.png", "b.png"]}], folder).samples
        assert (len(first.images), first.question) == (1, "Who is it?")
        assert (len(second.images), second.question) == (2, "And is picture 2 older?")

    def test_an_image_that_a_text_names_stays(self, folder: Path) -> None:
        said = ["Picture 1: <img>a.png</img>\nWhat is it?", "A bus.", "Which colour?", "Red."]  # Qwen-VL
        turns = [{"from": ("user", "assistant")[number % 2], "value": text} for number, text in enumerate(said)]
        found = of([{"conversations": turns}], folder).samples
        assert [(one.question, Path(one.image).name) for one in found] == [
            ("What is it?", "a.png"),
            ("Which colour?", "a.png"),
        ]

    def test_two_columns_with_an_image_each(self, folder: Path) -> None:
        row = {"question": "What?", "answer": "x", "before_image_path": "a.png", "after_image_path": "b.png"}
        with pytest.raises(InputError, match="several columns hold an image .*before_image_path, after_image_path"):
            of([row], folder)
        (sample,) = of([row], folder, columns={"image": "after_image_path"}).samples
        assert Path(sample.image).name == "b.png"

    def test_a_file_of_coco_by_its_number(self, folder: Path) -> None:
        Image.new("RGB", (8, 8)).save(folder / "COCO_val2014_000000000042.jpg")
        row = {"image_id": 42, "question_id": 1, "question": "What?", "answer": "x"}
        assert Path(of([row], folder).samples[0].image).name == "COCO_val2014_000000000042.jpg"


ASK, SAY = {"role": "user", "content": "<image>Which colour?"}, {"role": "assistant", "content": "Red."}
AGENT = '{{"thought": "t", "actions": [{{"name": "{}", "arguments": {}}}]}}'


class TestConversations:
    def test_a_reply_that_is_not_wanted(self, folder: Path) -> None:
        rows = [{"messages": [ASK, SAY], "images": ["a.png"], "label": wanted} for wanted in (True, False)]  # KTO
        found = of(rows, folder)
        assert [one.answers for one in found.samples] == [("Red.",)]
        assert found.tally.reasons == {"reply that is marked as not wanted": 1}
        assert Dialogues({}).of(rows[0]).messages
        with pytest.raises(Unusable, match="not wanted"):
            Dialogues({}).of(rows[1])
        said = {"messages": [ASK, SAY | {"content": "Yes"}], "images": ["a.png"], "label": False}  # a truth beside it
        assert of([said], folder).samples[0].answers == ("no", "false")

    def test_assistants_alone_are_left_out(self, folder: Path) -> None:
        found = of([{"messages": [SAY], "images": ["a.png"]}, {"messages": [ASK, SAY], "images": ["a.png"]}], folder)
        assert len(found.samples) == 1 and found.tally.reasons == {"no question": 1}

    def test_records_of_agents(self, folder: Path) -> None:
        end = AGENT.format("Terminate", '{"answer": "3"}')  # TACO
        said = ["<image>How many?", AGENT.format("Count", '{"what": "dogs"}'), "OBSERVATION:\n{}", end]
        turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(said)]
        assert read_one({"image": "a.png", "conversations": turns}, folder) == ("How many?", (), ("3",))
        unknown = '"thoughts" t\n"actions" []\n"value" It is 3.'  # OpenThinkIMG, LLaVA-Plus
        call = '"thoughts" t\n"actions" [{"API_name": "count"}]'
        said = ["<image>How many?", call, "count model outputs: 3\nAnswer the question.", unknown]
        turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(said)]
        with pytest.raises(InputError, match="conversation without an answer"):
            of([{"image": "a.png", "conversations": turns}], folder)
        with pytest.raises(Unusable, match="actions beside a reply"):
            Dialogues({}).of({"image": "a.png", "messages": [ASK, SAY | {"actions": [{"API_name": "count"}]}]})

    @pytest.mark.parametrize("kind", ["video", "audio"])
    def test_what_is_not_read_leaves_the_row_out(self, kind: str, folder: Path) -> None:
        parts = [
            {"type": "image", "image": "a.png"},
            {"type": f"{kind}_url", f"{kind}_url": {"url": "x"}},
            {"type": "text", "text": "?"},
        ]
        for row in (
            {"messages": [{"role": "user", "content": parts}, SAY]},
            {"messages": [ASK, SAY], "images": ["a.png"], f"{kind}s": ["x"]},
        ):
            with pytest.raises(InputError, match=f"1 {kind}"):
                of([row], folder)
            with pytest.raises(Unusable, match=kind):
                Dialogues({}).of(row)

    def test_parts_and_pairs_in_other_words(self, folder: Path) -> None:
        parts = [{"type": "image_url", "value": "a.png"}, {"type": "text", "value": "Which colour?"}]
        rows: Rows = [
            {"messages": [{"role": "user", "content": parts}, SAY]},  # LLaMA-Factory, v1
            {"images": ["a.png"], "conversation": [{"human": "<image>Which colour?", "assistant": "Red."}]},  # ms-swift
            {
                "image": "a.png",
                "messages": [{"role": "user", "content": "<IMG_CONTEXT>\nWhich colour?"}, SAY],
            },  # xtuner
        ]
        for row in rows:
            assert read_one(row, folder) == ("Which colour?", (), ("Red.",))
            assert len(Dialogues({}).of(row).images) == 1

    def test_a_row_with_its_questions_in_a_list(self, folder: Path) -> None:
        row = {"image": "a.png", "qa": [{"question": "One?", "answer": "1"}, {"question": "Two?", "answer": "2"}]}
        (folder / "row.json").write_text(json.dumps(row))
        assert [one.question for one in read(str(folder / "row.json")).samples] == ["One?", "Two?"]

    def test_an_image_for_an_answer(self, folder: Path) -> None:
        row = {
            "messages": [{"role": "user", "content": "Draw a bus."}, {"role": "assistant", "content": "<image>"}],
            "images": ["a.png"],
        }
        with pytest.raises(InputError, match="answer cannot be read"):
            of([row], folder)


class TestBoxes:
    def test_points_of_mathematics_are_no_boxes(self, folder: Path) -> None:
        rows = asked("The coordinates of the corners B and D are ___.", behind="", answer="(3,6)\n(7,8)")  # MM-EUREKA
        rows += asked("The coordinates of Q are ___.", behind="", answer=r"$( \dfrac{9}{4} , \dfrac{9}{4} )$")
        found = of(rows, folder).samples
        assert len(found) == 2 and all("scoring" not in one.metadata for one in found)

    @pytest.mark.parametrize("answer", ["[10, 20, 300, 400]", '[{"bbox_2d": [10, 20, 300, 400], "point_2d": [9, 9]}]'])
    def test_an_expression_is_asked_for_as_a_box(self, answer: str, folder: Path) -> None:
        (sample,) = of(
            [{"problem": "the car on the left", "solution": answer, "image": "a.png"}], folder
        ).samples  # Seg-Zero
        assert sample.question == "Give the bounding box of this: the car on the left"
        assert tuple(sample.boxes[0]) == (10, 20, 300, 400) and sample.metadata["scoring"] == "iou"

    def test_none_takes_answers_as_text(self, folder: Path) -> None:
        row = {"question": "Give the bounding box of the car.", "answer": "[10, 20, 300, 400]", "image": "a.png"}
        (sample,) = of([row], folder, boxes="none").samples
        assert sample.boxes == () and sample.answers == ("[10, 20, 300, 400]",) and "scoring" not in sample.metadata

    def test_edges_in_a_table_of_texts(self, folder: Path) -> None:
        (folder / "rows.csv").write_text(
            "image,left,top,right,bottom,question,answer\na.png,18,12,40.5,34,What?,orange\n"
        )
        (sample,) = read(str(folder / "rows.csv")).samples
        assert tuple(sample.boxes[0]) == (18, 12, 40.5, 34)

    def test_a_question_without_a_question_mark_before_the_region(self, folder: Path) -> None:
        ask = "<image>\nWho runs the St. Louis shop Please provide the bounding box coordinate of the region that can help you."
        said = [ask, "[0.1, 0.1, 0.2, 0.3]", "<image>", "A. Smith"]  # Visual-CoT
        turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(said)]
        row = {"image": ["a.png", "a.png###[64, 48, 128, 144]"], "conversations": turns}
        assert read_one(row, folder) == ("Who runs the St. Louis shop", (), ("A. Smith",))

    @pytest.mark.parametrize(
        "place", ["<bbox0>", "<bbox_location0>", "<region>", "<mask>", "<ref-object>", "<region1> or <mask>"]
    )
    def test_places_that_another_column_fills(self, place: str, folder: Path) -> None:
        row = {"image": "a.png", "messages": [{"role": "user", "content": f"<image>What is {place}?"}, SAY]}
        with pytest.raises(InputError, match="placeholder"):
            of([row], folder)
        with pytest.raises(Unusable, match="placeholder"):
            Dialogues({}).of(row)


def test_an_image_lies_beside_the_file_of_its_row(folder: Path) -> None:
    """Subsets with folders of their own, in which names repeat."""
    for name in ("charts", "photos"):
        (folder / "set" / name / "images").mkdir(parents=True)
        Image.new("RGB", (64, 64), (name == "photos" and "red") or "blue").save(folder / "set" / name / "images/1.png")
        row = {"image": "images/1.png", "question": f"{name}?", "answer": "a"}
        (folder / "set" / name / "train.jsonl").write_text(json.dumps(row) + "\n")
    Image.new("RGB", (64, 64)).save(folder / "set" / "1.png")
    found = read(str(folder / "set")).samples
    assert {Path(one.image).parts[-3] for one in found if one.question == "charts?"} == {"charts"}
    assert {Path(one.image).parts[-3] for one in found if one.question == "photos?"} == {"photos"}


def test_the_number_of_an_image_is_not_that_of_a_row(folder: Path) -> None:
    """As in VQAv2, whose numbers of questions begin with those of images."""
    for name in ("1", "2"):
        Image.new("RGB", (64, 64)).save(folder / f"{name}.jpg")
    rows = [{"id": n, "image_id": image, "question": f"q{n}?", "answer": "a"} for n, image in ((1, 1), (2, 1), (3, 2))]
    assert [Path(one.image).name for one in of(rows, folder).samples] == ["1.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("flag", ["label", "kto_tag", "correct"])
@pytest.mark.parametrize("talk", [True, False])
def test_a_flag_says_whether_a_reply_is_wanted(flag: str, talk: bool, folder: Path) -> None:
    said = [{"from": "human", "value": "<image>What is it?"}, {"from": "gpt", "value": "a dog"}]
    row: dict[str, Any] = {"images": ["a.png"]}
    row |= {"conversations": said} if talk else {"prompt": "<image>What is it?", "completion": "a dog"}
    assert read_one(row | {flag: True}, folder)[2] == ("a dog",)
    with pytest.raises(InputError, match="not wanted"):
        of([row | {flag: False}], folder)
    with pytest.raises(Unusable, match="not wanted"):
        Dialogues({}).of(row | {flag: False})


@pytest.mark.parametrize(
    ("options", "answer", "right"),
    [
        (["A. cat", "C. dog", "D. cow"], "C", "dog"),
        (["(B) cat", "(A) dog", "(C) cow"], "A", "dog"),
        (["red", None, "blue", "green"], "C", "blue"),
        (["red", "", "blue", "green"], 2, "blue"),
        (["f", "f'", "g"], "f'", "f'"),
        (["5", "$5"], "$5", "$5"),
    ],
)
def test_the_letter_of_a_choice_is_its_own(options: list[Any], answer: Any, right: str, folder: Path) -> None:
    row = {"image": "a.png", "question": "Which?", "options": options, "answer": answer}
    assert read_one(row, folder)[2] == (right,)


def test_an_initial_is_no_choice(folder: Path) -> None:
    row = {"image": "a.png", "question": "Which is it?\nA. Yeast\nB. Mold\nC. Amoeba\nD. E. coli", "answer": "D"}
    assert read_one(row, folder) == ("Which is it?", ("Yeast", "Mold", "Amoeba", "E. coli"), ("E. coli",))


def test_numbers_of_choices_count_from_0_or_from_1(folder: Path) -> None:
    rows = [
        {"image": "a.png", "question": f"Which {n}?", "options": ["red", "blue", "green"], "answer": n % 3}
        for n in range(6)
    ]
    found = of([*rows, rows[0] | {"question": "And this?", "answer": 3}], folder)
    assert len(found.samples) == 6 and "is none of the choices" in str(found.tally.left_out)


def test_numbers_of_choices_are_refused_where_no_other_rows_tell(folder: Path) -> None:
    row = {"id": "1", "image": "a.png", "question": "Which?", "choices": ["red", "blue"], "answers": [1]}
    (folder / "samples.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="give the letter of the choice, or its text"):
        read(str(folder / "samples.jsonl"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"box_2d": [100, 200, 300, 900]}, "box_2d, which some write y first"),
        ("<loc0100><loc0200><loc0300><loc0900>", "y first"),
    ],
)
def test_a_box_that_may_be_y_first_is_left_out(answer: Any, said: str, folder: Path) -> None:
    row = {"image": "a.png", "question": "Give the bounding box of the cat.", "answer": answer}
    with pytest.raises(InputError, match=said):
        of([row], folder)


def table(folder: Path, text: str) -> Reading:
    (folder / "rows.csv").write_text(text)
    return read(str(folder / "rows.csv"), keep_images=folder / "kept")


def test_a_row_with_more_fields_than_the_header_is_left_out(folder: Path) -> None:
    found = table(folder, "image,question,answer\na.png,What is it?,a dog\na.png,what, is it?,yes\n")
    assert [one.answers for one in found.samples] == [("a dog",)] and found.tally.left_out


def test_a_quotation_mark_that_is_never_closed(folder: Path) -> None:
    with pytest.raises(InputError, match="is never closed"):
        table(folder, 'image,question,answer\na.png,"Is it,yes\nb.png,What?,no\nc.png,What?,a\n')


def test_arrays_as_numpy_prints_them(folder: Path) -> None:
    head = "image,question,choices,answer\n"
    found = table(
        folder, head + "a.png,Which?,\"array(['red', 'blue'], dtype=object)\",B\nb.png,Which?,\"['red' 'blue']\",A\n"
    )
    assert [(one.choices, one.answers) for one in found.samples] == [
        (("red", "blue"), ("blue",)),
        (("red", "blue"), ("red",)),
    ]


def test_what_follows_a_list_is_not_passed_over(folder: Path) -> None:
    row = json.dumps([{"image": "a.png", "question": "What?", "answer": "a"}])
    (folder / "rows.json").write_text(f"{row}\n{row}\n")
    with pytest.raises(InputError, match="something follows the list"):
        read(str(folder / "rows.json"))


def test_an_inch_in_the_middle_of_a_table_is_no_open_quotation(folder: Path) -> None:
    found = table(folder, 'image,question,answer\na.png,"How\nlong, is it?",5" or so\nb.png,What is it?,a dog\n')
    assert [one.answers for one in found.samples] == [('5" or so',), ("a dog",)]


def test_a_column_that_is_nearly_named_is_told(folder: Path) -> None:
    row = {"image": "a.png", "question": "Which?", "answer": "red", "choises": ["red", "blue"], "clothes": "x"}
    note = "nothing is read from the column choises; did you mean choices?"
    assert of([row], folder).tally.notes == [note]
    assert of([{"image": "a.png", "qestion": "Which?", "question": "Who?", "answer": "x"}], folder).tally.notes == []


def talk(question: str, reply: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": reply}]


@pytest.mark.parametrize(
    "beside",
    [{"label": "animal"}, {"objects": {"label": ["dog"], "bbox": [[1, 2, 30, 40]]}}, {"meta": {"target": "train"}}],
)
def test_a_class_or_the_name_of_a_split_is_no_truth_beside_a_reply(beside: dict[str, Any], folder: Path) -> None:
    row = {"image": "a.png", "conversations": talk("Which animal?", "A dog.")} | beside
    assert read_one(row, folder)[2] == ("A dog.",)
    truth = row | {"ground_truth": "a poodle"}
    assert read_one(truth, folder)[2] == ("a poodle",)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "response": "A man.", "label": "good"},
        {"question": "Who?", "completion": "A man.", "label": 1},
        {"conversations": talk("Who?", "A man."), "label": 1},
    ],
)
def test_two_columns_that_may_be_the_answer(row: dict[str, Any], folder: Path) -> None:
    row = {"image": "a.png"} | row
    with pytest.raises(InputError, match=r"two columns that may be the answer .*--column answer=NAME"):
        of([row], folder)
    assert of([row | {"ground_truth": "Bo"}], folder).samples[0].answers == ("Bo",)
    if "question" in row:
        assert of([row], folder, columns={"answer": "label"}).samples[0].answers == (str(row["label"]),)


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (
            {"query": {"de": "Wer?", "en": "Who?"}, "answer": {"match_score": 1.0, "text": "Bo"}},
            "Who?",
        ),  # DocVQA's copies
        ({"answer": {"text": "Bo"}, "question": {"text": "Who?"}}, "Who?"),
    ],
)
def test_the_text_of_an_answer_is_no_question(row: dict[str, Any], question: str, folder: Path) -> None:
    assert read_one({"image": "a.png"} | row, folder) == (question, (), ("Bo",))


def test_boxes_of_all_words_are_no_evidence(folder: Path) -> None:
    row = {"image": "a.png", "question": "Who?", "answer": "Bo", "words": ["a", "b"]}
    boxes = {"bounding_boxes": [[1, 2, 30, 40], [5, 6, 70, 80]]}
    assert of([row | boxes], folder).samples[0].boxes == ()
    assert len(of([{**row, **boxes, "words": None}], folder).samples[0].boxes) == 2


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [([5, 6, 7, 8], ("5, 6, 7, 8",)), ([120, 130], ("120, 130",)), ([2, 2, 3], ("2", "3")), ([7], ("7",))],
)
def test_several_numbers(answer: list[int], accepted: tuple[str, ...], folder: Path) -> None:
    """Neither a box, where the question asks for numbers, nor alternatives."""
    rows = [{"image": "a.png", "question": "Which scores are listed?", "answer": answer}]
    rows += [{"image": "b.png", "question": "Which one?", "answer": "x"}]
    assert of(rows, folder).samples[0].answers == accepted


@pytest.mark.parametrize("answers", [["JULY", "July", "7"], ["nokia", "Nokia phone", "nokia"]])
def test_ways_to_say_the_answer_are_no_choices(answers: list[str], folder: Path) -> None:
    row = {"image": "a.png", "question": "Which?", "answers": answers, "gt_answer": answers[0]}
    assert read_one(row, folder) == ("Which?", (), (answers[0],))


@pytest.mark.parametrize(
    ("options", "choices"),
    [
        ("['a', nan, 'c']", ("a", "c")),
        ("['don't', 'do']", ("don't", "do")),
        ("array(['a', 'b'], dtype='<U1')", ("a", "b")),
        ("[cat, dog]", ("cat", "dog")),
        ({"A": " A:Left", "B": " B:Right"}, ("Left", "Right")),  # PMC-VQA
        ({"A": None, "B": None}, ()),
        (["", ""], ()),
        ("nan", ()),
        ("(3, 4); (4, 3)", ("(3, 4)", "(4, 3)")),
        ({"A": "1.5", "B": "2.5"}, ("1.5", "2.5")),
    ],
)
def test_choices_as_tables_have_them(options: Any, choices: tuple[str, ...], folder: Path) -> None:
    row = {"image": "a.png", "question": "Which?", "options": options, "answer": choices[-1] if choices else "dog"}
    assert read_one(row, folder) == ("Which?", choices, (row["answer"],))


@pytest.mark.parametrize("empty", ["<answer></answer>", "\\boxed{}"])
def test_an_empty_wrapping_is_no_answer(empty: str, folder: Path) -> None:
    rows = [{"image": "a.png", "problem": "Which?", "solution": one} for one in ("<answer>red</answer>", empty)]
    found = of(rows, folder)
    assert [one.answers for one in found.samples] == [("red",)] and found.tally.reasons == {"no answer": 1}


def test_questions_of_a_picture_as_columns_in_an_object(folder: Path) -> None:
    """As `datasets` gives a sequence of objects back (PixMo-Docs, CoSyn-400K)."""
    rows = [{"image": "a.png", "questions": {"question": ["What?", "Who?"], "answer": ["1", "Bo"]}}]
    assert [(one.question, one.answers) for one in of(rows, folder).samples] == [("What?", ("1",)), ("Who?", ("Bo",))]


def test_the_index_of_an_earlier_row_beside_an_id(folder: Path) -> None:
    """VLMEvalKit's reference to an image is to `index`, whatever the row's id is."""
    held = base64.b64encode((folder / "a.png").read_bytes()).decode()
    lines = ["index\tid\timage\tquestion\tanswer", f"0\tval_1\t{held}\tWhat?\tx", "1\tval_2\t0\tWho?\ty"]
    first, second = table(folder, "\n".join(lines) + "\n").samples
    assert first.image == second.image and (first.id, second.id) == ("val_1", "val_2")


def test_an_empty_box_does_not_decide_the_unit(folder: Path) -> None:
    boxes = [[10 + n, 20, 110, 120] if n % 10 else [0, 0, 0, 0] for n in range(30)]
    rows = [{"image": "a.png", "question": f"Which {n}?", "answer": "x", "bbox": box} for n, box in enumerate(boxes)]
    found = of(rows, folder).samples
    assert len(found) == 30 and sum(len(one.boxes) for one in found) == 27


@pytest.mark.parametrize(
    "beside",
    [
        {"choices": {"text": ["red", "blue"], "label": ["A", "B"]}, "answerKey": "B"},  # ARC
        {"choices": [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}], "answerKey": "B"},
        {"options": [{"text": "red", "correct": False}, {"text": "blue", "correct": True}]},
        {"options": ["-", "A) red", "B) blue"], "label": "B"},
        {"options": ["Options:", "A) red", "B) blue"], "label": "B"},
        {"options": ["- A) red", "- B) blue"], "label": "B"},
        {"options": ["[A] red", "[B] blue"], "label": "B"},
        {"options": ["a) red", "b) blue"], "label": "B"},
        {"options": "- A: red\n- B: blue", "label": "B"},
        {"options": ["A) red", "B) blue", ""], "label": "B"},
        {"answers": ["red", "blue"], "answer": "B"},
        {"answers": ["red", "blue"], "correct_index": 1},
        {"answer_choices": ["red", "blue"], "answer_label": 1},  # VCR
    ],
)
def test_what_the_choices_of_a_row_are(beside: dict[str, Any], folder: Path) -> None:
    zero = {"answers": ["one", "two"], "correct_index": 0, "image": "b.png", "question": "How many?"}
    _, found = of([zero, {"image": "a.png", "question": "Which?"} | beside], folder).samples
    assert (found.question, found.choices, found.answers) == ("Which?", ("red", "blue"), ("blue",))


def test_marks_at_other_places_than_their_own_are_refused(folder: Path) -> None:
    row = {"image": "a.png", "question": "Which?", "options": ["B) red", "none of them", "A) blue"], "answer": "B"}
    with pytest.raises(InputError, match="the marks B, A are not those of their places"):
        of([row], folder)


@pytest.mark.parametrize(
    ("beside", "choices"),
    [
        ({"correct_answer": "0", "distractor1": "1", "distractor2": "2"}, {"0", "1", "2"}),  # SciQ
        ({"answer": "0", "incorrect_answers": ["1", "2"]}, {"0", "1", "2"}),
        ({"answer": "0", "multiple_choices": ["1", "2", "3"]}, {"0", "1", "2", "3"}),  # Visual7W
        ({"answer": "0", "multiple_choices": ["1", "0", "3"]}, {"0", "1", "3"}),  # VQA's first version
        ({"answer": "<answer>0</answer>", "wrong_answers": ["1"]}, {"0", "1"}),
    ],
)
def test_the_right_answer_is_one_of_the_choices(beside: dict[str, Any], choices: set[str], folder: Path) -> None:
    _, found, answers = read_one({"image": "a.png", "question": "How many?"} | beside, folder)
    assert set(found) == choices and len(found) == len(choices) and answers == ("0",)


@pytest.mark.parametrize("answer", ["Blue", "B", "(B)", "B. blue", 1])
def test_a_choice_that_is_named_is_not_added_to_them(answer: Any, folder: Path) -> None:
    rows = [{"multiple_choices": ["red", "blue"], "answer": one} for one in (answer, 0)]
    found = of([{"image": "a.png", "question": f"Which {n}?"} | row for n, row in enumerate(rows)], folder)
    assert found.samples[0].choices == ("red", "blue") and found.samples[0].answers == ("blue",)
    said = of([{"image": "a.png", "question": "Which?", "answer": "red", "distractors": ["blue"]}], folder).tally.notes
    assert said == ["1 questions list wrong choices alone; the answer is put among them"]


@pytest.mark.parametrize(
    "beside",
    [
        {"history": [{"question": "old?", "answer": "dog"}]},
        {"history": [{"query": "old?", "response": "dog"}]},
        {"sub_questions": [{"question": "first?", "answer": "dog"}, {"question": "then?", "answer": "cow"}]},
        {
            "form": [{"text": "Name:", "label": "question", "id": 1}, {"text": "Bo", "label": "answer", "id": 2}]
        },  # FUNSD
    ],
)
def test_a_row_that_asks_itself_has_one_question(beside: dict[str, Any], folder: Path) -> None:
    (found,) = of([{"image": "a.png", "question": "Main?", "answer": "cat"} | beside], folder).samples
    assert (found.question, found.answers) == ("Main?", ("cat",))


def test_0_and_1_are_no_and_yes_where_questions_ask_for_them(folder: Path) -> None:
    rows = [("Is it round?", "1"), ("Are they?", "0"), ("Does it, too?", "1"), ("How many?", "1")]
    found = of([{"image": "a.png", "question": q, "gt_answer": a} for q, a in rows], folder)  # HallusionBench
    assert [one.answers[1:2] for one in found.samples] == [("yes",), ("no",), ("yes",), ()]
    assert found.tally.notes == ["the answers 0 and 1 are read as no and yes"]


def test_one_of_several_answers_and_all_of_them(folder: Path) -> None:
    rows = [{"image": "a.png", "question": "What?", "answer": one} for one in ("2<OR>3", "-1<AND>-5")]  # MM-Vet
    found = of(rows, folder)
    assert [one.answers for one in found.samples] == [("2", "3")]
    assert "<AND>" in found.tally.left_out[0].detail


class TestWhatBoxesAre:
    def test_the_name_of_a_file_says_nothing_about_boxes(self, folder: Path) -> None:
        rows = [
            {"file_name": "a.png", "question": f"What {n}?", "answer": "x", "bbox": [10 + n, 20, 110, 120]}
            for n in range(6)
        ]
        assert tuple(of(rows, folder).samples[0].boxes[0]) == (10, 20, 110, 120)

    def test_answers_beside_cocos_columns_are_corners(self, folder: Path) -> None:
        rows = [
            {
                "image": "a.png",
                "iscrowd": 0,
                "category_id": 1,
                "problem": f"Find {n} by its bounding box.",
                "solution": box,
            }
            for n, box in enumerate([10 + n, 20, 110, 220] for n in range(6))
        ]  # VLM-R1
        assert tuple(of(rows, folder).samples[0].boxes[0]) == (10, 20, 110, 220)

    def test_a_box_in_the_square_around_its_image(self, folder: Path) -> None:
        row = {"image": "a.png", "question": "What?", "answer": "x", "bbox": [0.25, 0.25, 0.5, 0.75]}
        (found,) = of([row], folder, boxes="padded-xyxy").samples
        assert tuple(found.boxes[0]) == (160, 80, 320, 400)  # 640 x 480: 80 rows above it are none of the image

    @pytest.mark.parametrize(
        "beside", [{"captions": ["the dog", "left dog"]}, {"sentences": [{"sent": "the dog"}, {"sent": "left dog"}]}]
    )
    def test_each_expression_for_a_box_is_a_question(self, beside: dict[str, Any], folder: Path) -> None:
        found = of([{"image": "a.png", "bbox": [10, 20, 110, 120]} | beside], folder).samples
        assert [one.question.rpartition(": ")[2] for one in found] == ["the dog", "left dog"]
        assert all(one.metadata["scoring"] == "iou" for one in found)

    def test_what_to_click_on_is_asked_for_as_a_box(self, folder: Path) -> None:
        rows = [
            {"img_filename": "a.png", "instruction": f"open menu {n}", "bbox": [10 + n, 20, 110, 120]} for n in range(6)
        ]
        found = of(rows, folder)  # ScreenSpot
        assert found.samples[0].question == "Give the bounding box of this: open menu 0"
        assert found.samples[0].answers == ("[10, 20, 110, 120]",)
        asking = [row | {"instruction": f"{row['instruction']}?"} for row in rows]
        assert not of(asking, folder).samples[0].answers


def test_questions_listed_by_image(folder: Path) -> None:
    top = {f"{name}.png": [{"question": "What?", "answer": name}, {"question": "Who?", "answer": "x"}] for name in "ab"}
    (folder / "by_image.json").write_text(json.dumps(top))
    found = read(str(folder / "by_image.json")).samples
    assert [(Path(one.image).name, one.answers[0]) for one in found] == [
        *(("a.png", "a"), ("a.png", "x"), ("b.png", "b"), ("b.png", "x"))
    ]


def test_several_files_of_one_row(folder: Path) -> None:
    (found,) = of([{"file_names": ["a.png", "b.png"], "question_string": "What?", "answer": "x"}], folder).samples
    assert [Path(one).name for one in found.images] == ["a.png", "b.png"]
