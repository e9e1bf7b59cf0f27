"""The command line: one module per verb, each of them parse, call, show."""

if __name__ == "apps":
    raise ImportError("this package is imported as `kerasmodels.apps`, not `apps`")
