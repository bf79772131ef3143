"""The primary's side of block sync: the agents' listener, tasks, and serving an index and blocks."""
