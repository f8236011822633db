-- The revision, the first one remembered, microseconds until a lease may lapse, how many changes were
-- looked at, the revision of the last of them, and then the six fields of each in scope.
local after, service, page = ARGV[3], ARGV[4], ARGV[5]
local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
local entries = redis.call('XRANGE', log, '(' .. after .. '-0', '+', 'COUNT', page)
local reply = {
  redis.call('HGET', meta, 'revision'),
  first[1] and first[1][1] or '',
  next_due[2] and whole(math.max(tonumber(next_due[2]) - now, 0)) or '',
  whole(#entries),
  #entries > 0 and entries[#entries][1] or after .. '-0',
}
for _, entry in ipairs(entries) do
  local fields = {}
  for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
  local member = fields.key or ''
  if service == '' or string.sub(member, 1, #service + 1) == service .. '/' then
    for _, text in ipairs({entry[1], member, fields.gone or '', fields.why or '', fields.present or '', fields.forced or ''}) do
      reply[#reply + 1] = text
    end
  end
end
return reply
