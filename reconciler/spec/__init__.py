"""The spec: YAML bytes in, a frozen model or a list of located problems out."""
