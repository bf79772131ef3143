#!/usr/bin/env bash
# Makes sure that a repository has the GitHub Actions secrets that it needs; those that are missing are exported
# from a central repository by its workflow export-secret.yml. Needs bash, curl and jq. Source it, then
#
#   check_and_sync_secrets POSTGRES_PASSWORD REGISTRY_PASSWORD || exit 1
#
# or run it with the names as arguments. Returns 0 if every name is there in the end, 1 otherwise. Only names
# are read and written: GitHub hands values to nobody. The function runs in a subshell, so that it changes
# nothing in the shell that calls it.
#
#   SOURCE_SECRETS_REPO      OWNER/REPO of the source (Bengo-Hub/devops-k8s), or OWNER/REPO/ENVIRONMENT
#   GH_PAT or GITHUB_TOKEN   may list the secrets of both repositories and dispatch to the source
#   GITHUB_REPOSITORY        OWNER/REPO that needs the secrets; else what gh or git say of this directory
#   CHECK_SECRETS_REFRESH=1  also export anew what is newer in the source than here
#   CHECK_SECRETS_INTERVAL, CHECK_SECRETS_ATTEMPTS   how to wait: every 2 seconds, 15 times
#   GITHUB_API_URL           https://api.github.com

check_and_sync_secrets() (
  # The caller's options stay outside: above all `set -x` would print the token.
  set +o xtrace +o errexit +o errtrace +o functrace +o noglob +o noclobber -o nounset -o pipefail
  trap - ERR DEBUG RETURN
  unset -f command printf
  IFS=$' \t\n' LC_ALL=C
  token=${GH_PAT:-${GITHUB_TOKEN:-}}
  source_repo=${SOURCE_SECRETS_REPO:-Bengo-Hub/devops-k8s}
  source_environment=
  api=${GITHUB_API_URL:-https://api.github.com}
  api=${api%/}
  interval=${CHECK_SECRETS_INTERVAL:-2}
  attempts=${CHECK_SECRETS_ATTEMPTS:-15}
  status=000 body=

  say() { printf '%s\n' "$*" >&2; }

  # ask METHOD PATH [BODY]: sets status and body. The token goes to curl through a pipe, not its arguments.
  ask() {
    local answer
    answer=$(printf 'header = "Authorization: Bearer %s"\n' "$token" | command curl -q --config - \
      --silent --request "$1" --connect-timeout 10 --max-time 30 --max-filesize 4194304 \
      --header 'Accept: application/vnd.github+json' --header 'X-GitHub-Api-Version: 2022-11-28' \
      --header 'Content-Type: application/json' ${3:+--data-binary "$3"} \
      --write-out '\n%{http_code}' "$api$2") || true
    status=${answer##*$'\n'} body=${answer%$'\n'*}
    [[ $status == 2?? ]]
  }

  # listed PATH: "NAME UPDATED_AT" of each secret, as many pages as it takes. Sets found.
  listed() {
    local page lines all=''
    found=
    for ((page = 1; page <= 100; page++)); do
      ask GET "$1?per_page=100&page=$page" || return 1
      lines=$(command jq -r '.total_count, (.secrets[] | "\(.name | ascii_upcase) \(.updated_at)")' \
        <<<"$body" 2>/dev/null) || break
      [[ $lines == *$'\n'* ]] && all+=${lines#*$'\n'}$'\n'
      if (($(command grep -c . <<<"$all") >= ${lines%%$'\n'*})); then
        found=$all
        return 0
      fi
      [[ $lines == *$'\n'* ]] || break # it ends early, and what it leaves out would look as if it were missing
    done
    status=000
    return 1
  }

  # when NAME <<<LIST: its time in a list; fails where the list does not have it.
  when() {
    local name time
    while read -r name time; do
      [[ $name != "$1" ]] || { printf '%s' "$time"; return 0; }
    done
    return 1
  }

  # why WHAT: what to do about the last answer.
  why() {
    case $status in
      000) say "  No answer, or none of GitHub's. Look at the network, and at GITHUB_API_URL." ;;
      401) say "  GitHub does not accept the token. Make a new one, and set GH_PAT." ;;
      403 | 429) say "  The token has no right to $1, or GitHub asks to slow down. GH_PAT needs the scopes repo" \
        "and workflow; the GITHUB_TOKEN that Actions sets has no right to secrets and to other repositories." ;;
      404) say "  $1 is not there, or the token cannot see it. $2" ;;
      *) say "  GitHub has a fault or refuses. Try again later, see https://www.githubstatus.com" ;;
    esac
  }

  # --- what is asked, and of whom -------------------------------------------------------------

  for tool in curl jq; do
    command -v "$tool" >/dev/null || { say "$tool is missing; install it"; return 1; }
  done
  if [[ -z $token ]]; then
    say 'No auth token (GH_PAT or GITHUB_TOKEN) available'
    say '  Set one before the build: export GH_PAT=... (scopes repo and workflow); in Actions: env: GH_PAT.'
    return 1
  fi
  if [[ ! $token =~ ^[A-Za-z0-9_.~+/=-]+$ ]]; then
    say 'GH_PAT or GITHUB_TOKEN holds something else than a token; set it anew, without spaces or quotes'
    return 1
  fi
  if [[ ! $api =~ ^https:// && ! $api =~ ^http://(127\.0\.0\.1|localhost|\[::1\])(:|/|$) ]]; then
    say "GITHUB_API_URL: the token is sent over https only; write https://HOST"
    return 1
  fi
  if [[ ! $interval =~ ^[0-9]+(\.[0-9]+)?$ || ! $attempts =~ ^[1-9][0-9]{0,3}$ ]]; then
    say 'CHECK_SECRETS_INTERVAL takes seconds, CHECK_SECRETS_ATTEMPTS a number from 1'
    return 1
  fi
  if [[ $source_repo =~ ^([^/]+/[^/]+)/([A-Za-z0-9_.-]+)$ ]]; then
    source_repo=${BASH_REMATCH[1]} source_environment=${BASH_REMATCH[2]}
  fi
  target=${GITHUB_REPOSITORY:-}
  if [[ -z $target ]] && command -v gh >/dev/null; then
    target=$(GH_TOKEN=$token command gh repo view --json nameWithOwner --jq .nameWithOwner 2>/dev/null)
  fi
  if [[ -z $target ]]; then
    target=$(command git remote get-url origin 2>/dev/null)
    target=${target%/} target=${target%.git}
    [[ $target =~ [:/]([^/:]+/[^/:]+)$ ]] && target=${BASH_REMATCH[1]}
  fi
  for repo in "$target" "$source_repo"; do
    if [[ ! $repo =~ ^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$ ]]; then
      say 'The repository is not known; set GITHUB_REPOSITORY, and SOURCE_SECRETS_REPO, to OWNER/REPO'
      return 1
    fi
  done
  names=()
  for name; do
    if [[ ! $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ || ${name^^} == GITHUB_* ]]; then
      say "No name of a secret: letters, digits and _ only, no digit first, not GITHUB_: ${name//[^A-Za-z0-9_]/?}"
      return 1
    fi
    [[ " ${names[*]-} " == *" ${name^^} "* ]] || names+=("${name^^}")
  done
  ((${#names[@]})) || { say 'No names given; nothing to check'; return 0; }

  # --- what is missing: the repository's own secrets first, then the organisation's -----------

  if ! listed "/repos/$target/actions/secrets"; then
    say "The secrets of $target cannot be listed (http $status)"
    why "the secrets of $target" 'Check GITHUB_REPOSITORY, and the scope repo of the token.'
    return 1
  fi
  own=$found inherited='' offered=''
  if listed "/repos/$target/actions/organization-secrets"; then
    inherited=$found
  elif [[ $status != 403 && $status != 404 ]]; then
    # Not being told is not the same as there being none.
    say "The organisation's secrets for $target cannot be listed (http $status)"
    why "the organisation's secrets" ''
    return 1
  fi
  if [[ ${CHECK_SECRETS_REFRESH:-0} == 1 ]]; then
    if ! listed "/repos/$source_repo/actions/secrets"; then
      say "The secrets of $source_repo cannot be listed (http $status)"
      why "the secrets of $source_repo" 'Check SOURCE_SECRETS_REPO.'
      return 1
    fi
    offered=$found
    if [[ -n $source_environment ]] && listed "/repos/$source_repo/environments/$source_environment/secrets"; then
      offered=$found$offered # the environment's win
    fi
  fi
  wanted=()
  declare -A before=()
  for name in "${names[@]}"; do
    if there=$(when "$name" <<<"$own"); then
      newer=$(when "$name" <<<"$offered") || newer=
      if [[ ! $newer > $there ]]; then # times of one form and zone: their order is that of their text
        say "$name: present (repository)"
        continue
      fi
      before[$name]=$there
    elif when "$name" <<<"$inherited" >/dev/null; then
      say "$name: present (organisation)"
      continue
    fi
    wanted+=("$name")
  done
  ((${#wanted[@]})) || return 0

  # --- one dispatch for all of them -----------------------------------------------------------

  # A single name goes in the form that every export-secret.yml understands.
  payload=$(command jq -nc --arg target "$target" --arg environment "$source_environment" '
    {event_type: "export-secret", client_payload: (
      (if ($ARGS.positional | length) == 1 then {secret_name: $ARGS.positional[0]}
       else {secret_names: $ARGS.positional} end)
      + {target_repo: $target}
      + (if $environment == "" then {} else {source_environment: $environment} end))}
    ' --args "${wanted[@]}")
  say "${wanted[*]}: missing; asking $source_repo to export to $target"
  if ! ask POST "/repos/$source_repo/dispatches" "$payload"; then
    say "Export dispatch failed (http $status)"
    why "$source_repo, or its workflow export-secret.yml," \
      "Copy the workflow to the source's default branch, check SOURCE_SECRETS_REPO and the token's scopes."
    return 1
  fi

  # --- until each is there --------------------------------------------------------------------

  for ((attempt = 1; attempt <= attempts && ${#wanted[@]}; attempt++)); do
    command sleep "$interval"
    listed "/repos/$target/actions/secrets" || continue # it may answer the next time
    missing=()
    for name in "${wanted[@]}"; do
      if there=$(when "$name" <<<"$found") && [[ $there != "${before[$name]-}" ]]; then
        say "$name: exported"
      else
        missing+=("$name")
      fi
    done
    wanted=(${missing[@]+"${missing[@]}"})
  done
  ((${#wanted[@]})) || return 0
  waited=$(command jq -n "$interval * $attempts")
  for name in "${wanted[@]}"; do
    say "Timeout waiting for $name (not found after ${waited}s)"
  done
  if [[ -z $source_environment ]] && listed "/repos/$source_repo/actions/secrets"; then
    for name in "${wanted[@]}"; do
      when "$name" <<<"$found" >/dev/null || say "  $source_repo itself has no secret $name: a typing error?"
    done
  fi
  say "  Look at the runs of export-secret in $source_repo: none means that the workflow is not on its default" \
    "branch; a failed one says why. GH_PAT needs the scopes repo and workflow." \
    "See: gh run list -R $source_repo -w export-secret"
  return 1
)

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  check_and_sync_secrets "$@"
fi
