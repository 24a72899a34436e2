"""How a training command speaks: warnings on lines of their own, and one sentence when it is given something wrong or
interrupted."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cof_agent.backends.secrets import log_handler
from cof_agent.errors import InputError
from cof_agent.output.escape import for_terminal

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_FROM_WORKER = f"{InputError.__module__}.{InputError.__qualname__}: "
"""Behind it stands the sentence of an error that comes from a data worker, with the traceback of that before it."""


def explained(name: str, main: Callable[[], None]) -> None:
    """Runs `main`. Warnings are written above the progress bars. What is wrong with its input is said once on each machine,
    below the bars; exit code 2. One of several processes ends with its launcher."""
    _end_with_launcher()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # of its own deprecated names
    if not logging.getLogger().handlers:  # `cof` has one
        logging.getLogger().addHandler(log_handler())
    try:
        with logging_redirect_tqdm():
            main()
    except InputError as error:
        _end(f"{name}: {str(error).rpartition(_FROM_WORKER)[2].rstrip()}", 2)
    except OSError as error:
        if error.filename is None:
            raise  # of no file: a connection, say
        _end(f"{name}: {error.filename}: {error.strerror}.", 2)
    except KeyboardInterrupt:
        _end(f"{name}: interrupted; the same command goes on from the last whole checkpoint.", 130)


def _end_with_launcher() -> None:
    """A launcher that is killed with SIGKILL ends none of its processes: they would train on, beside those of the next start."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(sentence: str, code: int) -> None:
    for bar in list(tqdm._instances):
        bar.close()  # now, rather than below the sentence
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"\n{for_terminal(sentence)}", file=sys.stderr)
    sys.exit(code)
