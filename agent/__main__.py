"""`python -m agent` is `trueup-agent`."""

import sys

from agent.cli import main

sys.exit(main())
