"""`transformers serve` where torchvision lacks its operators: `python -m tests.vllm.transformers_serve MODEL ...`.

The torchvision of this environment is compiled for CUDA, and its operators cannot be loaded. The server calls one of them, to
decode an image. Pillow decodes it here.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def decode_image(data: Tensor, **_: Any) -> Tensor:
    """Bytes of a file as [3, height, width], as torchvision's own."""
    image = Image.open(io.BytesIO(data.numpy().tobytes())).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


if __name__ == "__main__":
    import torchvision.io  # type: ignore[import-not-found,unused-ignore]
    from transformers.cli.transformers import app  # its `main` also looks for updates on the network

    torchvision.io.decode_image = decode_image
    app(["serve", *sys.argv[1:]])
