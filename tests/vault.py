"""The secret source `vault` for a spec, which is the Infisical double, and the variables that it asks for."""

from tests.contracts.infisical_double import InfisicalDouble


def vault(double: InfisicalDouble, **more: str) -> str:
    """What stands below `secret_sources`; `more` are further lines of the source, such as `cache_ttl`."""
    source = {
        "kind": "infisical",
        "host": f'"{double.url}"',
        "project_id": double.project,
        "environment_slug": "staging",
        "client_id": "{env: INFISICAL_CLIENT_ID}",
        "client_secret": "{env: INFISICAL_CLIENT_SECRET}",
        **more,
    }
    return "\n".join(["  vault:", *(f"    {key}: {value}" for key, value in source.items())])


def vault_environment(double: InfisicalDouble) -> dict[str, str]:
    return {"INFISICAL_CLIENT_ID": double.client_id, "INFISICAL_CLIENT_SECRET": double.client_secret}
