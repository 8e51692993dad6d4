"""`python -m gnc`: the command."""

import sys

from gnc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
