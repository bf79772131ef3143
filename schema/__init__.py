"""JSON Schemas of the spec and of the status files, shipped as data."""

from importlib.resources import files


def read_schema(name: str) -> bytes:
    """The bytes of a schema shipped with this package, such as `spec.v1.schema.json`."""
    return files(__name__).joinpath(name).read_bytes()
