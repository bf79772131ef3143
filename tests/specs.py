"""What specs of end-to-end tests begin with: a test goes on from there, and then fills in all by `format`."""

_HEAD = """\
version: 1
repositories:
  app: {{url: "{app}", branch: main}}
"""

STAGING = _HEAD + "environments:\n  staging: {{release: {{from: main, cut: external}}}}\n"
"""One environment, which others may follow."""

ONE_SITE = (
    _HEAD
    + """\
nodes: {{}}
projects:
  site:
    repository: app
    branch: main
    path: site
    sync:
"""
)
"""One project; how it is synced follows."""
