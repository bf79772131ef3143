"""The reconciler: reads the spec from git, plans the difference, applies it, writes back what happened."""
