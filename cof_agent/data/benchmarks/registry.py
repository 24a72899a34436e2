"""Which benchmarks there are. Most are data: columns of files that a few readers share.

Layouts are those that cards and file listings of the hub and public evaluation code show. Scoring is that of each benchmark's own
paper. Where only lmms-eval or VLMEvalKit says how answers are scored, `source` names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cof_agent.data.benchmarks import charxiv, finers, mathvista, pope, refcoco, treebench, visualprobe, vstar, xlrs
from cof_agent.data.benchmarks.benchmark import Benchmark
from cof_agent.data.benchmarks.copy import Copy
from cof_agent.data.benchmarks.layout import INSIDE, LETTERS, Layout, Table, table, vlmevalkit
from cof_agent.data.rows import Row
from cof_agent.data.samples import read_samples
from cof_agent.trajectory import Sample

_HRBENCH_PARTS = {"single": 400, "cross": 400}  # 100 questions of each in the README of DreamMr/HR-Bench, four cycles
_MMSTAR_PARTS = dict.fromkeys(
    (
        "coarse perception",
        "fine-grained perception",
        "instance reasoning",
        "logical reasoning",
        "math",
        "science & technology",
    ),
    250,
)
_OPTIONS = "multi-choice options"


def _hrbench(size: str) -> Benchmark:
    """Each question is asked four times, its options rotated: the rows have all four, and `cycle_category` says which it is."""
    columns = {"choices": LETTERS, "category": ("category",)}
    names = (
        f"hr_bench_{size}.parquet",
        f"hrbench_{size}*.parquet",
        f"hr_bench_{size}.tsv",
        f"HRBench{size.upper()}.tsv",
    )
    return Benchmark(
        f"HR-Bench {size.upper()}",
        f"small objects in {size.upper()} images",
        "choice",
        "arXiv 2408.15556; VLMEvalKit utils/hrbench.py: mean over the four cycles",
        (table(*names, **columns, cycle="cycle_category"),),
        {"DreamMr/HR-Bench": (f"hr_bench_{size}.parquet",)},
        _HRBENCH_PARTS,
        cycles=4,
    )


def _mme_realworld(title: str, names: tuple[str, ...], tsv: tuple[str, ...], repository: str, size: int) -> Benchmark:
    """The last option, E, is that the others are wrong or that the image does not show it. size: of the English part."""
    split = {"category": ("category",), "subcategory": "l2-category"}
    return Benchmark(
        title,
        "high-resolution photographs, documents, traffic, remote sensing",
        "choice",
        "arXiv 2408.13257",
        (
            table(
                *names,
                id="Question_id",
                image="Image",
                question="Text",
                answer="Ground truth",
                choices="Answer choices",
                category=("Task", "Subtask"),
                subcategory="Category",
            ),
            table("train-*.parquet", image="bytes", choices=_OPTIONS, **split),
            vlmevalkit(*tsv, **{**split, "choices": _OPTIONS}),
        ),
        {repository: ("data/*.parquet",)},
        size,
    )


def _documents(
    title: str, what: str, source: str, folder: str, tsv: str, size: int, own: tuple[Layout, ...], **columns: object
) -> Benchmark:
    """One of the sets of lmms-lab/DocVQA, whose test answers are not public. own: the layouts of the authors' file."""
    names = (f"{folder}/validation-*.parquet", "validation-*.parquet")
    return Benchmark(
        title,
        what,
        "anls",
        source,
        (table(*names, id="questionId", answer="answers", **columns), vlmevalkit(tsv), *own),
        {"lmms-lab/DocVQA": (f"{folder}/validation-*.parquet",)},
        size,
    )


def _blink(**columns: object) -> Layout:
    """The column `question` alone does not say what the task means; `prompt` does, where a copy has it."""
    parts = {"category": ("sub_task",), "part_of": ("sub_task",)}
    return table(
        "val-*.parquet", id="idx", image="image_1", choices="choices", more_images="image_", **parts, **columns
    )


def _chartqa() -> Layout:
    """That of its authors (https://github.com/vis-nlp/ChartQA), with `png` beside it: the file says who asked."""
    read = Table(id="", image="imgname", question="query", answer="label")

    def samples(copy: Copy, row: Row) -> Iterable[Sample]:
        for sample in read(copy, row):
            yield replace(sample, metadata={"category": row.file.stem.partition("_")[2]})

    return Layout(("test_{human,augmented}.json",), read.columns, samples)


