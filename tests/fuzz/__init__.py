"""Programs that look for input nobody thought of, for as long as they are told."""
