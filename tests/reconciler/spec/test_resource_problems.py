# ruff: noqa: E501 - tables of documents and messages
"""What can be wrong with what services stand on, one line each: its place, what is wrong and what to do.

Repositories, secret sources and targets, environments, nodes.
"""

import pytest

from tests.reconciler.spec.documents import BASE, OK, TOKENS, check_freezes_alone, loaded, problems

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
]


@pytest.mark.parametrize(("part", "expected"), RESOURCES, ids=[each[1][:60] for each in RESOURCES])
def test_a_problem_of_a_resource_freezes_it_alone(part: str, expected: str) -> None:
    check_freezes_alone(part, expected)


def test_a_source_whose_fallback_may_not_serve_where_it_is_used() -> None:
    text = BASE.replace("file: .env}", "file: .env, fallback: [prod]}")
    assert loaded(text).problems == ()
    text += f"services:\n  web: {{{OK}, secrets: [local]}}\n"
    assert problems(text) == [
        "trueup.yaml:5:50: secret_sources.local.fallback[0]: `prod` may not serve staging, where `local` is used; "
        "widen its `environments`, or take another fallback"
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
