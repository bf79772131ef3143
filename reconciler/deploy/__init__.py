"""Drivers that bring a service to its desired state."""
