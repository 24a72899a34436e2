"""Turns kept trajectories into training sets of other frameworks: Parquet for TRL, ShareGPT JSON for LLaMA-Factory.

Both hold the conversation as the agent has it: images sized as the model is shown them, so that boxes in the text are
in the pixels of what is trained on.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment, settings_of
from cof_agent.errors import InputError
from cof_agent.output.files import make_folder, unwritable, write_atomic
from cof_agent.output.install import how_to_install
from cof_agent.strategies.replay import messages_of
from cof_agent.trajectory import Trajectory

ROLES = {"user": "human", "assistant": "gpt"}
IMAGE = "<image>"  # how ShareGPT marks the place of an image
MARKS = (IMAGE, "<video>", "<audio>")
"""What LLaMA-Factory takes for the place of a file, wherever it stands in a text."""
LLAMA_FACTORY_PIXELS = 768 * 768
"""The largest area of an image that LLaMA-Factory leaves as it is, unless `image_max_pixels` is set."""
_BATCH = 64  # rows held at a time


def conversation(trajectory: Trajectory, environment: ZoomEnvironment) -> tuple[list[protocol.Message], list[bytes]]:
    """The messages of a trajectory, and its images as PNG files in order."""
    own = environment.with_settings(settings_of(trajectory))
    pngs = []
    for view in trajectory.views:
        buffer = io.BytesIO()
        own.image(trajectory.sample, view).save(buffer, "PNG", compress_level=1)
        pngs.append(buffer.getvalue())
    return messages_of(trajectory), pngs


def to_parquet(trajectories: Iterable[Trajectory], path: Path) -> int:
    """`messages` and `images` as TRL's `SFTTrainer` takes them for vision-language models; returns the number of rows.

    Raises:
        InputError: if the package pyarrow is missing, an image cannot be read, or the file cannot be written.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"Parquet needs the package pyarrow: {how_to_install('pyarrow')}.") from None
    part = arrow.struct([("type", arrow.string()), ("text", arrow.string())])
    message = arrow.struct([("role", arrow.string()), ("content", arrow.list_(part))])
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    features = {"images": {"feature": {"_type": "Image"}, "_type": "List"}}
    schema = arrow.schema(
        [
            ("id", arrow.string()),
            ("messages", arrow.list_(message)),
            ("images", arrow.list_(image)),
            ("coordinates", arrow.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": _features() | features}})},
    )
    rows, environment = 0, ZoomEnvironment()
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")  # two shards that end at once both export
    make_folder(path.parent)
    try:
        with parquet.ParquetWriter(temporary, schema) as writer:
            for batch in _batches(trajectories):
                made = [_row(trajectory, environment) for trajectory in batch]
                writer.write_table(arrow.Table.from_pylist(made, schema=schema))
                rows += len(made)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def _features() -> dict[str, Any]:
    """The columns as `datasets` describes them, so that it decodes the images."""
    text = {"dtype": "string", "_type": "Value"}
    content = {"feature": {"type": text, "text": text}, "_type": "List"}
    return {
        "id": text,
        "coordinates": text,
        "messages": {"feature": {"role": text, "content": content}, "_type": "List"},
    }


def _row(trajectory: Trajectory, environment: ZoomEnvironment) -> dict[str, Any]:
    messages, pngs = conversation(trajectory, environment)
    plain = [
        {
            "role": message["role"],
            "content": [{"type": part["type"], "text": part.get("text")} for part in message["content"]],
        }
        for message in messages
    ]
    images = [{"bytes": png, "path": None} for png in pngs]
    return {"id": trajectory.sample.id, "messages": plain, "images": images, "coordinates": _coordinates(trajectory)}


def _coordinates(trajectory: Trajectory) -> str:
    """What the boxes in the texts are, which nobody could tell from their numbers."""
    return settings_of(trajectory).system.value


def to_sharegpt(trajectories: Iterable[Trajectory], folder: Path) -> tuple[int, list[str]]:
    """`sharegpt.json`, `dataset_info.json` and `images/` in `folder`, each image once; returns the number of rows and
    the ids that were left out, whose text holds the mark of an image, a video or a sound itself."""
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    environment = ZoomEnvironment()
    for trajectory in trajectories:
        messages, pngs = conversation(trajectory, environment)
        texts = [part.get("text", "") for message in messages for part in message["content"]]
        if any(mark in text for text in texts for mark in MARKS):
            left_out.append(trajectory.sample.id)
            continue
        turns = [
            {"from": ROLES[message["role"]], "value": _flat(message["content"])}
            for message in messages
            if message["role"] != "system"
        ]
        system = "".join(_flat(message["content"]) for message in messages if message["role"] == "system")
        images = [_written(png, folder) for png in pngs]
        row = {"id": trajectory.sample.id, "conversations": turns, "system": system, "images": images}
        rows.append(row | {"coordinates": _coordinates(trajectory)})
    write_atomic(folder / "sharegpt.json", json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    columns = {"messages": "conversations", "images": "images", "system": "system"}
    info = {"chain_of_focus": {"file_name": "sharegpt.json", "formatting": "sharegpt", "columns": columns}}
    write_atomic(folder / "dataset_info.json", json.dumps(info, indent=1) + "\n")
    return len(rows), left_out


def _flat(content: Sequence[dict[str, Any]]) -> str:
    return "".join(IMAGE if part["type"] == "image" else part["text"] for part in content)


def _written(png: bytes, folder: Path) -> str:
    name = f"images/{hashlib.sha256(png).hexdigest()[:24]}.png"
    if not (folder / name).exists():
        write_atomic(folder / name, png)
    return name


def _batches(trajectories: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    batch: list[Trajectory] = []
    for trajectory in trajectories:
        batch.append(trajectory)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _parquet(trajectories: Iterable[Trajectory], output: Path) -> str:
    path = output / "train.parquet"
    return f"exported: {to_parquet(trajectories, path)} rows in {path}"


def _sharegpt(trajectories: Iterable[Trajectory], output: Path) -> str:
    areas = [0]

    def measured() -> Iterator[Trajectory]:
        for trajectory in trajectories:
            areas.extend(view.shown_size.area for view in trajectory.views)
            areas[:] = [max(areas)]
            yield trajectory

    rows, left_out = to_sharegpt(measured(), output / "sharegpt")
    but = f"; left out, since their text holds {', '.join(MARKS)}: {', '.join(left_out)}" if left_out else ""
    told = f"exported: {rows} rows in {output / 'sharegpt'}{but}"
    if areas[0] <= LLAMA_FACTORY_PIXELS:
        return told
    return (
        f"{told}\nSet image_max_pixels: {areas[0]} in LLaMA-Factory, which else makes images smaller than their boxes."
    )


EXPORTS: dict[str, Callable[[Iterable[Trajectory], Path], str]] = {"parquet": _parquet, "sharegpt": _sharegpt}
"""What `cof collect --export` writes into its folder; each says in a sentence what it wrote."""
