#!/bin/sh
# Pushes one event with nothing but redis-cli.
#
#     ./push.sh                        acme, invoice.paid, a new id
#     ./push.sh globex order.created order-17 '{"total":9.90}'
#
# REDIS_URL says where Redis is. Pushing an id again makes no second delivery.
set -eu

tenant=${1:-acme}
type=${2:-invoice.paid}
id=${3:-evt_$(date +%s)_$$}
payload=${4:-'{"invoice":"inv_1","total":12.50,"region":"eu","card":"4111 1111 1111 1111"}'}

redis-cli -u "${REDIS_URL:-redis://127.0.0.1:6379}" \
    XADD wasmhook:events '*' tenant "$tenant" type "$type" id "$id" payload "$payload"
