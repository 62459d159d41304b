-- Whether the tenant's stream has the delivery in the entry where its stamp belongs.
local function streamed(p, tenant, id, stamp)
  local entry = redis.call('XREVRANGE', p .. 'i:' .. tenant, stamp .. '-0', '-', 'COUNT', 1)[1]
  return entry and string.find(Z .. entry[2][2] .. Z, Z .. id .. Z, 1, true)
end

-- Puts a member into a set by its score, or out of it. Returns whether it was otherwise.
local function indexed(key, id, stamp, wanted, mend)
  local score = redis.call('ZSCORE', key, id)
  if wanted then
    if score and tonumber(score) == tonumber(stamp) then return false end
    if mend then redis.call('ZADD', key, stamp, id) end
    return true
  end
  if score and mend then redis.call('ZREM', key, id) end
  return score and true or false
end

-- ARGV: mend, the last stamp whose deliveries are asked for their place, then members. Reply: how many
-- were open, succeeded and dead letters, then for what is worth a word: member, letters, endpoint,
-- attempt, stamp. The letters: u cannot be read, e event missing, d due (to be found in a lane), n not in the
-- stream of all, i an index did not agree, s or x finished.
local function check_records(keys, argv)
  local p, mend, cut = keys[1], argv[1] == '1', tonumber(argv[2])
  local wanted, members, places = {}, {}, {}
  for i = 3, #argv do
    members[i - 2] = argv[i]
    wanted[i - 2] = p .. 'd:' .. argv[i]
  end
  local records, leases = mget(wanted), zmscore(p .. 'l', members)
  local counts = { p = 0, f = 0, s = 0, x = 0 }
  local known = {}
  local reply = { 0, 0, 0 }
  local function tell(member, letters, endpoint, attempt, stamp)
    local m = #reply
    reply[m + 1], reply[m + 2], reply[m + 3] = member, letters, endpoint
    reply[m + 4], reply[m + 5] = attempt, stamp
  end
  for i = 1, #members do
    local value, member = records[i], members[i]
    local kind, event, endpoint, attempt
    if value then kind, event, endpoint, attempt = facts(value) end
    if value and not kind then
      tell(member, 'u', '', '', '')
    elseif value then
      counts[kind] = counts[kind] + 1
      local gap = string.find(member, Z, 1, true)
      local tenant, id = string.sub(member, 1, gap - 1), string.sub(member, gap + 1)
      local stamp = string.sub(value, 1, 16)
      local letters = ''
      if kind == 'p' or kind == 'f' then
        if redis.call('EXISTS', p .. 'e:' .. tenant .. Z .. event) == 0 then letters = 'e' end
        local waiting = tenant .. Z .. endpoint .. Z .. id
        if not leases[i] and tonumber(stamp) <= cut and not redis.call('ZSCORE', p .. 'w', waiting)
            and standing(p, tenant, endpoint, id, value) ~= 'behind' then
          letters = letters .. 'd'
        end
      elseif kind == 's' or standing(p, tenant, endpoint, id, value) ~= 'first' then
        letters = kind
      end
      if not streamed(p, tenant, id, stamp) then letters = letters .. 'n' end
      local troubled = indexed(p .. 'o:' .. tenant, id, stamp, kind == 'f', mend)
      if indexed(p .. 'x:' .. tenant, id, stamp, kind == 'x', mend) or troubled then letters = letters .. 'i' end
      if known[tenant] == nil then known[tenant] = redis.call('SMISMEMBER', p .. 'T', tenant)[1] == 1 end
      if not known[tenant] then
        letters = letters .. 'i'
        known[tenant] = true
        if mend then redis.call('SADD', p .. 'T', tenant) end
      end
      if letters ~= '' then tell(member, letters, endpoint, attempt, stamp) end
    end
  end
  reply[1], reply[2], reply[3] = counts.p + counts.f, counts.s, counts.x
  return reply
end

-- ARGV: mend, index (o or x), tenant, then ids of it. Reply: those that do not belong there.
local function check_index(keys, argv)
  local p, key = keys[1], keys[1] .. argv[2] .. ':' .. argv[3]
  local kind = argv[2] == 'o' and 'f' or 'x'
  local ids, records, reply = {}, {}, {}
  for i = 4, #argv do
    ids[i - 3] = argv[i]
    records[i - 3] = p .. 'd:' .. argv[3] .. Z .. argv[i]
  end
  records = mget(records)
  for i = 1, #ids do
    local state = ''
    if records[i] then state = facts(records[i]) end
    if state and state ~= kind and redis.call('ZSCORE', key, ids[i]) then reply[#reply + 1] = ids[i] end
  end
  if argv[1] == '1' and #reply > 0 then many('ZREM', key, reply) end
  return reply
end

redis.register_function('@_check_records', check_records)
redis.register_function('@_check_index', check_index)
