#!/bin/sh
# Pushes events over HTTP with curl: one JSON object, or many as lines.
#
#     ./http.sh                        acme, invoice.paid, a new id
#     ./http.sh globex order.created order-17 '{"total":9.90}'
#     ./http.sh - < events.ndjson      one event a line
#
# EVENTS_URL says where the host is; EVENTS_TOKEN is sent as bearer token if it is set.
set -eu

url=${EVENTS_URL:-http://127.0.0.1:8080}/v1/events

push() { # content type; the body comes from standard input
    if [ -n "${EVENTS_TOKEN:-}" ]; then
        set -- "$1" --header "authorization: Bearer $EVENTS_TOKEN"
    fi
    type=$1
    shift
    curl --silent --show-error --fail-with-body "$@" \
        --header "content-type: $type" --data-binary @- "$url"
    echo
}

if [ "${1:-}" = "-" ]; then
    push application/x-ndjson
    exit
fi

tenant=${1:-acme}
type=${2:-invoice.paid}
id=${3:-evt_$(date +%s)_$$}
payload=${4:-'{"invoice":"inv_1","total":12.50,"region":"eu"}'}

# "occurred_at" may be added: RFC 3339 with an offset; it is now if missing.
printf '{"tenant":"%s","type":"%s","id":"%s","payload":%s}' \
    "$tenant" "$type" "$id" "$payload" | push application/json
