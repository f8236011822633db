local member, wanted, most = ARGV[3], ARGV[4], ARGV[5]
local before = redis.call('HGET', forced, member) or ''
if wanted == '' then
  redis.call('HDEL', forced, member)
else
  if before == '' and redis.call('HLEN', forced) >= tonumber(most) then
    return {'full', 'overrides', most}
  end
  redis.call('HSET', forced, member, wanted)
end
if before ~= wanted and held(member) then
  local name, id = place(member)
  remember(advance(), member, '', '', redis.call('HGET', name, id))
end
return {'done'}
