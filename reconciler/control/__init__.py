"""Operators' decisions: recorded in git, over the spec, and acted on by every pass."""
