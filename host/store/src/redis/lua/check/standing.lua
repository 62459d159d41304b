-- Checking that the structures of a shard agree, and mending them. The files of this folder
-- use what those of the queue define.
--
-- Every call looks at a bounded number of things, and looks again before it changes anything, for
-- hosts work meanwhile. `mend` in ARGV is 1 to repair, or 0 to tell only.

-- State, event, endpoint and attempt of a record; nothing when it is not one that this version reads.
local function facts(value)
  if string.find(value, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d[pfsx][^%z]+%z[^%z]+%z%d+%z') then
    return envelope(value)
  end
end

-- The open state and the endpoint of a record; false for what is missing or finished, nil for what
-- cannot be read and must be left alone.
local function open(value)
  if not value then return false end
  local kind, _, endpoint = facts(value)
  if not kind then return nil end
  if kind == 'p' or kind == 'f' then return kind, endpoint end
  return false
end

-- Where a delivery of this record stands in its sequence: `first`, `behind`, or `out` if it is not in it;
-- nothing if it is to be in none. And the name of the sequence.
local function standing(p, tenant, endpoint, id, value)
  local policy, _, key = sequence(value)
  if not policy then return nil end
  local name = tenant .. Z .. endpoint .. Z .. key
  local score = redis.call('ZSCORE', p .. 'g:' .. name, id)
  if not score then return 'out', name end
  return tonumber(score) == 0 and 'first' or 'behind', name
end

-- Whether it is the turn of an open delivery, or it waits for none.
local function may_go(p, tenant, endpoint, id, value)
  local stands = standing(p, tenant, endpoint, id, value)
  return not stands or stands == 'first'
end

-- The lane without the mark of what is due again.
local function first_lane(lane)
  return string.byte(lane, -1) == 0 and string.sub(lane, 1, -2) or lane
end
