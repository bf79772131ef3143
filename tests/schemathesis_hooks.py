"""For the process of schemathesis: its token, and each request seems to come from another client.

It tries many wrong tokens, and wrong tokens of one address are slowed down.
"""

import os
from itertools import count
from typing import Any

import schemathesis

_numbers = count()


@schemathesis.auth()
class Bearer:
    def get(self, case: Any, context: Any) -> str:
        return os.environ["API_TEST_TOKEN"]

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    number = next(_numbers) % 2**16
    case.headers["X-Forwarded-For"] = f"10.1.{number // 256}.{number % 256}"
