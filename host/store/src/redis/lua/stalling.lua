-- Endpoints that stall have fewer in flight until they answer again. The numbers are those of `stalling.rs`, which
-- says why.

local STEP = 4          -- attempts that halve what an endpoint may have in flight; an answer doubles it
local HALVED = 7        -- times that it is halved at most
local HOUR = 3600000    -- in ms: what stalled longer ago, and nobody else since, is forgotten
local MOST = 10000      -- endpoints kept. With more, all are forgotten: some attempts, and those that stall are known

-- The fewest that an endpoint may have in flight where others may have `cap`.
local function least(cap)
  return math.max(1, math.floor(cap / 2 ^ HALVED))
end

-- How many it may have, of which S says `said`.
local function part_of(cap, said)
  if not said then return cap end
  return math.max(1, math.floor(cap / 2 ^ math.floor(tonumber(said) / STEP)))
end

-- Notes how many attempts at these endpoints (<tenant> \0 <endpoint>) were answered, and how many stalled.
local function note_reactions(p, answered, stalled)
  local key = p .. 'S'
  local any = next(stalled)
  if not any and redis.call('EXISTS', key) == 0 then return end
  local names = {}
  for name in pairs(answered) do names[#names + 1] = name end
  for name in pairs(stalled) do
    if not answered[name] then names[#names + 1] = name end
  end
  local said, set, gone = ask('HMGET', key, names), {}, {}
  for i = 1, #names do
    local name = names[i]
    local before = tonumber(said[i] or '0')
    local now = math.min(before + (stalled[name] or 0), STEP * HALVED) - STEP * (answered[name] or 0)
    if now > 0 then
      set[#set + 1] = name
      set[#set + 1] = now
    elseif before > 0 then
      gone[#gone + 1] = name
    end
  end
  many('HDEL', key, gone)
  hset(key, set)
  if any then
    redis.call('PEXPIRE', key, HOUR)
    if redis.call('HLEN', key) > MOST then redis.call('DEL', key) end
  end
end
