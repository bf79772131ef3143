# ruff: noqa: E501 - tables of documents and messages
"""What can be wrong with services and projects, one line each: its place, what is wrong and what to do."""

import pytest

from tests.reconciler.spec.documents import BASE, OK, added, check_freezes_alone, loaded

WEB = "services:\n  web: "
PROJECT = "projects:\n  site: "

RESOURCES = [
    # services
    (
        WEB + "{repository: app}",
        ":12:3: services.web: `environments` is missing; it is needed here (Where it runs",
    ),
    (
        WEB + "{repository: app, environments: [staging]}",
        "`deploy` is missing in environment staging; say how it is",
    ),
    (
        WEB + "{repository: ap, deploy: {kind: manual}, environments: [staging]}",
        ":12:21: services.web.repository: there is no repository `ap`",
    ),
    (
        WEB + "{repository: app, deploy: {kind: manual}, environments: [stage]}",
        "environments[0]: there is no environment",
    ),
    (
        WEB + "{repository: app, deploy: {kind: manual}, environments: []}",
        "environments: has 0 entries; at least 1 must",
    ),
    (
        WEB + "{repository: app, deploy: {kind: manual}, environments: staging}",
        "is a text, and must be a list or a map",
    ),
    (
        WEB + "{repository: app, deploy: {kind: manual}, environments: [staging, staging]}",
        "`staging` stands here twice",
    ),
    (
        WEB + "{repository: app, deploy: {kind: invoke}, environments: [staging]}",
        "services.web.deploy: `task` is missing",
    ),
    (
        WEB + "{repository: app, deploy: invoke, environments: [staging]}",
        "services.web.deploy: is a text, and must be a map",
    ),
    (WEB + f"{{{OK}, depend_on: []}}", "unknown key `depend_on`; did you mean `depends_on`?"),
    (WEB + f"{{{OK}, task: x}}", "services.web.task: unknown key `task`"),
    (
        WEB + f"{{{OK}, secrets: [lcal]}}",
        "services.web.secrets[0]: there is no secret source `lcal`; did you mean `local`?",
    ),
    (
        WEB + f"{{{OK}, secrets: [prod]}}",
        "secrets[0]: `prod` may not serve staging, only production; take another",
    ),
    (WEB + f"{{{OK}, secrets: [export]}}", "`export` is of kind github_actions, whose values cannot be read"),
    (WEB + f"{{{OK}, secrets: local}}", ":12:84: services.web.secrets: is a text, and must be a list"),
    (
        WEB + f"{{{OK}, secrets: [{{source: local, keys: [db-url]}}]}}",
        "keys[0]: `db-url`: a secret is handed on under a name",
    ),
    (
        WEB + f"{{{OK}, secrets: [{{source: local, keys: [A], rename: {{B: C}}}}]}}",
        "rename.B: `B` is not one of `keys`",
    ),
    (WEB + f"{{{OK}, secrets: [{{keys: [A]}}]}}", "services.web.secrets[0]: `source` is missing"),
    (WEB + f"{{{OK}, env: {{A: [1]}}}}", "env.A: is a list, and must be a text or a number or true or false"),
    (
        WEB + f"{{{OK}, env: {{A: }}}}",
        "services.web.env.A: is empty, and must be a text or a number or true or false",
    ),
    (WEB + f"{{{OK}, env: {{1A: x}}}}", "env.1A: `1A` will not do; a variable's name has letters"),
    (WEB + f"{{{OK}, precedence: [env, vault]}}", "precedence[1]: `vault` is not one of the choices"),
    (WEB + f"{{{OK}, health: {{}}}}", "services.web.health: has 0 entries; at least 1 must be given"),
    (WEB + f"{{{OK}, health: {{timeout: 1s}}}}", "health: name exactly one of `http`, `tcp` and `command`"),
    (WEB + f"{{{OK}, health: {{tcp: db}}}}", "health.tcp: `db` will not do; write host:port"),
    (
        WEB + f"{{{OK}, health: {{http: 'https://x', timeout: 0s}}}}",
        "timeout: `0s` will not do; a duration above zero",
    ),
    (WEB + f"{{{OK}, depends_on: [wep]}}", "depends_on[0]: there is no service `wep`; did you mean `web`?"),
    (
        WEB + f"{{{OK}, depends_on: [web]}}",
        "the dependencies go in a circle in staging: web -> web; remove one of them",
    ),
    (WEB + f"{{{OK}, depends_on: [project/site]}}", "there is no project `site`; add it under `projects`"),
    (WEB + f"{{{OK}, unit: x}}", "services.web.unit: there is no unit `x`; repository `app` has no units"),
    (
        WEB + "{repository: app, deploy: {kind: agent, project: p, command: c}, environments: [staging]}",
        "there is no project `p`",
    ),
    (
        WEB
        + "{repository: app, deploy: {kind: agent, project: p, command: rm -rf x}, environments: [staging]}",
        "`rm -rf x` will not do; name a command",
    ),
    (
        WEB + "{repository: app, deploy: {kind: manual}, environments: {staging: {dploy: {}}}}",
        "environments.staging.dploy: unknown key",
    ),
    (
        WEB + "{repository: app, deploy: {kind: compose}, environments: {staging: {deploy: {kind: invoke}}}}",
        "services.web.environments.staging.deploy: `task` is missing",
    ),
    (
        WEB + "{repository: app, deploy: {kind: compose}, environments: {staging: {deploy: {task: x}}}}",
        "services.web.environments.staging.deploy.task: unknown key `task`",
    ),
    (
        WEB
        + "{repository: app, deploy: {kind: compose, project_name: p}, environments: [staging, production]}",
        "services/production/web and services/staging/web have the same compose project `p`; give one of them",
    ),
    (
        WEB
        + "{repository: app, deploy: {kind: dokploy, server: 'https://D.example/api', compose_id: x, "
        + "api_key: {env: K}}, environments: {staging: {deploy: {server: 'https://d.example'}}, production: {}}}",
        "services/production/web and services/staging/web have the same application in Dokploy `d.example x`; "
        "give one of them another `deploy.compose_id`",
    ),
    # projects
    (PROJECT + "{repository: app, branch: main}", "projects.site: `sync` is missing"),
    (PROJECT + "{sync: {}}", "projects.site: name exactly one of `repository` and `source`"),
    (
        PROJECT + "{repository: app, sync: {}}",
        "name exactly one of `environment` (its release there) and `branch`",
    ),
    (
        PROJECT + "{repository: app, branch: main, environment: staging, sync: {}}",
        "name exactly one of `environment`",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {}, files: []}",
        "unknown key `files`; it belongs under `sync`",
    ),
    (
        PROJECT + "{source: {directory: build}, sync: {}}",
        "`build` will not do; a source directory is an absolute path",
    ),
    (
        PROJECT + "{source: {directory: /b}, branch: x, sync: {}}",
        "projects.site.branch: needs a `repository`",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {owners: names}}",
        "projects.site.sync.owners: needs a `source` directory",
    ),
    (
        PROJECT + "{repository: app, branch: main, path: ../x, sync: {}}",
        "path: `../x` will not do; a directory inside",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {}, depends_on: [web]}",
        "cannot wait for a service; name a project",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {bandwidth: 50}}",
        "is a whole number, and must be a text; a rate is",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {bandwidth: 5Mb/s}}",
        "`5Mb/s` will not do; a rate is a size a second",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {bandwidth: 15.9KiB/s}}",
        "projects.site.sync.bandwidth: is less than 16KiB/s",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {strategy: miror}}",
        "`miror` is not one of the choices; did you mean",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {retry: {backoff: 1h}}}",
        "`backoff` is longer than `max_backoff`",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {strategy: overlay, delete_foreign: true}}",
        "`overlay` deletes nothing",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {after: [systemctl restart x]}}",
        "name a command of the node's",
    ),
]


