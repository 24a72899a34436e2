"""How a training command ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORKER = """
import time
from cof_agent.training.command import explained

def main():
    print("training", flush=True)
    time.sleep(600)

explained("test", main)
"""
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_a_process_ends_with_a_launcher_that_is_killed() -> None:
    launched = os.environ | {"TORCHELASTIC_RUN_ID": "one"}  # as torchrun and accelerate launch set it
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, WORKER], stdout=subprocess.PIPE, env=launched) as launcher:
        assert launcher.stdout is not None and launcher.stdout.readline() == b"training\n"
        launcher.kill()
        # Both hold the pipe: it ends once both have.
        assert launcher.communicate(timeout=60)[0] == b""
