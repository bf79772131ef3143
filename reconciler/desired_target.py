"""The desired state of a secret target: names in another system, and their values there. Pure."""

from dataclasses import replace

from reconciler.desired_model import DesiredTarget, Facts
from reconciler.hashing import Inputs, config_hash, digest, fingerprint
from reconciler.observation import Setback
from reconciler.spec.model import GithubActionsSettings, SecretSource, SecretTarget, Spec
from reconciler.status.conditions import Reason


def target_environment(source: SecretSource) -> str:
    """The environment for which a target takes from a source.

    A target belongs to none of ours. Naming a source under `from` lets it take what that source may give,
    so a source that is bound to environments is asked for its first one.
    """
    return source.environments[0] if source.environments else ""


def pushed_from(spec: Spec, target: SecretTarget) -> SecretSource | None:
    """The source whose values a target gets; None where the source's own system has to export them."""
    source = spec.secret_sources[target.source]
    return None if isinstance(source.settings, GithubActionsSettings) else source


def desired_target(facts: Facts, target: SecretTarget) -> DesiredTarget:
    resource = DesiredTarget(id=f"targets/{target.name}", target=target)
    source = pushed_from(facts.spec, target)
    if source is None:
        return _exported(facts, resource)
    values = facts.secrets[source.name, target_environment(source)]
    if isinstance(values, Setback):
        return replace(resource, setback=values)
    missing = sorted(key.key for key in target.keys if key.key not in values)
    if missing:
        message = f"secret source {source.name} has no key {', '.join(missing)}; add it, or correct `keys`"
        return replace(resource, setback=Setback(Reason.SECRET_NOT_FOUND, message))
    chosen = {key.name: values[key.key] for key in target.keys}
    keyed = {
        name: value.value.fingerprint(facts.hash_key, resource.id, name) for name, value in chosen.items()
    }
    inputs = Inputs(_public(target), keyed)
    return replace(
        resource,
        values=chosen,
        inputs=inputs,
        hash=config_hash(inputs, facts.key_id),
        soft_inputs=frozenset(name for name, value in chosen.items() if not value.may_cause_change),
        degraded=(source.name, target_environment(source)) in facts.degraded,
    )


def _exported(facts: Facts, resource: DesiredTarget) -> DesiredTarget:
    """Of values that nobody can read, the keyed inputs say which secret of which repository they are."""
    target = resource.target
    source = facts.spec.secret_sources[target.source]
    origin = source.settings
    assert isinstance(origin, GithubActionsSettings)
    if not source.enabled:
        message = f"secret source {source.name} is not enabled, so nothing is exported from it"
        return replace(resource, setback=Setback(Reason.SUSPENDED, message, blocks=False))
    keyed = {
        key.name: fingerprint(
            facts.hash_key,
            target=resource.id,
            name=key.name,
            value=f"{origin.repo}/{key.key}".upper(),
        )
        for key in target.keys
    }
    inputs = Inputs(_public(target), keyed)
    return replace(resource, origin=origin, inputs=inputs, hash=config_hash(inputs, facts.key_id))


def _public(target: SecretTarget) -> dict[str, str]:
    """Where the secrets are, who may use them there, and what they are called."""
    inputs = {
        "place": digest([target.kind, *place_of(target)]),
        "names": digest(sorted(key.name for key in target.keys)),
    }
    if target.org is not None:
        inputs["access"] = digest([target.visibility, sorted(target.selected_repositories)])
    return inputs


def place_of(target: SecretTarget) -> tuple[str, str]:
    """The repository or organisation, and the environment there; GitHub does not tell case apart."""
    return (target.repo or target.org or "").lower(), (target.environment or "").lower()
