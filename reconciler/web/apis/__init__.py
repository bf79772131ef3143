"""The API, one module for each subject; each gives its `endpoints`."""
