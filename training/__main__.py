"""``python -m nnpm.training``."""

import sys

from .cli import main

if __name__ == "__main__":  # workers of a process pool import this too
    sys.exit(main())
