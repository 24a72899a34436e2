"""One module a command of `cof`; each has `run(options) -> exit code` and imports what is heavy only when it runs."""
