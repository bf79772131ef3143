"""Files that a project gets on a node, made in memory out of merged variables."""

import json

import yaml

from reconciler.secrets import dotenv
from reconciler.secrets.merge import Merged
from reconciler.secrets.template import render_template
from reconciler.secrets.values import Plain
from reconciler.spec.model import RenderedFile

DEFAULT_FORMAT = "dotenv"


def render(file: RenderedFile, merged: Merged, template: str = "") -> bytes:
    """The file's content, UTF-8, the same bytes for the same variables: names in order.

    `template` is the text of the one that the file names. Raises VariableUnusable for a value that the
    format cannot carry, TemplateInvalid for a template that cannot be rendered.
    """
    if file.template is not None:
        return render_template(file.template, template, merged.plain()).encode()
    variables = Plain(sorted(merged.plain().items()))
    match file.format or DEFAULT_FORMAT:
        case "dotenv":
            text = dotenv.render(variables)
        case "json":
            text = json.dumps(variables, ensure_ascii=False, indent=2) + "\n"
        case "yaml":
            # Every text in double quotes: `no`, `012` and `1e3` are text for readers of any YAML version.
            text = yaml.safe_dump(
                dict(variables), default_style='"', allow_unicode=True, width=2**31, sort_keys=False
            )
    return text.encode()
