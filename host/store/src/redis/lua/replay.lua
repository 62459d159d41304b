-- ARGV: channel, me, tenant, id, lane, record as read, record to be, = with the key of its sequence or
-- nothing. Reply: 1 moved, 0 the record is another one by now, -1 not finished.
--
-- A sequence is in the order of creation, so a delivery that had left it takes its old place again, before
-- those that came later and have not gone yet. If it is another's turn it waits for that one.
local function replay(keys, argv)
  local p, tenant, id = keys[1], argv[3], argv[4]
  local key = p .. 'd:' .. tenant .. Z .. id
  local value = redis.call('GET', key)
  if value ~= argv[6] then return 0 end
  local kind = string.sub(value, 17, 17)
  if kind ~= 's' and kind ~= 'x' then return -1 end
  if kind == 'x' then redis.call('ZREM', p .. 'x:' .. tenant, id) end
  redis.call('SET', key, argv[7])
  redis.call('HINCRBY', p .. 'k', kind, -1)
  redis.call('HINCRBY', p .. 'k', 'o', 1)
  local quiet, now = is_quiet(p), time()
  local queues = { [argv[5]] = { '-' .. id } }
  local counted = true
  if #argv[8] > 0 then
    local name = argv[5] .. Z .. string.sub(argv[8], 2)
    local score = redis.call('ZSCORE', p .. 'g:' .. name, id)
    -- It is still its turn if it blocked.
    counted = not score or tonumber(score) ~= 0
    if counted then
      queues = {}
      redis.call('ZADD', p .. 'g:' .. name, string.sub(value, 1, 16), id)
      local waiting = {}
      advance(p, { [name] = true }, now, queues, waiting)
      delay(p, argv[1], waiting)
    end
  end
  if counted then redis.call('HINCRBY', p .. 'm', tenant, -1) end
  queue(p, queues, stamps(p, now, 1), 'RPUSH')
  wake(p, argv[1], argv[2], quiet)
  return 1
end

-- ARGV: channel, me, tenant, id, lane, key of its sequence. For a dead letter that blocks it: lets the
-- sequence go on. Reply: 1, or 0 when it does not block.
local function skip(keys, argv)
  local p, tenant, id = keys[1], argv[3], argv[4]
  local name = argv[5] .. Z .. argv[6]
  local key = p .. 'g:' .. name
  local value = redis.call('GET', p .. 'd:' .. tenant .. Z .. id)
  local score = redis.call('ZSCORE', key, id)
  if not value or not score or tonumber(score) ~= 0 then return 0 end
  local kind, _, _, attempt = envelope(value)
  if kind ~= 'x' then return 0 end
  local now = time()
  redis.call('ZREM', key, id)
  redis.call('RPUSH', p .. 'f:' .. tenant, num(math.floor(now / 1000)) .. Z .. attempt .. Z .. id)
  redis.call('HINCRBY', p .. 'm', tenant, 1)
  local quiet, queues, waiting = is_quiet(p), {}, {}
  advance(p, { [name] = true }, now, queues, waiting)
  queue(p, queues, stamps(p, now, 1), 'RPUSH')
  delay(p, argv[1], waiting)
  wake(p, argv[1], argv[2], quiet)
  return 1
end

redis.register_function('@_replay', replay)
redis.register_function('@_skip', skip)
