"""``python -m d2f models``: the older name of ``d2f models``. Imported by nothing."""

import sys

from d2f.cli.models import main

if __name__ == "__main__":
    sys.exit(main())
