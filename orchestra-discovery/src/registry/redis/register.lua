local member, ttl, status, text, most, most_bytes = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local ghost = held(member)
if not ghost and redis.call('ZCARD', due) >= tonumber(most) then
  return {'full', 'instances', most}
end
local name, id = place(member)
local bytes = tonumber(redis.call('HGET', meta, 'bytes') or '0') + #text - redis.call('HSTRLEN', name, id)
if bytes > tonumber(most_bytes) then
  return {'full', 'bytes', most_bytes}
end
local revision = advance()
local record = revision .. ' ' .. ttl .. ' ' .. status .. ' ' .. text
if ghost then
  remember(revision, member, ghost, 'replaced', record)
else
  remember(revision, member, '', '', record)
end
put(member, now + tonumber(ttl), record)
return {'done', revision}
