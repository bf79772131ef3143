"""Editing a person's spec file without disturbing it: comments, order and layout stay. Pure."""

import json
from collections.abc import Mapping

import yaml

from reconciler.errors import SettingsError


def node_entry(token_key: str, labels: Mapping[str, str]) -> str:
    """The value of a node in the spec, on one line."""
    parts = []
    if labels:
        parts.append(
            "labels: {" + ", ".join(f"{key}: {_scalar(labels[key])}" for key in sorted(labels)) + "}"
        )
    parts.append(f"token_key: {_scalar(token_key)}")
    return "{" + ", ".join(parts) + "}"


def insert_node(text: str, node: str, entry: str) -> str:
    """`text` with a node put first into its `nodes` section; raises SettingsError if it has that node."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise SettingsError("the spec is not a mapping", hint="see `trueup validate`")
    line = f"{node}: {entry}"
    for key, value in root.value:
        if key.value != "nodes":
            continue
        if isinstance(value, yaml.MappingNode):
            if any(existing.value == node for existing, _ in value.value):
                raise SettingsError(
                    f"the spec has a node {node} already",
                    hint="choose another name, or give it a new token with `trueup node rotate-token`",
                )
            return _into_mapping(text, value, line)
        # `nodes:` with nothing behind it
        end = value.start_mark.index
        return f"{text[:end].rstrip(' ')}\n  {line}{_rest(text[value.end_mark.index :])}"
    return f"{text.rstrip()}\n\nnodes:\n  {line}\n"


def replace_token(text: str, node: str, token_key: str) -> str:
    """`text` with another `token_key` for a node; raises SettingsError if the node is not in this file."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    value = _child(_child(_child(root, "nodes"), node), "token_key")
    if not isinstance(value, yaml.ScalarNode):
        raise SettingsError(
            f"the spec's root file has no node {node} with a token_key",
            hint=f"where it stands in another file, put this there: token_key: {_scalar(token_key)}",
        )
    return f"{text[: value.start_mark.index]}{_scalar(token_key)}{text[value.end_mark.index :]}"


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _into_mapping(text: str, mapping: yaml.MappingNode, line: str) -> str:
    start, end = mapping.start_mark, mapping.end_mark
    if not mapping.flow_style:
        begin = start.index - start.column
        return f"{text[:begin]}{' ' * start.column}{line}\n{text[begin:]}"
    if not mapping.value:
        return f"{text[: start.index].rstrip(' ')}\n  {line}{text[end.index :]}"
    return f"{text[: start.index + 1]}{line}, {text[start.index + 1 :]}"


def _rest(text: str) -> str:
    return text if text.startswith("\n") or not text else f"\n{text}"


def _scalar(value: str) -> str:
    """A double-quoted YAML scalar; JSON's strings are a part of YAML's."""
    return json.dumps(value, ensure_ascii=False)
