"""Three questions of each benchmark in each layout in which it is published: words and pictures are our own.

A writer puts its files into an empty folder. Where it says nothing else, the truth is that of `tests.data.layouts`, the right
option of question N at place N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.data.layouts import (
    ANSWERS,
    BOX,
    OTHERS,
    QUESTIONS,
    as_json,
    as_lines,
    as_parquet,
    as_table,
    held,
    picture,
    pictures,
    rows,
    text_of,
)

Row = dict[str, Any]

OPTIONS = tuple(
    (*others[:n], answer, *others[n:]) for n, (answer, others) in enumerate(zip(ANSWERS, OTHERS, strict=True))
)
LETTERS = tuple("ABCD"[options.index(answer)] for options, answer in zip(OPTIONS, ANSWERS, strict=True))
X0, Y0, X1, Y1 = BOX
CORNERS = [[X0, Y0, X1, Y1]]
WITH_SIZE = [X0, Y0, X1 - X0, Y1 - Y0]
PART = ("direct_attributes", "direct_attributes", "relative_position")
DATA = "data/{}-00000-of-00001.parquet"


def marked(n: int, mark: str = "({}) {}") -> list[str]:
    return [mark.format("ABCD"[place], text) for place, text in enumerate(OPTIONS[n])]


def lettered(n: int) -> Row:
    return {letter: (OPTIONS[n][place] if place < len(OPTIONS[n]) else "") for place, letter in enumerate("ABCD")}


def in_lines(n: int, mark: str = "({}) {}") -> str:
    return "\n".join([QUESTIONS[n], *marked(n, mark)])


def with_header(n: int) -> str:
    return "\n".join([QUESTIONS[n], "Choices:", *marked(n)])


def tsv(name: str, **more: Callable[[int], Any]) -> Callable[[Path], None]:
    """VLMEvalKit's TSV with options; the second row names the image of the first by its index."""

    def write(folder: Path) -> None:
        made = rows(
            lambda n: {
                "index": n,
                "image": "0" if n == 1 else text_of(n),
                "question": QUESTIONS[n],
                **lettered(n),
                "answer": LETTERS[n],
                **{key: value(n) for key, value in more.items()},
            }
        )
        as_table(folder / name, made, "\t")

    return write


def open_tsv(
    name: str, answer: Callable[[int], Any] = lambda n: ANSWERS[n], **more: Callable[[int], Any]
) -> Callable[[Path], None]:
    """VLMEvalKit's TSV without options."""

    def write(folder: Path) -> None:
        made = rows(
            lambda n: {
                "index": n,
                "image": text_of(n),
                "question": QUESTIONS[n],
                "answer": answer(n),
                **{key: value(n) for key, value in more.items()},
            }
        )
        as_table(folder / name, made, "\t")

    return write


def parquet(name: str, make: Callable[[int], Row]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        as_parquet(folder / name, rows(make))

    return write


def vstar_row(n: int) -> Row:
    text = f"{in_lines(n)}\nAnswer with the option's letter from the given choices directly."
    return {"text": text, "category": PART[n], "label": LETTERS[n], "question_id": n}


def vstar_images(folder: Path) -> None:
    names = [f"{PART[n]}/sa_{n}.jpg" for n in range(3)]
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(n))
        options = [ANSWERS[n], *OTHERS[n]]
        said = {"target_object": ["kite"], "bbox": [WITH_SIZE], "question": QUESTIONS[n], "options": options}
        as_json((folder / name).with_suffix(".json"), said)


def vstar(folder: Path) -> None:
    vstar_images(folder)
    as_lines(folder / "test_questions.jsonl", rows(lambda n: {"image": f"{PART[n]}/sa_{n}.jpg", **vstar_row(n)}))


def vstar_messages(n: int) -> Row:
    said = f"<image>\n{vstar_row(n)['text']}"
    turns = [{"role": "user", "content": said}, {"role": "assistant", "content": LETTERS[n]}]
    return {"messages": turns, "images": [f"{PART[n]}/sa_{n}.jpg"]}


def vstar_as_messages(folder: Path) -> None:
    vstar_images(folder)
    as_lines(folder / "vstar.jsonl", rows(vstar_messages))
    for file in [*folder.rglob("sa_*.json")]:
        file.unlink()


