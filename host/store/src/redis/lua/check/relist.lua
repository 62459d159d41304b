local LISTED = 500      -- entries of a stream taken over by one call

-- ARGV: tenant, the last entry of its new stream as it was left (or empty to begin one), then stamp and id of
-- deliveries in turn. Goes on with a stream of all that is made anew. Reply: its last entry; nothing when
-- somebody else is at it.
local function relist(keys, argv)
  local p, tenant = keys[1], argv[1]
  local new = p .. 'I:' .. tenant
  if argv[2] == '' then
    redis.call('DEL', new)
  elseif last_entry(new) ~= argv[2] then
    return ''
  end
  local first, ids = nil, {}
  local function entry()
    if #ids > 0 then redis.call('XADD', new, num(first) .. '-0', 'd', table.concat(ids, Z)) end
    ids = {}
  end
  for i = 3, #argv, 2 do
    local stamp = tonumber(argv[i])
    if #ids == ENTRY or (#ids > 0 and stamp ~= first + #ids) then entry() end
    if #ids == 0 then first = stamp end
    ids[#ids + 1] = argv[i + 1]
  end
  entry()
  return last_entry(new)
end

-- ARGV: tenant, the last entry of its new stream as it was left. Takes over what was enqueued meanwhile, and
-- once that is all has the new stream take the place of the old. Reply: the last entry to go on with, `done`,
-- or nothing when somebody else is at it.
local function relisted(keys, argv)
  local p, tenant = keys[1], argv[1]
  local new, old = p .. 'I:' .. tenant, p .. 'i:' .. tenant
  if last_entry(new) ~= argv[2] then return '' end
  local entries = redis.call('XRANGE', old, '(' .. argv[2], '+', 'COUNT', LISTED)
  for e = 1, #entries do redis.call('XADD', new, entries[e][1], 'd', entries[e][2][2]) end
  if #entries == LISTED then return entries[LISTED][1] end
  redis.call('RENAME', new, old)
  return 'done'
end

redis.register_function('@_relist', relist)
redis.register_function('@_relisted', relisted)
