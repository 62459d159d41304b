-- ARGV: mend, tenant, id, attempt. For a finished delivery whose line is in no list of finished ones: puts
-- one there. Reply: whether it is still finished so, 1 or 0.
local function check_line(keys, argv)
  local p, tenant, id = keys[1], argv[2], argv[3]
  local value = redis.call('GET', p .. 'd:' .. tenant .. Z .. id)
  if not value then return 0 end
  local kind, _, _, attempt = facts(value)
  if (kind ~= 's' and kind ~= 'x') or attempt ~= argv[4] then return 0 end
  if argv[1] == '1' then
    local line = num(math.floor(time() / 1000)) .. Z .. attempt .. Z .. id
    redis.call('RPUSH', p .. 'f:' .. tenant, line)
  end
  return 1
end

-- What changes with every change of how many deliveries of a tenant are finished: the number that is kept,
-- and where its lines begin and end.
local function finished_state(p, tenant)
  local line = p .. 'f:' .. tenant
  return table.concat({
    redis.call('HGET', p .. 'm', tenant) or '', redis.call('LLEN', line),
    redis.call('LRANGE', line, 0, 0)[1] or '', redis.call('LRANGE', line, -1, -1)[1] or '',
  }, Z)
end

-- The id of the last entry of a stream, or nothing.
local function last_entry(key)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  return last and last[1] or ''
end

-- ARGV: tenant, place of the first line to look at, how many. Reply: how many lines there were, how many of
-- them stand for a finished delivery, and what changes with every change of their number.
local function check_finished(keys, argv)
  local p, tenant, from = keys[1], argv[1], tonumber(argv[2])
  local line = p .. 'f:' .. tenant
  local lines = redis.call('LRANGE', line, from, from + tonumber(argv[3]) - 1)
  local attempts, wanted, count = {}, {}, 0
  for i = 1, #lines do
    local _, attempt, id = split(lines[i])
    attempts[i], wanted[i] = attempt, p .. 'd:' .. tenant .. Z .. id
  end
  local records = mget(wanted)
  for i = 1, #lines do
    if records[i] then
      local kind, _, _, attempt = facts(records[i])
      -- What cannot be read is finished, for all that is known.
      if not kind or ((kind == 's' or kind == 'x') and attempt == attempts[i]) then count = count + 1 end
    end
  end
  return { #lines, count, finished_state(p, tenant) }
end

-- ARGV: mend, tenant, its state as of `check_finished` when its lines began to be counted, how many they were.
-- Reply: whether another number was kept, 1 or 0, or -1 when it has changed meanwhile.
local function count_finished(keys, argv)
  local p, tenant, count = keys[1], argv[2], tonumber(argv[4])
  if finished_state(p, tenant) ~= argv[3] then return -1 end
  if tonumber(redis.call('HGET', p .. 'm', tenant) or '0') == count then return 0 end
  if argv[1] == '1' then
    if count > 0 then
      redis.call('HSET', p .. 'm', tenant, num(count))
    else
      redis.call('HDEL', p .. 'm', tenant)
    end
  end
  return 1
end

redis.register_function('@_check_line', check_line)
redis.register_function('@_check_finished', check_finished)
redis.register_function('@_count_finished', count_finished)