def vstar_in_splits(folder: Path) -> None:
    vstar_as_messages(folder)
    (folder / "vstar.jsonl").unlink()
    other = {"messages": [{"role": "user", "content": "Of the other split?"}], "images": ["x.jpg"], "answer": "no"}
    as_json(folder / "vstar.json", {"train": [other], "test": rows(vstar_messages)})


def hrbench_row(n: int) -> Row:
    base = {"index": n, "question": QUESTIONS[n], "answer": LETTERS[n], "category": "single", "cycle_category": n}
    return base | lettered(n) | {"image": text_of(n)}


def mme_json(folder: Path) -> None:
    names = pictures(folder, "imgs/traffic/{}.png")
    made = rows(
        lambda n: {
            "Question_id": f"q{n}",
            "Image": names[n].removeprefix("imgs/"),
            "Text": QUESTIONS[n],
            "Answer choices": marked(n),
            "Ground truth": LETTERS[n],
            "Task": "Perception",
            "Subtask": "Monitoring",
            "Category": "vehicle",
        }
    )
    as_json(folder / "MME-RealWorld-Lite.json", made)


def mme_row(n: int) -> Row:
    base = {"index": n, "question": QUESTIONS[n], "multi-choice options": marked(n), "answer": LETTERS[n]}
    return base | {"bytes": text_of(n), "category": "Perception/Monitoring", "l2-category": "vehicle"}


def visualprobe(folder: Path) -> None:
    for n, level in enumerate(("Easy", "Hard", "Medium")):
        (name,) = pictures(folder / f"VisualProbe_{level}", "data/{}.png")[n : n + 1]
        row = {"doc_id": n, "images": [f"VisualProbe_{level}/{name}"], "problem": f"<image>\n{QUESTIONS[n]}"}
        as_json(folder / f"VisualProbe_{level}" / "val.json", [row | {"solution": ANSWERS[n], "data_source": "x"}])


def zoombench_row(n: int) -> Row:
    """The last one is open."""
    asked = f"{QUESTIONS[n]} Select from the following choices.\n" + "\n".join(marked(n)) if n < 2 else QUESTIONS[n]
    answer = LETTERS[n] if n < 2 else ANSWERS[n]
    return {"id": str(n), "query": asked, "response": answer, "image": held(n), "crop_image": held(2 - n)}


def mmstar_row(n: int) -> Row:
    asked = f"{QUESTIONS[n]}\nOptions: {', '.join(marked(n, '{}: {}'))}"
    meta = {"source": "x", "split": "val"}
    base = {"index": n, "question": asked, "image": picture(n), "answer": LETTERS[n], "category": "math"}
    return base | {"l2_category": "geometry", "meta_info": meta}


def cv_bench_row(n: int) -> Row:
    kind, source, task = (("2D", "ADE20K", "Count"), ("2D", "COCO", "Relation"), ("3D", "Omni3D", "Depth"))[n]
    base = {"idx": n, "type": kind, "task": task, "source": source, "image": held(n), "question": QUESTIONS[n]}
    return base | {"choices": list(OPTIONS[n]), "answer": f"({LETTERS[n]})", "prompt": in_lines(n)}


def cv_bench(folder: Path) -> None:
    as_parquet(folder / "test_2d.parquet", rows(cv_bench_row)[:2])
    as_parquet(folder / "test_3d.parquet", rows(cv_bench_row)[2:])


def charxiv_row(n: int) -> Row:
    base = {"image": held(n), "figure_path": f"images/{n}.jpg", "reasoning_q": QUESTIONS[n], "reasoning_a": ANSWERS[n]}
    return base | {"reasoning_q_source": (1, 4, 2)[n], "descriptive_q1": 3, "descriptive_a1": "Not Applicable"}


def finers(folder: Path) -> None:
    """The last one is open; one to segment stands between."""
    names = pictures(folder, "all_images/{}.png")
    points = [[X0, Y0], [X1, Y0], [X1, Y1], [X0, Y1]]

    def row(n: int) -> Row:
        base = {"image_path": names[n].removeprefix("all_images/"), "Q": QUESTIONS[n], "points": points}
        if n == 2:
            return base | {"Q-type": "reasoning", "A": ANSWERS[n]}
        options = {letter: text for letter, text in lettered(n).items() if text}
        return base | {"Q-type": "option", "A": LETTERS[n], "options": options}

    segment = {"image_path": "0.png", "Q": "the kite", "A": "", "Q-type": "referring", "points": points}
    first, second, third = rows(row)
    made = {"annotations": [first, segment, second, third]}
    as_json(folder / "labels" / "all_annotations_final_test_v5.json", made)


