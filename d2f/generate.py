"""``python -m d2f generate``: the older name of ``d2f generate``. Imported by nothing."""

import sys

from d2f.cli.generate import main

if __name__ == "__main__":
    sys.exit(main())
