"""What SFT and RL share: configuration, models, checkpoints, and the agent that looks at them while they train."""

import os

# oneDNN keeps code for each shape of each operation that a CPU has met, by default a thousand times; conversations are of
# so many lengths that most are never met again, and the code took half a gigabyte. Read when the first one is made.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