def _refcoco(title: str, name: str, repository: str, splits: tuple[str, ...], source: str) -> Benchmark:
    return Benchmark(
        title,
        f"find the object that is named ({', '.join(splits)})",
        "located",
        f"{source}; Acc@0.5",
        refcoco.layouts(name, splits),
        refcoco.hub(f"lmms-lab/{repository}", splits),
    )


BENCHMARKS: dict[str, Benchmark] = {
    "vstar": Benchmark(
        "V*", "small objects in photographs", "choice", "arXiv 2312.14135", vstar.LAYOUTS, vstar.HUB, vstar.PARTS
    ),
    "hrbench-4k": _hrbench("4k"),
    "hrbench-8k": _hrbench("8k"),
    "mme-realworld": _mme_realworld(
        "MME-RealWorld",
        ("MME_RealWorld.json",),
        ("MME-RealWorld.tsv",),
        "yifanzhang114/MME-RealWorld-Lmms-eval",
        23_609,
    ),
    "mme-realworld-lite": _mme_realworld(
        "MME-RealWorld-Lite",
        ("MME-RealWorld-Lite.json", "MME_RealWorld_Lite.json"),
        ("mme_realworld_lite.tsv", "MME-RealWorld-Lite.tsv"),
        "yifanzhang114/MME-RealWorld-lite-lmms-eval",
        1_919,
    ),
    "treebench": Benchmark(
        "TreeBench",
        "objects in dense scenes",
        "choice",
        "arXiv 2507.07999",
        treebench.LAYOUTS,
        treebench.HUB,
        treebench.PARTS,
    ),
    "visualprobe": Benchmark(
        "VisualProbe",
        "search by trial and error",
        "exact",
        "arXiv 2509.07969",
        visualprobe.LAYOUTS,
        visualprobe.HUB,
        visualprobe.PARTS,
        judge=True,
    ),
    "zoombench": Benchmark(
        "ZoomBench",
        "details that a glance misses; 621 with options, 224 open",
        "choice",
        "arXiv 2602.11858",
        tuple(
            table("test.parquet", "test-*.parquet", id=id, question=asked, answer=answer, choices=INSIDE)
            for id, asked, answer in (("id", "query", "response"), ("", "prompt", "answer"))
        ),
        {"inclusionAI/ZoomBench": ("data/test*.parquet",)},
        845,
        judge=True,
    ),
    "mmstar": Benchmark(
        "MMStar",
        "questions that need the image",
        "choice",
        "arXiv 2403.20330",
        (
            table("mmstar.parquet", "val-*.parquet", choices=INSIDE, category=("category",), subcategory="l2_category"),
            vlmevalkit("MMStar.tsv", category=("category",)),
        ),
        {"Lin-Chen/MMStar": ("mmstar.parquet",)},
        _MMSTAR_PARTS,
    ),
    "cv-bench": Benchmark(
        "CV-Bench",
        "counts, positions, depth and distance",
        "choice",
        "arXiv 2406.16860, appendix C",
        (
            table(
                "test_{2d,3d}.parquet",
                "test-*.parquet",
                "test.parquet",
                id="idx",
                choices="choices",
                category=("task",),
                part_of=("type", "source"),
            ),
            vlmevalkit("CV-Bench-{2D,3D}.tsv", part_of=("split", "source")),
        ),
        {"nyu-visionx/CV-Bench": ("test*.parquet",)},
        2_638,
        averaged="the sources of 2D, then 2D and 3D",
    ),
    "charxiv": Benchmark(
        "CharXiv (reasoning)",
        "charts of papers",
        "exact",
        "arXiv 2406.18521",
        charxiv.LAYOUTS,
        charxiv.HUB,
        charxiv.SIZE,
        judge=True,
    ),
    "finers-4k": Benchmark(
        "FINERS-4k",
        "very small objects seen by drones (without segmentation)",
        "choice",
        "arXiv 2510.21311",
        finers.LAYOUTS,
        finers.HUB,
    ),
    "xlrs-bench-lite": Benchmark(
        "XLRS-Bench-lite",
        "remote sensing, 8,000 to 10,000 pixels a side",
        "several",
        "arXiv 2503.23771; lmms-eval tasks/xlrs: the exact set of right options",
        xlrs.LAYOUTS,
        xlrs.HUB,
        averaged="tasks",
    ),
    "blink": Benchmark(
        "BLINK",
        "what people see at a glance, also in several images",
        "choice",
        "arXiv 2404.12390; eval/evaluate.py of zeyofu/BLINK_Benchmark",
        (
            _blink(question="prompt", lists_choices=True),
            _blink(),
            vlmevalkit("BLINK.tsv", category=("category",), part_of=("category",)),
        ),
        {"BLINK-Benchmark/BLINK": ("*/val-*.parquet",)},
        1_901,
        averaged="tasks",
    ),
    "chartqa": Benchmark(
        "ChartQA",
        "charts",
        "relaxed",
        "arXiv 2203.10244, section 5.1",
        (
            table("test-*.parquet", id="", category=("type",)),
            vlmevalkit("ChartQA_TEST.tsv", category=("split",)),
            _chartqa(),
        ),
        {"lmms-lab/ChartQA": ("data/test-*.parquet",)},
        2_500,
    ),
    "docvqa": _documents(
        "DocVQA",
        "scanned documents",
        "arXiv 2007.00398",
        "DocVQA",
        "DocVQA_VAL.tsv",
        5_349,
        (
            table("val_v1.0_withQT.json", id="questionId", answer="answers", kinds="question_types"),
            table("val_v1.0.json", id="questionId", answer="answers"),
        ),
        kinds="question_types",
    ),
    "infographicvqa": _documents(
        "InfographicVQA",
        "infographics",
        "arXiv 2104.12756",
        "InfographicVQA",
        "InfoVQA_VAL.tsv",
        2_801,
        (
            table(
                "infographicsVQA_val_v1.0_withQT.json",
                "infographicsVQA_val_v1.0.json",
                id="questionId",
                image="image_local_name",
                answer="answers",
            ),
        ),
        kinds="answer_type",
        subcategory="operation/reasoning",
    ),
    "textvqa": Benchmark(
        "TextVQA",
        "text in photographs",
        "vqa",
        "arXiv 1904.08920; without its list of contractions",
        (
            table("validation-*.parquet", id="question_id", answer="answers"),
            vlmevalkit("TextVQA_VAL.tsv"),
            table("TextVQA_0.5.1_val.json", id="question_id", image="image_id", suffix=".jpg", answer="answers"),
        ),
        {"lmms-lab/textvqa": ("data/validation-*.parquet",)},
        5_000,
    ),
    "ocrbench": Benchmark(
        "OCRBench",
        "reading of all kinds",
        "contains",
        "arXiv 2305.07895",
        (
            table("test-*.parquet", id="", category=("question_type",), subcategory="dataset"),
            vlmevalkit("OCRBench.tsv", category=("category",)),
            table(  # of its authors, with OCRBench_Images beside it
                "OCRBench.json",
                id="id",
                image="image_path",
                answer="answers",
                category=("type",),
                subcategory="dataset_name",
            ),
        ),
        {"echo840/OCRBench": ("data/test-*.parquet",)},
        1_000,
    ),
    "mathvista": Benchmark(
        "MathVista (testmini)",
        "figures that take arithmetic",
        "exact",
        "arXiv 2310.02255",
        mathvista.LAYOUTS,
        mathvista.HUB,
        mathvista.SIZE,
        judge=True,
    ),
    "pope": Benchmark(
        "POPE",
        "whether an object is in the image",
        "yes_no",
        "arXiv 2305.10355",
        pope.LAYOUTS,
        pope.HUB,
        pope.PARTS,
    ),
    "refcoco": _refcoco("RefCOCO", "refcoco", "RefCOCO", refcoco.TESTS, "arXiv 1608.00272"),
    "refcoco+": _refcoco("RefCOCO+", "refcocop", "RefCOCOplus", refcoco.TESTS, "arXiv 1608.00272"),
    "refcocog": _refcoco("RefCOCOg", "refcocog", "RefCOCOg", ("test",), "arXiv 1511.02283"),
    "scenes": Benchmark(
        "scenes", "drawn scenes, from cof scenes", "exact", "cof_agent/evaluation", own=lambda copy: read_samples(copy)
    ),
}