def xlrs_row(n: int) -> Row:
    """Of the last one, two options are right."""
    task = "Land use classification/Overall Land use classification" if n == 2 else "Counting/Overall counting"
    answer = f"{LETTERS[n]} A" if n == 2 else LETTERS[n]
    return {"index": n, "question": QUESTIONS[n], "answer": answer, "category": task, "l2-category": "x"}


def xlrs_lines(folder: Path) -> None:
    made = rows(
        lambda n: {
            **xlrs_row(n),
            "image": text_of(n),
            "multi-choice options": "\nThese are the options:\n" + "\n".join(marked(n)) + "\nSelect the best answer.",
        }
    )
    as_lines(folder / "XLRS-Bench-lite_part0.jsonl", made)


TASK = "Look at the points on the map.\n"
"""What only the prompt of a row of BLINK says."""


def blink_row(n: int) -> Row:
    """The first question is about one image, the others about two: their own, and that of the question before."""
    base: Row = {"idx": f"val_Counting_{n}", "sub_task": "Counting", "question": QUESTIONS[n], "image_1": held(n)}
    base |= {"image_2": held(n - 1) if n else None, "image_3": None, "choices": list(OPTIONS[n]), "explanation": ""}
    return base | {"answer": f"({LETTERS[n]})", "prompt": f"{TASK}{in_lines(n)}"}


def blink_tsv(folder: Path) -> None:
    tsv(
        "BLINK.tsv",
        category=lambda n: "Counting",
        image=lambda n: str([text_of(n), text_of(n - 1)]) if n else text_of(n),
    )(folder)


def chartqa_row(n: int) -> Row:
    kind = "human_test" if n else "augmented_test"
    return {"type": kind, "question": QUESTIONS[n], "answer": ANSWERS[n], "image": held(n)}


def docvqa_row(n: int) -> Row:
    base = {"questionId": str(n), "question": QUESTIONS[n], "image": held(n), "docId": n, "question_types": ["form"]}
    return base | {"answers": [ANSWERS[n], ANSWERS[n].upper()]}


def infographic_row(n: int) -> Row:
    base = {"questionId": str(n), "question": QUESTIONS[n], "image": held(n), "answers": [ANSWERS[n]]}
    return base | {"answer_type": ["single span"], "operation/reasoning": []}


def textvqa_row(n: int) -> Row:
    return {"question_id": n, "question": QUESTIONS[n], "image": held(n), "answers": [ANSWERS[n]] * 7 + ["unsure"] * 3}


def ocrbench_row(n: int) -> Row:
    kind = "Regular Text Recognition"
    return {"dataset": "x", "question": QUESTIONS[n], "question_type": kind, "answer": [ANSWERS[n]], "image": held(n)}


def chartqa_files(folder: Path) -> None:
    """Of the authors: a file for what people asked, and one for what was made of captions."""
    names = pictures(folder, "ChartQA Dataset/test/png/{}.png")
    made = [{"imgname": Path(names[n]).name, "query": QUESTIONS[n], "label": ANSWERS[n]} for n in range(3)]
    as_json(folder / "ChartQA Dataset/test/test_augmented.json", made[:1])
    as_json(folder / "ChartQA Dataset/test/test_human.json", made[1:])
    as_json(folder / "ChartQA Dataset/train/train_human.json", made)


def authors(
    file: str,
    images: str,
    row: Callable[[int, str], Row],
    wrap: Callable[[list[Row]], Any] = lambda rows: {"data": rows},
) -> Callable[[Path], None]:
    """A JSON of the authors with a folder of images. row: of a number and its image's path below the folder."""

    def write(folder: Path) -> None:
        names = pictures(folder, images)
        as_json(folder / file, wrap([row(n, names[n]) for n in range(3)]))

    return write


def _said(n: int, **more: Any) -> Row:
    return {"question": QUESTIONS[n], "answers": [ANSWERS[n]], "data_split": "val"} | more


