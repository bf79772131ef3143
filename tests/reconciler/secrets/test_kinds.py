"""The kinds of sources: what the schema offers, the model holds and the registry builds are the same."""

from typing import get_args

from reconciler.secrets.kinds import REGISTRY
from reconciler.spec.model import SourceSettings
from reconciler.spec.schema import definition


def test_every_kind_is_in_schema_model_and_registry() -> None:
    in_schema = {kind["properties"]["kind"]["const"]: kind for kind in definition("secret_source")["oneOf"]}
    in_model = {str(each.__struct_config__.tag): each for each in get_args(SourceSettings)}
    assert set(REGISTRY) == set(in_schema) == set(in_model)
    common = {
        *("kind", "enabled", "environments", "cache_ttl", "refresh_interval", "max_stale", "fallback"),
    }
    for name, settings in in_model.items():
        assert set(in_schema[name]["properties"]) - common == set(settings.__struct_fields__), name
