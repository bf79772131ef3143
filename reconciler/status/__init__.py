"""Conditions, status files and the branch that holds them."""