docvqa_files = authors(
    "spdocvqa_qas/val_v1.0_withQT.json",
    "spdocvqa_images/{}.png",
    lambda n, name: _said(n, questionId=n, image=f"documents/{Path(name).name}", docId=n, question_types=["form"]),
)
infographic_files = authors(
    "infographicsVQA_val_v1.0_withQT.json",
    "infographicsvqa_images/{}.jpeg",
    lambda n, name: _said(n, questionId=n, image_local_name=Path(name).name, ocr_output_file="x.json"),
)
textvqa_files = authors(
    "TextVQA_0.5.1_val.json",
    "train_images/{}.jpg",
    lambda n, name: _said(n, question_id=n, image_id=Path(name).stem, answers=[ANSWERS[n]] * 10, set_name="val"),
)
charxiv_files = authors(
    "data/reasoning_val.json",
    "images/{}.jpg",
    lambda n, _: {"figure_id": n, "query": QUESTIONS[n], "answer": ANSWERS[n], "inst_category": (1, 4, 2)[n]},
    lambda rows: {str(row["figure_id"]): row for row in rows},
)


def mathvista_row(n: int) -> Row:
    """The last two are open."""
    kind = ("text", "integer", "text")[n]
    base: Row = {
        "pid": str(n),
        "question": QUESTIONS[n],
        "image": "images/1.jpg",
        "decoded_image": held(n),
        "unit": None,
    }
    choices = list(OPTIONS[n]) if n == 0 else None
    base |= {"choices": choices, "precision": None, "answer": ANSWERS[n], "answer_type": kind}
    return base | {"metadata": {"task": "figure question answering"}}


def pope_row(n: int) -> Row:
    base = {"id": str(n), "question_id": str(n), "question": QUESTIONS[n], "answer": ("yes", "no", "no")[n]}
    return base | {"image": held(n), "category": ("random", "popular", "adversarial")[n]}


def refcoco_row(n: int) -> Row:
    base = {"question_id": str(n), "image": held(n), "question": "Say what is marked.", "bbox": WITH_SIZE}
    return base | {"answer": [f"the kite {n}", f"kite {n} there"], "file_name": "x.jpg"}


def refcoco_json(folder: Path) -> None:
    names = pictures(folder, "train2014/{}.png")
    asked = "Please provide the bounding box coordinate of the region this sentence describes: the kite."
    made = rows(
        lambda n: {"image": names[n], "problem": asked, "normal_caption": f"the kite {n}", "solution": CORNERS[0]}
    )
    as_json(folder / "refcoco_testA.json", made)


@dataclass(frozen=True, slots=True)
class Case:
    """One layout of a benchmark and its truth. open: the questions without choices. asked: the questions, where they differ from
    `QUESTIONS`. same_image: the second question is about the image of the first. two_images: the second and third are about that
    of the question before, too. right, wrong: a reply to each question, where they are no letters."""

    benchmark: str
    write: Callable[[Path], None]
    open: tuple[int, ...] = ()
    asked: tuple[str, ...] = QUESTIONS
    answers: tuple[tuple[str, ...], ...] = tuple((answer,) for answer in ANSWERS)
    boxes: bool = False
    same_image: bool = False
    two_images: bool = False
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def every(benchmark: str, write: Callable[[Path], None], **more: Any) -> Case:
    """A case without choices."""
    return Case(benchmark, write, open=(0, 1, 2), **more)


TWICE = tuple((answer, answer.upper()) if answer.islower() else (answer,) for answer in ANSWERS)
NEAR = {"right": ("green", "4.1", "K-17"), "wrong": ("red", "4.3", "K-71")}  # within 5 %, and beyond
TYPED = {"right": ("greem", "4", "K-1T"), "wrong": ("yellow", "473", "Z")}  # ANLS forgives a letter
SAID = {"right": ("It is green.", "There are 4 boats", "k-17"), "wrong": ("blue", "5", "K 71")}
KITES = tuple(f"Give the bounding box of this: the kite {n}" for n in range(3))
KITES_TWICE = tuple(
    f"Give the bounding box of this: {said}" for n in range(3) for said in (f"the kite {n}", f"kite {n} there")
)
LOCATED = {"right": ("[122, 92, 180, 140]",) * 6, "wrong": ("[20, 20, 60, 60]",) * 6, "boxes": True}
WHOLE = tuple(f"{asked} (Give a whole number.)" if n == 1 else asked for n, asked in enumerate(QUESTIONS))
SEVERAL = (*QUESTIONS[:2], f"{QUESTIONS[2]} Several options may be right.")
ALL_RIGHT: Row = {
    "asked": SEVERAL,
    "answers": (("green",), ("4",), ("K-71; K-17",)),
    "right": ("A", "B", "A C"),
    "wrong": ("B", "A, B", "C"),
}
_ARGUMENTS = {"category": lambda n: "x"}

