"""The page: what runs, what waits and why, for people with a browser."""