@pytest.mark.parametrize(("part", "expected"), RESOURCES, ids=[each[1][:60] for each in RESOURCES])
def test_a_problem_of_a_resource_freezes_it_alone(part: str, expected: str) -> None:
    check_freezes_alone(part, expected)


@pytest.mark.parametrize("strategy", ["mirror", "release"])
def test_what_others_put_there_may_go_from_a_mirror_and_with_an_old_release(strategy: str) -> None:
    text = f"projects:\n  s: {{repository: app, branch: main, sync: {{strategy: {strategy}, delete_foreign: true}}}}\n"
    assert added(text) == []


def test_circles_are_printed_whole_and_once_for_all_environments() -> None:
    text = "services:\n"
    for name, needs in (("a", "[b]"), ("b", "[c]"), ("c", "[a, d]"), ("d", "[]"), ("e", "[a]")):
        text += (
            f"  {name}: {{repository: app, deploy: {{kind: manual}}, environments: [staging, production], "
        )
        text += f"depends_on: {needs}}}\n"
    result = loaded(BASE + text)
    [problem] = result.problems
    assert problem.message == (
        "the dependencies go in a circle in production, staging: a -> b -> c -> a; remove one of them"
    )
    assert list(result.frozen) == ["services/a", "services/b", "services/c", "services/e"]
    assert result.frozen["services/e"] == "waits for services/a, which has a problem"
    assert result.spec is not None
    assert [each.name for each in result.spec.services] == ["d", "d"]


