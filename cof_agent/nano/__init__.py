"""A small but real Qwen2.5-VL, trained here on procedural scenes and shipped with the package.

`build` makes its tokenizer and a random start; `weights/` holds the trained checkpoint.
"""

from pathlib import Path

NANO = "nano"
"""What it is called wherever a model is named."""

WEIGHTS = Path(__file__).parent / "weights"
