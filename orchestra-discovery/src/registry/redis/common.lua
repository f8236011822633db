-- KEYS: bookkeeping, the log of changes, deadlines, overrides, the beginning of the names of the services' tables.
-- ARGV: the run of the server, how many changes are remembered, and what the operation takes.
-- Numbers in Lua are doubles: revisions and incarnations pass through as text, and are never computed with.
local meta, log, due, forced, table_of = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function whole(number)
  return string.format('%.0f', number)
end

local function advance()
  redis.call('HINCRBY', meta, 'revision', 1)
  return redis.call('HGET', meta, 'revision')
end

local function remember(revision, member, gone, why, present)
  local function add()
    return redis.pcall('XADD', log, 'MAXLEN', '=', ARGV[2], revision .. '-0', 'key', member,
      'gone', gone, 'why', why, 'present', present, 'forced', redis.call('HGET', forced, member) or '')
  end
  local added = add()
  if type(added) == 'table' and added.err then
    -- Somebody else wrote there: watches are better told to start anew than never told anything.
    redis.call('DEL', log)
    add()
  end
end

local function place(member)
  local slash = string.find(member, '/', 1, true)
  if not slash then return table_of, member end
  return table_of .. string.sub(member, 1, slash - 1), string.sub(member, slash + 1)
end

-- Incarnation, ttl in microseconds, status and text of what is held; nothing if it is none of ours.
local function held(member)
  local name, id = place(member)
  local record = redis.call('HGET', name, id)
  if not record then return nil end
  return string.match(record, '^(%d+) (%d+) (%l+) (.*)$')
end

local function put(member, deadline, record)
  local name, id = place(member)
  redis.call('HINCRBY', meta, 'bytes', #record - redis.call('HSTRLEN', name, id))
  redis.call('HSET', name, id, record)
  if deadline then redis.call('ZADD', due, whole(deadline), member) end
end

local function take(member)
  local name, id = place(member)
  redis.call('HINCRBY', meta, 'bytes', 0 - redis.call('HSTRLEN', name, id))
  redis.call('HDEL', name, id)
  redis.call('ZREM', due, member)
end

local function remove(member, incarnation, why)
  remember(advance(), member, incarnation, why, '')
  take(member)
end

-- The incarnation of a lease that is refused is told: `lost`, or who replaced it.
local function owned(member, incarnation)
  local current, ttl, status, text = held(member)
  if not current then return nil, {'lost'} end
  if current ~= incarnation then return nil, {'replaced', current} end
  return {ttl = tonumber(ttl), status = status, text = text}
end

-- A server that started anew may have lost its last writes, or all of them.
if redis.call('HGET', meta, 'run') ~= ARGV[1] then
  local base = math.floor(now / 1000) * 1048576
  if (tonumber(redis.call('HGET', meta, 'revision') or '0') or 0) < base then
    redis.call('HSET', meta, 'revision', whole(base))
  else
    redis.call('HINCRBY', meta, 'revision', 1048576)
  end
  redis.call('HSET', meta, 'run', ARGV[1])
  redis.call('DEL', log)
  -- Nobody could renew while it was down.
  for _, member in ipairs(redis.call('ZRANGE', due, 0, -1)) do
    local incarnation, ttl = held(member)
    if incarnation then
      local deadline = math.max(now + tonumber(ttl), tonumber(redis.call('ZSCORE', due, member)))
      redis.call('ZADD', due, whole(deadline), member)
    end
  end
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now))) do
  local incarnation = held(member)
  if incarnation then remove(member, incarnation, 'expired') else take(member) end
end
