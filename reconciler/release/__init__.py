"""Which tag a unit runs in an environment."""
