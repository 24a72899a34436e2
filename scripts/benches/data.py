"""`cof data` on rows of verl with images inside: seconds, and the most memory."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

BATCH = 2_000  # rows that are made at once
PICTURES = 50  # different ones
SIZE = (320, 240)  # JPEG of 20 to 40 KB


def run(rows: int) -> None:
    """Writes so many rows, then prints what the table of `cof data` takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.parquet")
        write(path, rows)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cof_agent.cli", "data", str(path), "--quiet"], check=True)
        seconds = time.perf_counter() - start
        size, peak = path.stat().st_size / 2**20, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(f"{rows} rows, {size:.0f} MiB: {seconds:.1f} s, {peak:.0f} MiB at most")


def write(path: Path, rows: int) -> None:
    """Rows in verl's form, each with an image of its own."""
    import pyarrow
    from pyarrow import parquet

    pictures = [_picture(number) for number in range(PICTURES)]
    schema = pyarrow.Table.from_pylist([_row(0, pictures)]).schema
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, BATCH):
            made = [_row(number, pictures) for number in range(start, min(start + BATCH, rows))]
            writer.write_table(pyarrow.Table.from_pylist(made, schema=schema))


def _picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(SIZE, 5 + number).save(buffer, "JPEG")
    return buffer.getvalue()


def _row(number: int, pictures: list[bytes]) -> dict[str, Any]:
    question = f"Which colour has kite {number}?\nA. red\nB. blue\nC. green"
    how = "\nThink first, then call a tool or give the final answer."
    return {
        "data_source": "kites",
        "prompt": [
            {"role": "system", "content": "You can look closer. " * 100},
            {"role": "user", "content": f"<image>\n{question}{how}"},
        ],
        "images": [{"bytes": pictures[number % PICTURES] + number.to_bytes(4, "big")}],
        "reward_model": {"ground_truth": "B", "style": "rule"},
        "extra_info": {"question": question, "index": str(number), "split": "train"},
    }
