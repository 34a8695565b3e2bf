"""`python -m stylegan`, as launchers such as torchrun start it."""

import sys

from stylegan.cli.main import main

sys.exit(main())
