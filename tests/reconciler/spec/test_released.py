"""The spec of a release on the tip's nodes and credentials, and one spec of several revisions."""

import pytest

from reconciler.recording import moved
from reconciler.spec.load import SPEC_FILE, Loaded
from reconciler.spec.mixed import Mixed, with_released
from reconciler.spec.released import load_released
from tests.reconciler.spec.documents import BASE, TOKENS, loaded

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEB = """\
shared_paths: {app: [libs/**]}
services:
  web:
    repository: app
    secrets: [local]
    deploy: {kind: manual}
    environments: [staging, production]
"""
SITE = """\
projects:
  site:
    repository: app
    environment: production
    sync: {nodes: [{labels: {group: web}, target_path: /srv/site}]}
"""
UNITS = BASE.replace("url: git@host:org/app.git}", "url: git@host:org/app.git, units: {a: {}, b: {}}}")


def composite(head: str, released: str, **included: str) -> Loaded:
    files = {f"{name}.yaml": content.encode() for name, content in included.items()}
    return load_released({SPEC_FILE: head.encode()}, {SPEC_FILE: released.encode(), **files}, COMMIT)


def service(name: str, *more: str, unit: str = "", where: str = "staging, production") -> str:
    named = [f"unit: {unit}"] if unit else []
    body = "".join(f"    {line}\n" for line in (*named, *more, f"environments: [{where}]"))
    return f"  {name}:\n    repository: app\n    deploy: {{kind: manual}}\n{body}"


def mixed(head: str, **released: str) -> Mixed:
    """Of a spec with the units `a` and `b`: `a="services..."` is what a's release in production has."""
    return with_released(
        loaded(UNITS + head),
        {(f"app/{unit}", "production"): composite(UNITS + head, UNITS + it) for unit, it in released.items()},
    )


def ids(spec: Mixed) -> dict[str, str]:
    return {each.id.removeprefix("services/"): each.unit for each in spec.spec.services}


# --- one revision on the tip -------------------------------------------------------------------


def test_services_projects_and_shared_paths_are_the_releases_and_all_else_is_the_tips() -> None:
    more = f'  web-3: {{labels: {{group: web}}, token_key: "{TOKENS[2]}"}}\n'
    head = BASE + more + WEB.replace("libs/**", "new/**").replace("[local]", "[prod]")
    result = composite(head.replace("app.git", "moved.git"), BASE + WEB + SITE)
    assert result.problems == ()
    assert result.spec is not None
    assert [(each.secrets[0].source, each.shared_paths) for each in result.spec.services] == [
        ("local", ("libs/**",)),
        ("local", ("libs/**",)),
    ]
    assert [each.node for each in result.spec.projects["site"].sync.targets] == ["web-1", "web-2", "web-3"]
    assert result.spec.repositories["app"].url.endswith("moved.git")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (
            "  local: {kind: env_file, file: .env}\n",
            "0123456789ab:trueup.yaml:15:15: services.web.secrets[0]: there is no secret source `local` any "
            "more; the spec at 0123456789ab, which a release runs with, needs it",
        ),
        (
            "repositories: {app: {url: git@host:org/app.git}}\n",
            "0123456789ab:trueup.yaml:14:17: services.web.repository: there is no repository `app` any more; "
            "the spec at 0123456789ab, which a release runs with, needs it",
        ),
    ],
)
def test_what_the_tip_no_longer_has_is_told_where_the_release_needs_it(gone: str, message: str) -> None:
    result = composite(BASE.replace(gone, ""), BASE + WEB)
    assert [str(each) for each in result.problems] == [message]
    assert result.is_frozen("services/production/web")
    assert result.spec is not None
    assert result.spec.services == ()


def test_a_problem_in_an_included_file_of_the_release_names_it() -> None:
    released = BASE.replace("version: 1", "version: 1\ninclude: [more.yaml]")
    result = composite(BASE, released, more="services:\n  web: {}\n")
    assert {each.file for each in result.problems} == {"0123456789ab:more.yaml"}
    broken = composite(BASE, released, more="services: [")
    assert broken.spec is None
    assert [each.file for each in broken.problems] == ["0123456789ab:more.yaml"]
    assert composite(BASE, "services: [").problems[0].file == "0123456789ab:trueup.yaml"


def test_what_is_wrong_with_the_other_sections_of_the_released_revision_does_not_matter() -> None:
    released = BASE.replace("kind: env_file, file: .env", "kind: nonsense") + "limits: 3\nmoved: 5\n" + WEB
    assert composite(BASE, released).problems == ()


