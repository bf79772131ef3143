# ruff: noqa: E501 - tables of documents and messages
"""Every way to get a spec wrong: one line each, with its place, what is wrong and what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import SpecInvalid
from reconciler.spec.load import SPEC_FILE, load, load_or_raise
from tests.canaries import canary
from tests.reconciler.spec.documents import BASE, TOKENS, loaded, problems

DOCUMENT = [
    ("", "trueup.yaml:1:1: the file is empty; begin with `version: 1`"),
    ("# nothing\n", "trueup.yaml:1:1: the file is empty"),
    ("- a\n", "trueup.yaml:1:1: is a list, and must be a map"),
    ("services: {}\n", "trueup.yaml:1:1: `version` is missing; it is needed here"),
    ("version: 2\n", "trueup.yaml:1:10: version: is `2`, and must be 1"),
    ("version: '1'\n", "trueup.yaml:1:10: version: is a text, and must be a whole number: 1"),
    ("version: true\n", "trueup.yaml:1:10: version: is true or false, and must be a whole number: 1"),
    (
        "version: 1\nservcies: {}\n",
        "trueup.yaml:2:1: servcies: unknown key `servcies`; did you mean `services`?",
    ),
    ("version: 1\nservices: []\n", "trueup.yaml:2:1: services: is a list, and must be a map"),
    ("version: 1\nversion: 1\n", "trueup.yaml:2:1: version: stands twice, first in line 1; remove one"),
    (
        "version: 1\nlimits: {max_parallel_steps: 0}\n",
        "limits.max_parallel_steps: 0 is too small; at least 1",
    ),
    ("version: 1\nlimits: {max_parallel_steps: 9999}\n", "9999 is too large; at most 1024"),
    ("version: 1\nlimits: {max_parallel_steps: 1.5}\n", "is a number, and must be a whole number"),
    (
        "version: 1\nlimits: {max_prune: 150%}\n",
        "limits.max_prune: `150%` will not do; a share is written 0% to",
    ),
    (
        "version: 1\nlimits: {max_prune: 0.5}\n",
        "is a number, and must be a text; a share is written 0% to 100%",
    ),
    (
        "version: 1\nshared_paths: {app: [x]}\n",
        "shared_paths.app: there is no repository `app`; add it under",
    ),
    ("version: 1\ninclude: [../x.yaml]\n", "trueup.yaml:2:11: include[0]: `../x.yaml`: an include is a glob"),
    ("version: 1\ninclude: [/etc/x.yaml]\n", "include[0]: `/etc/x.yaml`: an include is a glob"),
    ("version: 1\ninclude: [no/*.yaml]\n", "include[0]: `no/*.yaml`: no file matches; correct the path"),
    ("version: 1\ninclude: x.yaml\n", "trueup.yaml:2:10: include: is a text, and must be a list"),
    (
        "version: 1\nmoved: [{from: projects/a, to: services/b}]\n",
        "moved[0]: `projects/a` cannot become `services/b`",
    ),
    ("version: 1\nmoved: [{from: projects/a, to: projects/a}]\n", "moved[0]: moves nothing"),
    (
        "version: 1\nmoved: [{from: projects/a, to: projects/b}]\n",
        "moved[0].to: there is no project `b`; add it",
    ),
    (
        "version: 1\nmoved: [{from: project/a, to: projects/b}]\n",
        "moved[0].from: `project/a` will not do; write SECTION",
    ),
    (
        "version: 1\nnotifications: [{url: {env: U}, on: [fail]}]\n",
        "notifications[0].on[0]: `fail` is not one of",
    ),
]


@pytest.mark.parametrize(("text", "expected"), DOCUMENT)
def test_a_problem_of_the_document_makes_it_unusable(text: str, expected: str) -> None:
    result = loaded(text)
    assert result.spec is None
    [problem] = result.problems
    assert expected in str(problem)
    assert problem.resource is None
    with pytest.raises(SpecInvalid) as raised:
        load_or_raise({SPEC_FILE: text.encode()})
    assert raised.value.exit_code == 3
    assert str(raised.value) == str(problem)


def test_a_missing_root_file_says_what_to_do() -> None:
    [problem] = load({}).problems
    assert str(problem) == (
        "trueup.yaml:1:1: the repository has no trueup.yaml; run `trueup init` to write a first one"
    )


WEB = "services:\n  web: "
PROJECT = "projects:\n  site: "
OK = "repository: app, deploy: {kind: manual}, environments: [staging]"

RESOURCES = [
    # repositories
    ("repositories:\n  r: {}", ":12:3: repositories.r: `url` is missing"),
    (
        "repositories:\n  r: {url: -oProxyCommand=x}",
        "repositories.r.url: this will not do; an address has no spaces",
    ),
    ("repositories:\n  r: {url: git@h:x, verify: {signatures: tag}}", "verify: `allowed_signers` is missing"),
    (
        "repositories:\n  r: {url: git@h:x, units: {a: {tag_prefix: v}, b: {tag_prefix: v}}}",
        "units.b: has the tag prefix `v`",
    ),
    (
        "repositories:\n  r: {url: git@h:x, units: {a: {tag_prefix: a..b/}}}",
        "units.a.tag_prefix: git accepts no tag such as `a..b/v1.0.0`; change",
    ),
    (
        "repositories:\n  r: {url: 'ext::touch%20x'}",
        ":12:12: repositories.r.url: repository URL 'ext::touch%20x' names a transport helper",
    ),
    ("repositories:\n  r: {url: git://h/x}", "uses the scheme 'git', which is not allowed; use https:// or"),
    (
        "repositories:\n  r: {url: http://h/x}",
        "uses the scheme 'http', which is not allowed; use https:// or",
    ),
    ("repositories:\n  r: {url: ../x}", "'../x' is a relative path; write the absolute path, or a URL"),
    ("repositories:\n  r: {url: git@h:x, branch: '@'}", "r.branch: `@` will not do; not a branch name"),
    # path patterns
    *(
        (
            f"services:\n  x: {{{OK}, paths: ['{pattern}']}}",
            "paths[0]: `" + pattern + "` will not do; a path pattern is",
        )
        for pattern in ("!", "! ", "a\\", "a\\/b")
    ),
    # addresses
    (
        f"services:\n  x: {{{OK}, health: 'tcp://h:70000'}}",
        "services.x.health: port 70000 is none; a port is",
    ),
    (f"services:\n  x: {{{OK}, health: {{tcp: 'h:0'}}}}", "services.x.health.tcp: port 0 is none"),
    (f"services:\n  x: {{{OK}, health: 'https://:80'}}", "services.x.health: names no host; write"),
    (f"services:\n  x: {{{OK}, health: {{http: 'http://['}}}}", "health.http: its host or port is not valid"),
    (
        "secret_sources:\n  x: {kind: infisical, project_id: p, environment_slug: e, auth: token, token: {env: A}, host: 'http://infisical.example'}",
        "x.host: is plain http, which is only allowed to this machine itself; write",
    ),
    # secret sources
    (
        "secret_sources:\n  x: {kind: vault}",
        "kind: `vault` is not one of the choices; choose infisical, env_file",
    ),
    (
        "secret_sources:\n  x: {kind: infisicl}",
        "kind: `infisicl` is not one of the choices; did you mean `infisical`?",
    ),
    ("secret_sources:\n  x: {file: .env}", ":12:3: secret_sources.x: `kind` is missing; choose infisical,"),
    ("secret_sources:\n  x: {kind: [a]}", "secret_sources.x.kind: is a list, and must be one of infisical,"),
    ("secret_sources:\n  x: local", ":12:6: secret_sources.x: is a text, and must be a map"),
    (
        "secret_sources:\n  x: {kind: env_file, fle: a}",
        ":12:23: secret_sources.x.fle: unknown key `fle`; did you mean",
    ),
    (
        "secret_sources:\n  x: {kind: env_file, file: a, cache_ttl: 2h}",
        ":12:43: secret_sources.x.cache_ttl: longer than 3600s",
    ),
    (
        "secret_sources:\n  x: {kind: env_file, file: a, cache_ttl: 60}",
        "is a whole number, and must be a text; a duration is",
    ),
    (
        "secret_sources:\n  x: {kind: env_file, file: a, max_stale: 5 days}",
        "max_stale: `5 days` will not do; a duration is a",
    ),
    (
        "secret_sources:\n  x: {kind: env_file, file: a, fallback: [lokal]}",
        "fallback[0]: there is no secret source `lokal`",
    ),
    (
        "secret_sources:\n  x: {kind: env_file, file: a, fallback: [export]}",
        "whose values cannot be read; only a secret target",
    ),
    (
        "secret_sources:\n  x: {kind: env_file, file: a, fallback: [x]}",
        "the sources go in a circle: x -> x; remove",
    ),
    (
        "secret_sources:\n  x: {kind: env_file, file: a, environments: [prod]}",
        "there is no environment `prod`; choose `staging`, `production`",
    ),
    (
        "secret_sources:\n  x: {kind: environ, keys: []}",
        "secret_sources.x.keys: has 0 entries; at least 1 must be given",
    ),
    (
        "secret_sources:\n  x: {kind: sops, file: a.yaml, repository: ap}",
        "there is no repository `ap`; did you mean `app`?",
    ),
    (
        "secret_sources:\n  x: {kind: sops, file: secrets.yaml.enc}",
        ":12:25: secret_sources.x.file: `secrets.yaml.enc` does not say what it is; sops has to know by a name with .yaml, .yml",
    ),
    (
        "secret_sources:\n  x: {kind: age, repository: app, file: ../a.age, identity: {env: A}}",
        ":12:41: secret_sources.x.file: `../a.age` will not do; a path inside its root has no leading",
    ),
    (
        "secret_sources:\n  x: {kind: sops, repository: app, file: /etc/a.yaml}",
        "secret_sources.x.file: `/etc/a.yaml` will not do; a path inside its root has no leading",
    ),
    (
        "secret_sources:\n  x: {kind: infisical, project_id: p, environment_slug: e, client_id: {env: A}}",
        "secret_sources.x: `client_secret` is missing; logging in by universal needs `client_id` and `client_secret`",
    ),
    # secret targets
    (
        "secret_targets:\n  t: {kind: github_actions, from: local, keys: [A]}",
        "secret_targets.t: name exactly one of `repo` and",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, org: o, from: local, keys: [A]}",
        "`visibility` is missing; an organi",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, repo: o, from: local, keys: [A]}",
        "`o` will not do; write owner/name",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, repo: o/r, from: lcal, keys: [A]}",
        "there is no secret source `lcal`",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, repo: o/r, from: local, keys: [a]}",
        "keys[0]: `a`: a secret is handed on",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, repo: o/r, from: local, keys: [GITHUB_X]}",
        "not with GITHUB_; give it",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, repo: o/r, from: local, keys: [A, {key: b, name: A}]}",
        "pushed twice",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, repo: o/r, from: local, keys: [DB_USER], groups: [[DB_USER, GITHUB_X]]}",
        "groups[0][1]: `GITHUB_X`: the name of a secret may not begin with GITHUB_",
    ),
    (
        "secret_targets:\n  t: {kind: github_actions, repo: o/.., from: local, keys: [A]}",
        "repo: `o/..` will not do; write owner/name",
    ),
    # environments
    (
        "environments:\n  qa: {release: {from: main, promote_from: staging}}",
        "`from` and `promote_from` exclude each other",
    ),
    (
        "environments:\n  qa: {release: {bump: minor}}",
        "environments.qa.release: name `from` (a branch) or `promote_from`",
    ),
    (
        "environments:\n  qa: {release: {promote_from: stagin}}",
        "there is no environment `stagin`; did you mean `staging`?",
    ),
    (
        "environments:\n  qa: {release: {promote_from: qa}}",
        "the environments promote in a circle: qa -> qa; one of them",
    ),
    (
        "environments:\n  qa: {release: {from: main, soak: 1h}}",
        "soak: counts from the release in `promote_from`, which",
    ),
    (
        "environments:\n  qa: {release: {from: -x}}",
        "release.from: `-x` will not do; not a branch name that git accepts",
    ),
    (
        "environments:\n  qa: {windows: [Mon-Thu 9-17]}",
        "windows[0].allow: `Mon-Thu 9-17` is no window; write days and",
    ),
    (
        "environments:\n  qa: {windows: [{deny: Mo 09:00-17:00}]}",
        "windows[0].deny: `Mo 09:00-17:00` is no window; days are",
    ),
    ("environments:\n  qa: {windows: [{allow: daily 09:00-25:00}]}", "a day has the times 00:00 to 24:00"),
    (
        "environments:\n  qa: {windows: [{timezone: UTC}]}",
        "windows[0]: name exactly one of `allow` and `deny`",
    ),
    (
        "environments:\n  qa: {windows: [{allow: daily 01:00-02:00, timezone: Berlin}]}",
        "timezone: `Berlin`: not a time zone",
    ),
    (
        "environments:\n  qa: {on_failure: rolback}",
        "on_failure: `rolback` is not one of the choices; did you mean `rollback`?",
    ),
    (
        "environments:\n  branch: {}",
        "environments.branch: `branch` stands for projects without an environment",
    ),
    ("environments:\n  Staging: {}", "environments.Staging: differs from `staging` only in case; rename one"),
    ("environments:\n  a b: {}", "environments.`a b`: `a b` will not do; a name has letters, digits"),
    # nodes
    ("nodes:\n  n: {}", ":12:3: nodes.n: `token_key` is missing"),
    (
        "nodes:\n  n: {token_key: ed25519:abc}",
        "nodes.n.token_key: this will not do; a token key is `ed25519:` and",
    ),
    (
        f'nodes:\n  n: {{token_key: "{TOKENS[0]}"}}',
        "nodes.n.token_key: is that of node `web-1` too; give each node",
    ),
    (
        f'nodes:\n  n: {{token_key: "{TOKENS[2]}", fingerprint: AB}}',
        "`AB` will not do; a fingerprint is 64 small hex",
    ),
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
        "only `mirror` deletes",
    ),
    (
        PROJECT + "{repository: app, branch: main, sync: {after: [systemctl restart x]}}",
        "name a command of the node's",
    ),
]


@pytest.mark.parametrize(("part", "expected"), RESOURCES, ids=[each[1][:60] for each in RESOURCES])
def test_a_problem_of_a_resource_freezes_it_alone(part: str, expected: str) -> None:
    section = part.partition(":")[0]
    name = part.split("\n  ")[1].partition(":")[0]
    main = BASE.replace("version: 1\n", "version: 1\ninclude: [part.yaml]\n", 1)
    result = loaded(main, part="#\n" * 10 + part + "\n")
    [problem] = result.problems
    assert expected in str(problem)
    assert problem.file == "part.yaml"
    assert problem.resource == f"{section}/{name}"
    assert list(result.frozen) == [f"{section}/{name}"]
    assert result.spec is not None
    assert set(result.spec.environments) == {"staging", "production"}
    assert set(result.spec.nodes) == {"web-1", "web-2"}
    assert len(result.spec.secret_sources) == 3


def test_all_problems_of_all_files_come_together_sorted_and_once() -> None:
    text = BASE.replace("version: 1", "version: 1\ninclude: [b.yaml, a.yaml]")
    b = "services:\n  web: {repository: ap, deploy: {kind: invoke, tsk: x}, environments: {staging: {}, production: {}}}\n"
    a = "projects:\n  site: {repository: ap, branch: main, sync: {nodes: [{node_id: web-9, target_path: srv}]}}\n"
    assert problems(text + "limits: {max_parallel_tasks: many}\n", b=b, a=a) == [
        "a.yaml:2:22: projects.site.repository: there is no repository `ap`; did you mean `app`?",
        "a.yaml:2:65: projects.site.sync.nodes[0].node_id: there is no node `web-9`; did you mean `web-2`?",
        "a.yaml:2:85: projects.site.sync.nodes[0].target_path: `srv` will not do; a target path is absolute "
        "and in its shortest form: /srv/app, no `//`, `.`, `..` or trailing `/`, not `/` itself",
        "b.yaml:2:21: services.web.repository: there is no repository `ap`; did you mean `app`?",
        "b.yaml:2:48: services.web.deploy.tsk: unknown key `tsk`; did you mean `task`?",
        "trueup.yaml:12:30: limits.max_parallel_tasks: is a text, and must be a whole number",
    ]


# --- several resources ------------------------------------------------------------------------------


def added(text: str) -> list[str]:
    return [each.partition(": ")[2] for each in problems(BASE + text)]


def test_a_source_whose_fallback_may_not_serve_where_it_is_used() -> None:
    text = BASE.replace("file: .env}", "file: .env, fallback: [prod]}")
    assert loaded(text).problems == ()
    text += f"services:\n  web: {{{OK}, secrets: [local]}}\n"
    assert problems(text) == [
        "trueup.yaml:5:50: secret_sources.local.fallback[0]: `prod` may not serve staging, where `local` is used; "
        "widen its `environments`, or take another fallback"
    ]


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


def test_sources_may_not_need_each_other_through_credentials_and_fallbacks() -> None:
    text = BASE.replace("version: 1", "version: 1\ninclude: [x.yaml]")
    more = "secret_sources:\n  a: {kind: age, file: x, identity: {secret: b/KEY}}\n  b: {kind: env_file, file: x, fallback: [a]}\n"
    [problem] = problems(text, x=more)
    assert "the sources go in a circle: a -> b -> a" in problem


def test_promotions_may_not_go_in_a_circle() -> None:
    text = BASE.replace(
        "staging: {}, production: {}",
        "staging: {release: {promote_from: production}}, production: {release: {promote_from: staging}}",
    )
    [problem] = problems(text)
    assert "the environments promote in a circle: production -> staging -> production" in problem


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


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        ("SECRET", "a secret value may not stand in a spec; say where it is found"),
        ("[SECRET]", "a secret value may not stand in a spec; say where it is found"),
        ("{value: SECRET}", "a secret value may not stand in a spec; say where it is found"),
        ("{SECRET: x}", "a secret value may not stand in a spec; say where it is found"),
        ("{env: A, file: SECRET}", "a secret value may not stand in a spec; say where it is found"),
        ("{env: SECRET}", "`env` takes the name of a variable"),
        ("{secret: SECRET}", "`secret` takes SOURCE/KEY"),
        ("{file: [SECRET]}", "`file` takes a path on the primary"),
        ("{}", "a secret value may not stand in a spec; say where it is found"),
        ("12345678", "a secret value may not stand in a spec; say where it is found"),
    ],
)
def test_a_secret_that_stands_in_the_spec_is_never_repeated(credential: str, expected: str) -> None:
    secret = canary("pasted-into-the-spec")
    text = BASE.replace("{env: GH_PAT}", credential.replace("SECRET", secret))
    [found] = problems(text)
    assert "secret_sources.export.token: " + expected in found
    assert secret not in found
    assert "12345678" not in found


@pytest.mark.parametrize(
    "place",
    [
        'url: "https://user:SECRET@host/app.git"',
        'url: "https://SECRET@host/app.git"',
        'url: "ssh://git:SECRET@host/app.git"',
    ],
)
def test_a_password_in_an_address_is_never_repeated(place: str) -> None:
    secret = canary("in-an-address")
    [found] = problems(BASE.replace("url: git@host:org/app.git", place.replace("SECRET", secret)))
    assert "holds no user or password" in found
    assert secret not in found


def test_values_are_echoed_short_and_without_control_characters() -> None:
    name = "x" * 500
    [found] = added(f"services:\n  web: {{{OK}, precedence: [{name}]}}\n")
    assert len(found) < 200
    [found] = added(f'services:\n  web: {{{OK}, precedence: ["\\e[31m\\u202e\\n"]}}\n')
    assert "`\\x1b[31m\\u202e\\n`" in found
    assert found.isprintable()


def test_an_unknown_key_with_control_characters_is_escaped_in_the_path_too() -> None:
    [found] = problems('version: 1\n"\\e[2J": 1\n')
    assert found.isprintable()


def test_duplicate_names_freeze_their_resource() -> None:
    text = BASE + f"services:\n  web: {{{OK}}}\n  api: {{{OK}}}\n  web: {{{OK}}}\n"
    result = loaded(text)
    [problem] = result.problems
    assert str(problem) == "trueup.yaml:14:3: services.web: stands twice, first in line 12; remove one"
    assert list(result.frozen) == ["services/web"]
    assert result.spec is not None
    assert [each.name for each in result.spec.services] == ["api"]


# --- anything at all ---------------------------------------------------------------------------------

SECTIONS = """version include limits shared_paths repositories secret_sources secret_targets environments
services nodes projects moved notifications"""
KEYS = """kind url branch units release from promote_from windows deploy health http tcp secrets env depends_on sync
files after labels path format source keys fallback"""
CONTENTS = """infisical env_file github_actions invoke agent staging production web app local 1 12 0s 5m 50% true null
~ &a *a <<: [ ] { } - : , # | > " ' ! ? %"""
WORDS = st.sampled_from([*SECTIONS.split(), *KEYS.split(), *CONTENTS.split()])


@st.composite
def yamlish(draw: st.DrawFn) -> str:
    lines = ["version: 1"]
    for _ in range(draw(st.integers(0, 14))):
        indent = "  " * draw(st.integers(0, 4))
        words = draw(st.lists(WORDS, min_size=1, max_size=5))
        lines.append(indent + words[0] + ": " + " ".join(words[1:]))
    return "\n".join(lines)


@given(st.one_of(st.binary(max_size=300), yamlish().map(str.encode)))
def test_no_bytes_raise_anything(content: bytes) -> None:
    result = load({SPEC_FILE: content})
    assert result.spec is not None or result.problems
    assert all(each.line >= 1 and each.column >= 1 and each.file for each in result.problems)