def test_a_circle_through_a_project_and_a_deploy_by_agent() -> None:
    text = (
        "services:\n  web: {repository: app, environments: [staging], deploy: "
        "{kind: agent, project: site, command: up}}\n"
        "projects:\n  site: {repository: app, environment: staging, depends_on: [web], sync: {}}\n"
    )
    assert added(text) == [
        "projects.site.depends_on: the dependencies go in a circle in staging: project/site -> web -> "
        "project/site; remove one of them"
    ]


def sync(*targets: str) -> str:
    lines = "projects:\n"
    for index, target in enumerate(targets):
        lines += f"  p{index}: {{repository: app, branch: main, sync: {{nodes: [{target}]}}}}\n"
    return lines


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("{node_id: web-1, target_path: /srv/a}", "{node_id: web-2, target_path: /srv/a}"), None),
        (("{node_id: web-1, target_path: /srv/a}", "{node_id: web-1, target_path: /srv/ab}"), None),
        (
            ("{node_id: web-1, target_path: /srv/a}", "{node_id: web-1, target_path: /srv/a}"),
            "`/srv/a` on node `web-1` is the target of project `p0` already",
        ),
        (
            ("{node_id: web-1, target_path: /srv/a/b}", "{labels: {group: web}, target_path: /srv/a}"),
            "`/srv/a/b` on node `web-1` lies in `/srv/a`, the target of project `p1` already",
        ),
        (
            ("{node_id: web-1, target_path: /srv/a}, {node_id: web-1, target_path: /srv/a/b}",),
            "`/srv/a/b` on node `web-1` lies in `/srv/a`, the target of project `p0` already",
        ),
        (
            ("{labels: {group: web}, target_path: /srv}, {labels: {disk: slow}, target_path: /srv}",),
            "`/srv` on node `web-2` is the target of project `p0` already",
        ),
    ],
)
def test_targets_on_one_node_never_touch(targets: tuple[str, ...], expected: str | None) -> None:
    found = added(sync(*targets))
    assert len(found) == (expected is not None)
    assert all(str(expected) in each for each in found)


@pytest.mark.parametrize(
    "path", ["srv/a", "/", "//srv", "/srv/", "/srv//a", "/srv/../a", "/./srv", "/srv/.", "/s\\rv", '"/a\\nb"']
)
def test_a_target_path_is_absolute_and_canonical(path: str) -> None:
    [found] = added(sync(f"{{node_id: web-1, target_path: {path}}}"))
    assert "a target path is absolute and in its shortest form" in found


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("{path: .env}", "name exactly one of `format` and `template`"),
        ("{path: .env, format: dotenv, template: a.j2}", "name exactly one of `format` and `template`"),
        ("{path: /etc/passwd, format: json}", "a path inside its root has no leading"),
        ("{path: a/../../b, format: json}", "a path inside its root has no leading"),
        ("{path: a, template: ../a.j2}", "a path inside its root has no leading"),
        ("{path: a, format: json, mode: 0600}", None),
        ("{path: a, format: json, mode: 600}", "is a whole number, and must be a text; a mode is"),
        ("{path: a, format: json, mode: '4755'}", "`4755` will not do; a mode is a 0 and three octal digits"),
        ("{path: a, format: json}, {path: a, format: yaml}", "`a` is rendered twice; choose another path"),
        (
            "{path: a, format: json}, {path: a/b, format: yaml}",
            "`a/b` is rendered beside `a`, which it lies in",
        ),
        (
            "{path: a, format: json, secrets: [prod]}",
            "`prod` does not serve what has no environment, only production",
        ),
    ],
)
def test_rendered_files(files: str, expected: str | None) -> None:
    found = added(f"projects:\n  p: {{repository: app, branch: main, sync: {{files: [{files}]}}}}\n")
    assert len(found) == (expected is not None)
    assert all(str(expected) in each for each in found)
