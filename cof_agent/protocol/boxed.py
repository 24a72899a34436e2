"""What TeX's `\\boxed` holds: how many models mark their answer, and many sets their solutions."""

from __future__ import annotations

import re

_OPEN = re.compile(r"\\boxed\s*\{")
_BARE = re.compile(r"\\boxed\s*([^\s{}.,;:]+)")


def last_boxed(text: str) -> str | None:
    """What the last `\\boxed{...}` holds, braces within it included; of one that does not close, all that follows. Without any,
    the word behind the last `\\boxed`, which TeX would box; None without that."""
    opened = [one.end() for one in _OPEN.finditer(text)]
    if not opened:
        bare = _BARE.findall(text)
        return bare[-1] if bare else None
    depth = 1
    for place in range(opened[-1], len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[opened[-1] : place].strip()
    return text[opened[-1] :].strip()
