"""`python -m drivetrain` is `drivetrain`."""

import sys

from drivetrain.cli import main

sys.exit(main())
