"""``python -m kakeya_conformance TARGET``."""

import sys

from kakeya_conformance.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