CASES: dict[str, Case] = {
    "vstar: lines": Case("vstar", vstar, boxes=True),
    "vstar: a file for each image": Case("vstar", vstar_images, boxes=True, right=("A",) * 3, wrong=("B",) * 3),
    "vstar: messages": Case("vstar", vstar_as_messages),
    "vstar: train and test": Case("vstar", vstar_in_splits),
    "vstar: Parquet": Case("vstar", parquet(DATA.format("test"), lambda n: {"image": held(n), **vstar_row(n)})),
    "vstar: TSV": Case("vstar", tsv("VStarBench.tsv", category=lambda n: PART[n]), same_image=True),
    "hrbench-4k: Parquet": Case("hrbench-4k", parquet("hr_bench_4k.parquet", hrbench_row)),
    "hrbench-8k: split": Case(
        "hrbench-8k", parquet("hrbench_version_split/hrbench_8k-00000-of-00001.parquet", hrbench_row)
    ),
    "hrbench-8k: TSV": Case(
        "hrbench-8k", tsv("HRBench8K.tsv", category=lambda n: "single", cycle_category=lambda n: n), same_image=True
    ),
    "mme-realworld-lite: JSON": Case("mme-realworld-lite", mme_json),
    "mme-realworld: Parquet": Case("mme-realworld", parquet(DATA.format("train"), mme_row)),
    "mme-realworld-lite: TSV": Case(
        "mme-realworld-lite",
        tsv("mme_realworld_lite.tsv", **{"multi-choice options": lambda n: str(marked(n)), "category": lambda n: "x"}),
        same_image=True,
    ),
    "treebench: TSV": Case(
        "treebench",
        tsv(
            "TreeBench.tsv",
            **{
                "multi-choice options": lambda n: "\n".join(marked(n, "{}. {}")),
                "category": lambda n: "Perception/Material",
                "l2-category": lambda n: "x",
                "target_instances": lambda n: str(CORNERS),
            },
        ),
        boxes=True,
        same_image=True,
    ),
    "treebench: options by letter": Case(
        "treebench",
        tsv("TreeBench.tsv", category=lambda n: "Perception/Material", target_instances=lambda n: str(CORNERS)),
        boxes=True,
        same_image=True,
    ),
    "visualprobe": every("visualprobe", visualprobe, **SAID),
    "zoombench": Case("zoombench", parquet("data/test.parquet", zoombench_row), open=(2,)),
    "mmstar": Case("mmstar", parquet("mmstar.parquet", mmstar_row)),
    "mmstar: TSV": Case("mmstar", tsv("MMStar.tsv", category=lambda n: "math"), same_image=True),
    "cv-bench": Case("cv-bench", cv_bench),
    "cv-bench: one file": Case("cv-bench", parquet("test.parquet", cv_bench_row)),
    "cv-bench: TSV": Case(
        "cv-bench", tsv("CV-Bench-2D.tsv", split=lambda n: "2D", source=lambda n: "COCO"), same_image=True
    ),
    "charxiv": every("charxiv", parquet("val.parquet", charxiv_row), asked=WHOLE, **SAID),
    "charxiv: its authors": every("charxiv", charxiv_files, asked=WHOLE, **SAID),
    "finers-4k": Case("finers-4k", finers, open=(2,), boxes=True),
    "xlrs-bench-lite": Case(
        "xlrs-bench-lite",
        parquet(DATA.format("train"), lambda n: {**xlrs_row(n), "image": [held(n)], "multi-choice options": marked(n)}),
        **ALL_RIGHT,
    ),
    "xlrs-bench-lite: lines": Case("xlrs-bench-lite", xlrs_lines, **ALL_RIGHT),
    "blink": Case(
        "blink",
        parquet("Counting/val-00000-of-00001.parquet", blink_row),
        two_images=True,
        asked=tuple(f"{TASK}{asked}" for asked in QUESTIONS),
    ),
    "blink: TSV": Case("blink", blink_tsv, two_images=True),
    "chartqa": every("chartqa", parquet(DATA.format("test"), chartqa_row), **NEAR),
    "chartqa: TSV": every(
        "chartqa", open_tsv("ChartQA_TEST.tsv", lambda n: str([ANSWERS[n]]), split=lambda n: "x"), **NEAR
    ),
    "chartqa: its authors": every("chartqa", chartqa_files, **NEAR),
    "docvqa": every("docvqa", parquet("DocVQA/validation-00000-of-00006.parquet", docvqa_row), answers=TWICE, **TYPED),
    "docvqa: TSV": every(
        "docvqa", open_tsv("DocVQA_VAL.tsv", lambda n: str([ANSWERS[n], ANSWERS[n].upper()])), answers=TWICE, **TYPED
    ),
    "docvqa: its authors": every("docvqa", docvqa_files, **TYPED),
    "infographicvqa": every(
        "infographicvqa", parquet("InfographicVQA/validation-00000-of-00001.parquet", infographic_row), **TYPED
    ),
    "infographicvqa: TSV": every("infographicvqa", open_tsv("InfoVQA_VAL.tsv"), **TYPED),
    "infographicvqa: its authors": every("infographicvqa", infographic_files, **TYPED),
    "textvqa": every(
        "textvqa",
        parquet(DATA.format("validation"), textvqa_row),
        answers=tuple((*(answer,) * 7, *("unsure",) * 3) for answer in ANSWERS),
        right=ANSWERS,
        wrong=("blue", "5", "K 71"),
    ),
    "textvqa: TSV": every(
        "textvqa",
        open_tsv("TextVQA_VAL.tsv", lambda n: str([ANSWERS[n]] * 10)),
        answers=tuple((answer,) * 10 for answer in ANSWERS),
        right=ANSWERS,
        wrong=("blue", "5", "K 71"),
    ),
    "textvqa: its authors": every(
        "textvqa",
        textvqa_files,
        answers=tuple((answer,) * 10 for answer in ANSWERS),
        right=ANSWERS,
        wrong=("blue", "5", "K 71"),
    ),
    "ocrbench": every("ocrbench", parquet(DATA.format("test"), ocrbench_row), **SAID),
    "ocrbench: TSV": every("ocrbench", open_tsv("OCRBench.tsv", lambda n: str([ANSWERS[n]]), **_ARGUMENTS), **SAID),
    "mathvista": Case("mathvista", parquet(DATA.format("testmini"), mathvista_row), open=(1, 2), asked=WHOLE),
    "mathvista: TSV with options": Case(
        "mathvista",
        tsv(
            "MathVista_MINI.tsv",
            question=lambda n: f"Hint: Please give the letter of the right option.\nQuestion: {with_header(n)}",
            choices=lambda n: str(list(OPTIONS[n])),
            answer=lambda n: ANSWERS[n],
            answer_type=lambda n: "text",
            task=lambda n: "x",
        ),
        same_image=True,
    ),
    "mathvista: TSV": every(
        "mathvista",
        open_tsv("MathVista_MINI.tsv", choices=lambda n: "[]", answer_type=lambda n: "text", task=lambda n: "x"),
        **SAID,
    ),
    "pope": every(
        "pope",
        parquet(DATA.format("test"), pope_row),
        answers=(("yes",), ("no",), ("no",)),
        right=("Yes.", "no", "No, there is none."),
        wrong=("no", "Yes", "I see one."),
    ),
    "pope: TSV": every(
        "pope",
        open_tsv("POPE.tsv", lambda n: ("Yes", "No", "No")[n], category=lambda n: "random"),
        answers=(("Yes",), ("No",), ("No",)),
        right=("Yes.", "no", "No, there is none."),
        wrong=("no", "Yes", "I see one."),
    ),
    "refcoco": every(
        "refcoco",
        parquet(DATA.format("testA"), refcoco_row),
        asked=KITES_TWICE,
        answers=(("[120, 90, 180, 140]",),) * 6,
        **LOCATED,
    ),
    "refcoco: VLM-R1": every("refcoco", refcoco_json, asked=KITES, answers=(("[120, 90, 180, 140]",),) * 3, **LOCATED),
    "refcoco+": every(
        "refcoco+",
        parquet(DATA.format("testB"), refcoco_row),
        asked=KITES_TWICE,
        answers=(("[120, 90, 180, 140]",),) * 6,
        **LOCATED,
    ),
    "refcocog": every(
        "refcocog",
        parquet(DATA.format("test"), refcoco_row),
        asked=KITES_TWICE,
        answers=(("[120, 90, 180, 140]",),) * 6,
        **LOCATED,
    ),
}
