"""``python -m totoms``: the ``totoms`` command."""

import sys

from totoms.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
