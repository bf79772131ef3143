"""Secret sources, their values and how several are merged into one environment."""
