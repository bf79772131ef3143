#!/usr/bin/env bash
# Asks trueup for a deploy and waits for what becomes of it. Copy it into the repository with the code, as
# scripts/trueup-deploy.sh; the workflows beside this file call it.
#
#   trueup-deploy.sh ENVIRONMENT TAG [SERVICE]
#   trueup-deploy.sh --rollback ENVIRONMENT TAG [SERVICE]
#
# TRUEUP_URL     where the primary is, such as https://trueup.example.org
# DEPLOY_SECRET  what the primary has as DEPLOY_SECRET
# TRIGGERED_BY   who asks, for the record; GITHUB_ACTOR, or the user, if unset
# PATIENCE       seconds to wait for the end; 3000 if unset, 0: does not wait
# POLL           seconds between two looks; 5 if unset
#
# Prints what happens, and writes `release=TAG` to GITHUB_OUTPUT: the tag that runs there now. Exit code 0 once
# everything of the release runs, 1 where it failed, was refused or waits for somebody at the end of PATIENCE.
# Needs bash, curl, jq and python3.
set -euo pipefail

rollback=false
if [[ ${1-} == --rollback ]]; then
  rollback=true
  shift
fi
environment=${1:?environment} tag=${2:?tag} service=${3-}
: "${TRUEUP_URL:?where the primary is}" "${DEPLOY_SECRET:?what the primary has as DEPLOY_SECRET}"
by=${TRIGGERED_BY:-${GITHUB_ACTOR:-${USER:-somebody}}}
patience=${PATIENCE:-3000} poll=${POLL:-5}

# A nonce of its own makes the request one of a kind: sent twice it counts once, and after 5 minutes not at all.
nonce=${GITHUB_RUN_ID:+$GITHUB_RUN_ID-${GITHUB_RUN_ATTEMPT:-1}-${GITHUB_JOB:-job}-}$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
body=$(jq -cn --arg env "$environment" --arg tag "$tag" --arg by "$by" --arg service "$service" \
  --arg nonce "$nonce" --arg at "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --argjson rollback "$rollback" \
  '{env: $env, tag: $tag, triggered_by: $by, requested_at: $at, nonce: $nonce}
   + (if $service != "" then {service: $service} else {} end)
   + (if $rollback then {rollback: true} else {} end)')

# `openssl dgst -hmac` would do as well, but shows the secret to everybody who may list the processes.
signature=$(printf '%s' "$body" | python3 -c '
import hashlib, hmac, os, sys
print(hmac.new(os.environb[b"DEPLOY_SECRET"], sys.stdin.buffer.read(), hashlib.sha256).hexdigest())')
unset DEPLOY_SECRET

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
# Repeated where nothing came back: the nonce keeps it from counting twice.
code=$(curl -sS --retry 4 --retry-connrefused --max-time 60 -o "$answer" -w '%{http_code}' \
  -H 'Content-Type: application/json' -H "X-Hub-Signature-256: sha256=$signature" --data-binary "$body" \
  "$TRUEUP_URL/deploy") || code=000
said() { jq -r --arg key "$1" '.[$key] // ""' "$answer" 2> /dev/null || true; }
if [[ $code != 202 ]]; then
  echo "::error::$tag is not deployed to $environment: $(said message) (http $code)"
  exit 1
fi
url=$(said url)
echo "asked for $tag in $environment: $(said message)"

told='' deadline=$((SECONDS + patience))
while ((SECONDS < deadline)); do
  # An answer that does not come is none: the primary may be starting anew.
  curl -sS --max-time 30 -o "$answer" "$TRUEUP_URL$url" || true
  state=$(said state) message=$(said message) release=$(said release)
  if [[ "$state: $message" != "$told" ]]; then
    told="$state: $message"
    echo "$told"
  fi
  case $state in
    succeeded)
      [[ -z ${GITHUB_OUTPUT-} ]] || echo "release=$release" >> "$GITHUB_OUTPUT"
      exit 0
      ;;
    failed | refused)
      echo "::error::$tag in $environment: $state: $message"
      exit 1
      ;;
  esac
  sleep "$poll"
done
((patience == 0)) && exit 0
echo "::error::$tag in $environment is not done after ${patience}s: $told"
exit 1
