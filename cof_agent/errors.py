"""The one exception a user's mistake raises; the command line prints it as one sentence and exits with 2."""


class InputError(ValueError):
    """Bad input: what was wrong, where, and what to do, in one sentence that a person reads."""