def test_what_is_wrong_with_the_tips_services_does_not_matter() -> None:
    head = BASE + "services:\n  web: {}\n  web: {}\n"
    result = composite(head, BASE + WEB)
    assert result.problems == ()
    assert result.spec is not None
    assert len(result.spec.services) == 2


def test_a_move_at_the_tip_does_not_break_a_release_that_has_the_old_name() -> None:
    head = BASE + WEB.replace("  web:", "  site:") + "moved: [{from: services/web, to: services/site}]\n"
    assert loaded(head).problems == ()
    assert composite(head, BASE + WEB).problems == ()


def test_environments_that_are_gone_take_what_ran_there_along() -> None:
    extra = BASE.replace("staging: {}", "staging: {}, qa: {}")
    services = WEB.replace("[staging, production]", "[qa, production]")
    mapped = service("api").replace("[staging, production]", "{qa: {env: {A: b}}, staging: {}}")
    only = service("old", where="qa")
    project = SITE.replace("environment: production", "environment: qa")
    result = composite(BASE, extra + services + mapped + only + project)
    assert result.problems == ()
    assert result.spec is not None
    assert [each.id for each in result.spec.services] == ["services/production/web", "services/staging/api"]
    assert result.spec.projects == {}


# --- several revisions -------------------------------------------------------------------------


def test_without_releases_it_is_the_tips_spec() -> None:
    head = loaded(BASE + WEB)
    result = with_released(head, {})
    assert result.spec is head.spec
    assert not result.is_frozen("services/production/gone")


def test_each_unit_comes_from_its_own_release() -> None:
    head = "services:\n" + service("web", "env: {V: new}", unit="a") + service("api", unit="b")
    result = mixed(head + service("more", unit="a"), a="services:\n" + service("web", unit="a"))
    assert ids(result) == {
        "production/api": "app/b",
        "production/web": "app/a",
        "staging/api": "app/b",
        "staging/more": "app/a",
        "staging/web": "app/a",
    }
    values = {each.id: each.env for each in result.spec.services}
    assert values["services/production/web"] == {}
    assert values["services/staging/web"] == {"V": "new"}
    before = loaded(UNITS + head).spec
    assert before is not None
    assert result.spec.hash not in ("", before.hash)
    assert not result.is_frozen("services/production/more")


def test_what_the_release_no_longer_has_is_gone() -> None:
    head = "services:\n" + service("web", unit="a")
    result = mixed(head, a="")
    assert ids(result) == {"staging/web": "app/a"}
    assert not result.is_frozen("services/production/web")


def test_what_the_tip_no_longer_has_stays_until_it_is_released() -> None:
    result = mixed("", a="services:\n" + service("web", unit="a"))
    assert ids(result) == {"production/web": "app/a"}


A = "services:\n" + service("web", unit="a")
B = "services:\n" + service("web", unit="b")


def test_a_service_that_goes_to_another_unit_is_there_once() -> None:
    assert ids(mixed(B, a=A)) == {"production/web": "app/a", "staging/web": "app/b"}
    assert ids(mixed(B, b=B)) == {"production/web": "app/b", "staging/web": "app/b"}
    # Both releases have it as their own: the tip decides.
    assert ids(mixed(B, a=A, b=B)) == {"production/web": "app/b", "staging/web": "app/b"}
    assert ids(mixed(A, a=A, b=B)) == {"production/web": "app/a", "staging/web": "app/a"}
    assert ids(mixed("", a=A, b=B)) == {"production/web": "app/a"}


@pytest.mark.parametrize("head", [A, B, ""])
def test_a_service_that_one_unit_gave_away_and_the_other_has_not_got_yet_stays_as_it_is(head: str) -> None:
    result = mixed(head, a=B, b=A)
    assert "production/web" not in ids(result)
    assert result.is_frozen("services/production/web")
    assert "one unit to another" in result.frozen["services/production/web"]


def test_a_service_that_its_unit_removed_is_gone_although_another_units_release_knows_it() -> None:
    result = mixed("", a="", b=A)
    assert ids(result) == {}
    assert not result.is_frozen("services/production/web")


def test_a_service_that_went_to_a_unit_without_a_release_is_the_tips() -> None:
    assert ids(mixed(B, a=B)) == {"production/web": "app/b", "staging/web": "app/b"}


