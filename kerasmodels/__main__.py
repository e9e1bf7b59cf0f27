"""`python -m kerasmodels` is the same program as `kerasmodels`."""

import sys

from kerasmodels.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
