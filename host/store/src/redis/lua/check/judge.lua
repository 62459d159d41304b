local LOOKS = 1000000    -- entries of lanes looked through by one call, roughly
local FEW_SUSPECTS = 4   -- of more at once lanes are read once for all

-- How often each of these entries is in a list, by reading it once: for more than a few of them that is
-- less work than looking for one after the other.
local function tally(key, entries)
  local counts, start = {}, 0
  while true do
    local some = redis.call('LRANGE', key, start, start + CHUNK - 1)
    for i = 1, #some do
      local entry = some[i]
      if entries[entry] then counts[entry] = (counts[entry] or 0) + 1 end
    end
    if #some < CHUNK then return counts end
    start = start + CHUNK
  end
end

-- Where an open delivery should be or an entry was seen: lists with how often, and sets.
-- `wanted` are the entries that will be asked for, if they are many, and `known` what was counted of them.
local function places_of(p, tenant, id, endpoint, forms, wanted, known)
  local found, looked = { lists = {}, total = 0 }, 0
  found.waiting = tenant .. Z .. endpoint .. Z .. id
  found.waits = redis.call('ZSCORE', p .. 'w', found.waiting) and 1 or 0
  for again = 0, 1 do
    local key = p .. 'q:' .. tenant .. Z .. endpoint .. (again == 1 and Z or '')
    local length = redis.call('LLEN', key)
    if length > 0 then
      if wanted and not known[key] then
        known[key] = tally(key, wanted)
        looked = looked + length * #forms
      end
      for f = 1, #forms do
        local count
        if wanted then
          count = known[key][forms[f]] or 0
        else
          count = #redis.call('LPOS', key, forms[f], 'COUNT', 0)
          looked = looked + length
        end
        if count > 0 then
          found.lists[#found.lists + 1] = { key, forms[f], count }
          found.total = found.total + count
        end
      end
    end
  end
  return found, looked
end

-- Takes a delivery out of lanes and the waiting set, but for one entry if that is to be kept.
local function cleared(p, found, keep, known)
  for i = 1, #found.lists do
    local key, form, count = unpack(found.lists[i])
    local left = keep and 1 or 0
    keep = false
    count = count - left
    -- It may be suspected once more in this call.
    if known and known[key] then known[key][form] = left end
    -- From the end, so that it keeps its turn.
    if count > 0 then redis.call('LREM', key, -count, form) end
  end
  if found.waits > 0 then redis.call('ZREM', p .. 'w', found.waiting) end
end

-- ARGV: mend, channel, ms until what was lost is due at the soonest, then per suspect: tenant, id,
-- endpoint and entry of the lane where it was seen (or empty), and the time in ms when it is due.
-- Reply: for as many as could be looked at, - for one in its place, L for an open one that was
-- nowhere, D for one in two places, S for an entry without an open delivery, O for one that goes out of
-- turn; and with it the name of its sequence, if it is to be in one.
--
-- Nobody gets the turn of a sequence here: who has it already may not be looked at yet.
--
-- What was lost goes to the waiting set, whatever its state: there it is found by its name, so that
-- it cannot be put back twice, and lanes stay short while very many are looked for in them.
local function judge(keys, argv)
  local p, mend = keys[1], argv[1] == '1'
  local reply, looked, lost = {}, 0, {}
  local now = math.floor(time() / 1000)
  local wanted, known = nil, {}
  if #argv > 3 + 5 * FEW_SUSPECTS then
    wanted = {}
    local records = {}
    for i = 4, #argv, 5 do records[#records + 1] = p .. 'd:' .. argv[i] .. Z .. argv[i + 1] end
    records = mget(records)
    for n = 1, #records do
      local i = 4 + (n - 1) * 5
      wanted['-' .. argv[i + 1]] = true
      wanted[argv[i + 3]] = true
      if records[n] then wanted[string.sub(records[n], 1, 16) .. argv[i + 1]] = true end
    end
  end
  for i = 4, #argv, 5 do
    if looked > LOOKS then break end
    local tenant, id, seen, entry = argv[i], argv[i + 1], argv[i + 2], argv[i + 3]
    local member = tenant .. Z .. id
    local value = redis.call('GET', p .. 'd:' .. member)
    local state, endpoint = open(value)
    local verdict, name = '-', nil
    if state ~= nil then
      local forms = { '-' .. id }
      if value then forms[2] = string.sub(value, 1, 16) .. id end
      if entry ~= '' and entry ~= forms[1] and entry ~= forms[2] then forms[#forms + 1] = entry end
      local leased = redis.call('ZSCORE', p .. 'l', member)
      local home, other, more, stands
      if state then
        home, more = places_of(p, tenant, id, endpoint, forms, wanted, known)
        looked = looked + more
        stands, name = standing(p, tenant, endpoint, id, value)
      end
      if seen ~= '' and seen ~= endpoint then
        other, more = places_of(p, tenant, id, seen, forms, wanted, known)
        looked = looked + more
      end
      local there = home and home.total + home.waits or 0
      local behind = stands == 'behind' and 1 or 0
      local turn = name and p .. 'g:' .. name
      local astray = other and other.total + other.waits or 0
      if not state then
        if leased or astray > 0 then
          verdict = 'S'
          if mend and leased then redis.call('ZREM', p .. 'l', member) end
        end
      elseif not leased and there + behind == 0 then
        verdict = 'L'
        if mend and stands == 'out' then
          redis.call('ZADD', turn, string.sub(value, 1, 16), id)
        elseif mend then
          lost[#lost + 1] = num(math.max(now + tonumber(argv[3]), tonumber(argv[i + 4])))
          lost[#lost + 1] = home.waiting
        end
      elseif (leased and 1 or 0) + there + astray + behind > 1 then
        verdict = 'D'
      elseif stands == 'out' then
        verdict = 'O'
        if mend then
          local first = redis.call('ZRANGE', turn, 0, 0, 'WITHSCORES')
          if leased or not first[2] or tonumber(first[2]) ~= 0 then
            redis.call('ZADD', turn, 0, id)
          else
            cleared(p, home, false, known)
            redis.call('ZADD', turn, string.sub(value, 1, 16), id)
          end
        end
      end
      if mend and verdict ~= '-' then
        if home and verdict == 'D' and (leased or there > 1 or behind > 0) then
          cleared(p, home, not leased and behind == 0 and home.total > 0, known)
          -- What is leased may just be sent: it is its turn by now.
          if leased and turn then redis.call('ZADD', turn, 0, id) end
          if stands == 'out' and not leased then redis.call('ZADD', turn, string.sub(value, 1, 16), id) end
        end
        if other then cleared(p, other, false, known) end
      end
    end
    reply[#reply + 1] = name and verdict .. name or verdict
  end
  if #lost > 0 then
    many('ZADD', p .. 'w', lost, 2)
    if argv[2] ~= '' then redis.call('PUBLISH', argv[2], p) end
  end
  return reply
end

redis.register_function('@_judge', judge)