def test_what_is_broken_in_a_release_stays_in_its_environment_only() -> None:
    head = "services:\n" + service("web", unit="a")
    result = mixed(head, a="services:\n" + service("web", "secrets: [gone]", unit="a"))
    assert ids(result) == {"staging/web": "app/a"}
    assert result.is_frozen("services/production/web")
    assert not result.is_frozen("services/staging/web")
    assert [each.file for each in result.problems] == ["0123456789ab:trueup.yaml"]


def test_a_release_whose_spec_cannot_be_read_keeps_all_of_its_environment() -> None:
    result = with_released(
        loaded(BASE + WEB), {("app", "production"): composite(BASE + WEB, BASE + "services: 5\n")}
    )
    assert ids(result) == {"staging/web": "app"}
    assert result.is_frozen("services/production/web")
    assert result.is_frozen("projects/production/site/web-1/srv+site")
    assert not result.is_frozen("services/staging/other")


def test_problems_of_the_tip_are_not_told_again() -> None:
    head = BASE.replace("file: prod.env,", "") + WEB
    result = with_released(loaded(head), {("app", "production"): composite(head, BASE + WEB)})
    assert loaded(head).problems
    assert result.problems == ()


def test_a_project_that_changes_its_environment_is_in_both_until_it_is_released() -> None:
    moved = SITE.replace("environment: production", "environment: staging")
    head = BASE + moved.replace("/srv/site", "/srv/staging")
    result = with_released(loaded(head), {("app", "production"): composite(head, BASE + SITE)})
    assert {key: each.sync.targets[0].target_path for key, each in result.spec.projects.items()} == {
        "production/site": "/srv/site",
        "staging/site": "/srv/staging",
    }
    both = with_released(
        loaded(head),
        {(("app"), env): composite(head, head) for env in ("production", "staging")},
    )
    assert set(both.spec.projects) == {"site"}


def test_of_two_that_share_a_directory_the_released_one_stays() -> None:
    head = BASE + SITE.replace("environment: production", "environment: staging")
    result = with_released(loaded(head), {("app", "production"): composite(head, BASE + SITE)})
    assert [each.environment for each in result.spec.projects.values()] == ["production"]
    assert result.is_frozen("projects/staging/site/web-1/srv+site")
    assert not result.is_frozen("projects/production/other/web-1/srv+other")


def test_of_two_that_share_a_compose_project_the_released_one_stays() -> None:
    def text(where: str) -> str:
        return (
            BASE
            + "services:\n"
            + service("web", where=where).replace("kind: manual", "kind: compose, project_name: x")
        )

    result = with_released(
        loaded(text("staging")), {("app", "production"): composite(text("staging"), text("production"))}
    )
    assert ids(result) == {"production/web": "app"}
    assert result.is_frozen("services/staging/web")


def test_services_of_different_revisions_that_wait_for_each_other_stay_as_they_are() -> None:
    plain_a, plain_b = service("web", unit="a"), service("api", unit="b")
    first = "services:\n" + service("web", "depends_on: [api]", unit="a") + plain_b
    second = "services:\n" + plain_a + service("api", "depends_on: [web]", unit="b")
    result = mixed(second, a=first, b=second)
    assert ids(result) == {"staging/api": "app/b", "staging/web": "app/a"}
    assert result.is_frozen("services/production/api")
    assert result.is_frozen("services/production/web")


def test_projects_of_branches_and_nodes_are_the_tips() -> None:
    follows = SITE.replace("environment: production", "branch: main")
    result = with_released(
        loaded(BASE + follows), {("app", "production"): composite(BASE + follows, BASE + WEB)}
    )
    assert set(result.spec.projects) == {"site"}
    assert not result.is_frozen("nodes/web-9")
    assert not result.is_frozen("projects/branch/gone/web-1/x")


def test_a_service_is_renamed_in_an_environment_once_that_is_released() -> None:
    head = BASE + WEB.replace("  web:", "  site:") + "moved: [{from: services/web, to: services/site}]\n"

    def renamed(released: str, resource: str) -> str:
        result = with_released(loaded(head), {("app", "production"): composite(head, released)})
        return moved(resource, result.spec.moved)

    assert renamed(BASE + WEB, "services/production/web") == "services/production/web"
    assert renamed(BASE + WEB, "services/staging/web") == "services/staging/site"
    assert renamed(BASE + "services: 5\n", "services/production/web") == "services/production/web"
    assert renamed(head, "services/production/web") == "services/production/site"
