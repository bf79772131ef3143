"""The spec that `trueup init` writes: valid as it is, with every usual part as a comment to take over."""

_STARTER = """\
# yaml-language-server: $schema=./schema/spec.v1.schema.json
##
## What should run where. trueup reads this file from git and trues everything else up to it.
##
##   trueup validate     checks it, with file, line and column of whatever is wrong
##   trueup plan         shows what would change, and why
##   trueup reconcile    does it, once: let a timer run it
##
## Lines with one # are examples: remove the # and edit. They are valid together, as they stand.
## No secret value belongs in this file. Say where one is found: {env: NAME}, {file: PATH} or
## {secret: SOURCE/KEY}.

version: 1

## Further files of this repository, with the same sections as this one.
# include: [services/*.yaml]

## Stages. A change of the branch gets the next tag, v1.2.3, and runs in staging. Production runs what was
## promoted from there: `trueup promote staging production --confirm deploy`.
environments:
  staging:
    release: {from: main}                    # or  {from: main, cut: external}: a workflow makes the tags
#   production:
#     release: {promote_from: staging}       # approval: manual; soak: 1h to have it promoted by itself
#     spec_from: release                     # a merge here changes nothing there until it is promoted
#     on_failure: rollback
#     windows: [{allow: "Mon-Thu 09:00-17:00", timezone: Europe/Berlin}]

## Git repositories that services and projects come from.
# repositories:
#   app:
#     url: git@github.com:your-org/your-app.git
#     branch: main

## Where secret values come from. The first that can serve does; `fallback` names the next.
# secret_sources:
#   vault:
#     kind: infisical
#     project_id: 65abc123def456
#     environment_slug: prod
#     client_id: {env: INFISICAL_CLIENT_ID}
#     client_secret: {env: INFISICAL_CLIENT_SECRET}
#     fallback: [local]
#   local: {kind: env_file, file: /etc/trueup/local.env}

## What is deployed: at a new release, when one of `paths` changed, or when a secret did.
# services:
#   api:
#     repository: app
#     paths: ["api/**"]
#     secrets: [vault]
#     env: {LOG_LEVEL: info}
#     deploy: {kind: invoke, task: api.deploy}     # `invoke api.deploy` in the repository; or compose, ...
#     environments: [staging, production]

## Hosts. `trueup node add web-1 --label group=web` adds one here and prints the agent's join command.
nodes: {}

## Trees of files that are kept on nodes.
# projects:
#   site:
#     repository: app
#     environment: production      # its release there; or  branch: main
#     path: site
#     sync:
#       strategy: mirror           # overlay: nothing is ever deleted there
#       nodes:
#         - {labels: {group: web}, target_path: /srv/site}     # or  node_id: web-1
#       files:                     # made in memory, never in git
#         - {path: .env, format: dotenv, mode: "0600", secrets: [vault]}
#       after: [restart-web]       # a command that the node's own configuration allows
"""


def starter_spec() -> str:
    """The text of a first `trueup.yaml`; its first line points editors to the schema beside it."""
    return _STARTER
