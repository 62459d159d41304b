-- The server's time, and stamps and fences out of it, of which none is given out twice.

local TRACKS = 8        -- lengths of leases that hosts may ask for side by side, each to the microsecond

local function num(value)
  return string.format('%.0f', value)
end

-- A stamp as text. Those that follow one another differ in their last digits, and printing a number is dear.
local LAST = {}
for i = 0, 999 do LAST[i] = (i < 10 and '00' or i < 100 and '0' or '') .. i end
local thousands, beginning = nil, nil
local function stamp_text(stamp)
  local last = stamp % 1000
  if stamp - last ~= thousands then
    thousands = stamp - last
    beginning = num(thousands / 1000)
  end
  return beginning .. LAST[last]
end

-- The server's time in microseconds.
local function time()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- The next stamp that may be given out; `said` is what u says.
local function next_stamp(said, now)
  local last = tonumber(said or '0')
  return last >= now and last + 1 or now
end

local function stamped(p, last)
  redis.call('SET', p .. 'u', num(last))
end

-- Gives out `count` stamps and returns the first.
local function stamps(p, now, count)
  local first = next_stamp(redis.call('GET', p .. 'u'), now)
  stamped(p, first + count - 1)
  return first
end

-- The fence of a lease that is to last until `ends`: some microseconds later, and never given out again,
-- though hosts ask for leases of different lengths. Fences of a track only grow, and no two tracks share one:
-- the first track that is not past `ends` yet gives it, so there are as many in use as there are lengths. When
-- all are past it, as with more lengths than tracks, the lease lasts longer than was asked.
-- `said` is what U says; returns the fence and what U is to say.
local function fence_after(said, ends)
  local last = {}
  for fence in string.gmatch(said or '', '%d+') do last[#last + 1] = tonumber(fence) end
  local track, fence = 1, ends + TRACKS - ends % TRACKS
  while track < TRACKS and (last[track] or 0) >= fence do
    track = track + 1
    fence = fence + 1
  end
  last[track] = math.max(fence, (last[track] or 0) + TRACKS)
  fence = last[track]
  for i = 1, #last do last[i] = num(last[i]) end
  return fence, table.concat(last, ' ')
end
