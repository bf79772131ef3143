"""The values of a header as they came, each of them: what a proxy or an attacker sent twice is seen twice."""

from starlette.requests import Request


def values_of(request: Request, name: str) -> list[bytes]:
    """`name` in lower case. A value may hold any byte."""
    return [value for key, value in request.headers.raw if key.lower() == name.encode()]
