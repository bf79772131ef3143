"""A file on a node out of a Jinja template and merged variables. Pure.

What templates may do is in `template_language`, which imports Jinja and so is imported where it is used.
"""

import difflib
from collections.abc import Mapping

from reconciler.secrets.errors import TemplateInvalid

MAX_TEMPLATE = 64 * 1024
"""Bytes of a template in the repository."""

MAX_NEAR_NAMES = 3


def decode_template(path: str, content: bytes) -> str:
    """The text of a template's file. Raises TemplateInvalid."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
    raise TemplateInvalid(f"{path}:{line}: this is not UTF-8", hint="save the file as UTF-8")


def render_template(path: str, source: str, variables: Mapping[str, str]) -> str:
    """The template's text with the variables as top-level names. Raises TemplateInvalid.

    An exception of Jinja or Python may hold values in its text, its frames or its causes. It ends in
    `attempt`, which gives back what may be shown; the error is made here, out of that alone.
    """
    from reconciler.secrets.template_language import Flaw, attempt

    outcome = attempt(source, variables)
    if not isinstance(outcome, Flaw):
        return outcome
    hint = outcome.remedy
    if outcome.undefined:
        hint = "add it to `secrets` or `env` of this file, or write `|default('…')` behind it"
        near = difflib.get_close_matches(outcome.undefined, variables, MAX_NEAR_NAMES)
        hint = f"names near it: {', '.join(near)}; {hint}" if near else hint
    raise TemplateInvalid(f"{path}:{outcome.line}: {outcome.what}", hint=hint)
