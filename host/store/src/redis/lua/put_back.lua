-- Leases that end without an outcome.

local RECLAIM = 250     -- expired leases put back per lease call
local UNREADABLE = 60000000 -- in us: so long a lease goes on whose record cannot be read

-- Ends leases and puts back what they hold, before what waits in the lane.
local function put_back(p, members, stamp, channel, me)
  local records = {}
  for i = 1, #members do records[i] = p .. 'd:' .. members[i] end
  records = mget(records)
  local queues, counts, ended, unreadable = {}, {}, {}, {}
  -- From the last to the first, because each goes to the front.
  for i = #members, 1, -1 do
    local endpoint, _ = nil, nil
    if records[i] then _, _, endpoint = envelope(records[i]) end
    if records[i] and not endpoint then
      -- Its lane cannot be told, so it stays where it is and is looked at again: a repair may have mended it, or an
      -- upgraded host knows it.
      unreadable[#unreadable + 1] = num(stamp + UNREADABLE)
      unreadable[#unreadable + 1] = members[i]
    else
      ended[#ended + 1] = members[i]
    end
    -- What has no record any more was evicted or deleted by hand: only repair can tell its lane.
    if endpoint then
      local cut = string.find(members[i], Z, 1, true)
      local lane = string.sub(members[i], 1, cut) .. endpoint
      add(queues, lane, '-' .. string.sub(members[i], cut + 1))
      counts[lane] = (counts[lane] or 0) + 1
    end
  end
  many('ZREM', p .. 'l', ended)
  many('ZADD', p .. 'l', unreadable, 2)
  local quiet = is_quiet(p)
  landed(p, counts, function() return stamp end)
  queue(p, queues, stamp, 'LPUSH')
  -- There may be more than who asks can take: also what the endpoint's cap kept back.
  wake(p, channel, me, quiet)
end

-- Puts back what this host was leased and never heard of. `heard` is the fence of the last lease that it knows
-- of: it makes one call after the other, so what a later one leased was lost with the answer, or could not
-- be read.
-- `last` is the fence of the last that there was, which is kept under `key`.
local function put_back_unheard(p, key, last, heard, stamp, channel, me)
  if not last or last == heard then return end
  redis.call('DEL', key)
  local members = redis.call('ZRANGE', p .. 'l', last, last, 'BYSCORE')
  if #members > 0 then put_back(p, members, stamp, channel, me) end
end

-- Puts back what expired leases hold; returns the end of the next lease, in us.
local function reclaim(p, now, stamp, channel, me)
  local key = p .. 'l'
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #head == 0 then return nil end
  if tonumber(head[2]) > now then return tonumber(head[2]) end
  local expired = redis.call('ZRANGE', key, '-inf', num(now), 'BYSCORE', 'LIMIT', 0, RECLAIM)
  put_back(p, expired, stamp, channel, me)
  head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2])
end
