"""`python3 -m tests.older_agents COMMIT`: keep the agent of a commit of this repository as a wheel."""

import sys

from tests.older_agents import make

print(*(make(commit) for commit in sys.argv[1:]), sep="\n")
