"""Whether the attention that torch chooses has gradients that are finite, with and without cuDNN's kernel (pytorch issue 196678):
masked, in bfloat16, at lengths that are 64 beyond a multiple of 128 and at others. Our trainings do without that kernel."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

LENGTHS = (192, 320, 512, 1_088, 2_112, 4_096)
ON_CPU = LENGTHS[:3]
HEADS, WIDTH = 16, 128


def finite(length: int, device: str) -> bool:
    """Whether the gradients of one masked attention are finite: causal, and with a third of the keys left out as padding."""
    torch.manual_seed(length)
    shape = (2, HEADS, length, WIDTH)
    given = [torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    mask = torch.ones(length, length, device=device, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    mask[1, :, :, : length // 3] = False
    mask |= torch.eye(length, device=device, dtype=torch.bool)
    query, key, value = given
    output = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    output.float().square().mean().backward()
    return all(bool(one.grad is not None and one.grad.isfinite().all()) for one in given)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = LENGTHS if device == "cuda" else ON_CPU
    for allowed in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(allowed)
        found = {length: finite(length, device) for length in lengths}
        broken = [str(length) for length, is_finite in found.items() if not is_finite]
        kernel = "with" if allowed else "without"
        print(f"{device}, {kernel} cuDNN's attention: gradients not finite at {', '.join(broken) or 'no length'}")


if __name__ == "__main__":
    main()
