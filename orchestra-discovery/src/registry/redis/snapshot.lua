-- The revision, and then member, record and override of each.
local service = ARGV[3]
local services = {}
if service ~= '' then
  services[1] = service
else
  local known = {}
  for _, member in ipairs(redis.call('ZRANGE', due, 0, -1)) do
    local slash = string.find(member, '/', 1, true)
    local name = slash and string.sub(member, 1, slash - 1)
    if name and not known[name] then
      known[name] = true
      services[#services + 1] = name
    end
  end
end
local overridden = redis.call('HLEN', forced) > 0
local reply = {redis.call('HGET', meta, 'revision')}
for _, name in ipairs(services) do
  local pairs_ = redis.call('HGETALL', table_of .. name)
  for at = 1, #pairs_, 2 do
    local member = name .. '/' .. pairs_[at]
    reply[#reply + 1] = member
    reply[#reply + 1] = pairs_[at + 1]
    reply[#reply + 1] = overridden and redis.call('HGET', forced, member) or ''
  end
end
return reply
