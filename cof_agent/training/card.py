"""The model card of a trained checkpoint: from what, on what, with what, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_RECIPE = (
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
    "bf16",
    "deepspeed",
)


def text(record: dict[str, Any], scores: Sequence[dict[str, Any]]) -> str:
    """Markdown of a card from a run's `record` (see `settings.record`) and the log entries of its evaluations."""
    run, training, model, data = record["run"], record["training"], record["model"], record.get("data") or {}
    base = model["model_name_or_path"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        f"tags: [chain-of-focus, {'grpo' if 'rewards' in run else 'sft'}, trl]",
        "---",
        "",
        "# A zoom agent",
        "",
        f"Trained from `{base}` {_how(run)}: it looks at an overview of a large image, asks for regions of it "
        "in the Chain-of-Focus wire format "
        f"(version {record['protocol_version']}), and answers. Run it with `cof ask IMAGE QUESTION --model DIR`"
        + (", after `cof merge`." if model.get("use_peft") else "."),
        "",
        "## Data",
        "",
        f"`{run['data']}`: {', '.join(f'{value} {name}' for name, value in data.items() if value and name != 'digest')}.",
        "",
        "## Scores while it was trained",
        "",
        *_scores(scores, run),
        "",
        "## Recipe",
        "",
        *[f"- {name}: {training[name]}" for name in _RECIPE if training.get(name) not in (None, -1)],
        f"- vision tower frozen: {run['freeze_vision']}; projector frozen: {run['freeze_projector']}",
        *([f"- LoRA: rank {model['lora_r']}, alpha {model['lora_alpha']}"] if model.get("use_peft") else []),
        "",
        "All settings, with the command, are in `run.json`.",
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {found}" for name, found in record["versions"].items()),
        "",
    ]
    return "\n".join(lines)


def _how(run: dict[str, Any]) -> str:
    return f"by GRPO, rewarded for {', '.join(run['rewards'])}" if "rewards" in run else "on zoom trajectories"


def _scores(scores: Sequence[dict[str, Any]], run: dict[str, Any]) -> list[str]:
    if not scores:
        return ["None: no evaluation was asked for (`eval_data`, `eval_strategy`)."]
    rows = [
        f"| {entry['step']} | {entry['eval_accuracy']:.3f} | {entry['eval_zooms']:.2f} | "
        f"{entry['eval_malformed']:.3f} |"
        for entry in scores
    ]
    intro = f"{run['eval_samples']} samples of `{run['eval_data']}`, the agent free-running and greedy:"
    return [intro, "", "| step | accuracy | zooms | malformed |", "|---|---|---|---|", *rows]
