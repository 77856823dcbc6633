-- SPDX-License-Identifier: MIT
-- In each worker of nginx-lua.conf: see script.h.
local ffi = require 'ffi'
ffi.cdef [[
	struct bench_time { long s, ns; };
	int clock_gettime(int clock, struct bench_time *t);
	int usleep(unsigned us);
	void _exit(int status);
]]
local C, dict = ffi.C, ngx.shared.bench
local time = ffi.new('struct bench_time')
local directory = ngx.config.prefix()

local function now()
	C.clock_gettime(1, time)
	return tonumber(time.s) * 1e9 + tonumber(time.ns)
end

local function word_at(text, at)
	local a, b, c, d = text:byte(at, at + 3)
	return a + b * 0x100 + c * 0x10000, d
end

local names, sizes, values, numbers, writes = {}, {}, {}, {}, {}

local function value(number)
	local head = ('\0'):rep(8)
	for shift = 0, 7 do
		head = head .. string.char(math.floor(number / 256 ^ shift) % 256)
	end
	return head .. string.char((number * 31 + 7) % 256):rep(sizes[number] - 16)
end

local function contents(name)
	local f = assert(io.open(directory .. name, 'rb'))
	local text = f:read('*a')
	f:close()
	return text
end

local function prepare()
	local keys, requests = contents('keys'), contents('requests')
	for i = 0, #keys / 24 - 1 do
		local low, high = word_at(keys, i * 24 + 21)
		names[i], sizes[i] = keys:sub(i * 24 + 1, i * 24 + 20), low + high * 0x1000000
	end
	for i = 0, #requests / 4 - 1 do
		local low, high = word_at(requests, i * 4 + 1)
		numbers[i], writes[i] = low + high % 128 * 0x1000000, high >= 128
	end
end

local function fill()
	for i = 0, #names do
		local ok, err = dict:safe_set(names[i], value(i))
		if not ok then
			ngx.log(ngx.ERR, 'key ', i, ': ', err)
			C._exit(1)
		end
	end
	dict:set('filled', true)
end

local at = 0
local function one(access, depends)
	local number = numbers[at]
	local write = access == 'set' or (access == 'mixed' and writes[at])
	at = at + 1
	if not numbers[at] then
		at = 0
	end
	if write then
		return dict:set(names[number], value(number)) and 1 or 0, 0
	end
	local v = dict:get(names[access == 'isolated' and number + depends or number])
	return v and 1 or 0, v and v:byte(1) or 0
end

local function round(access, each, ns, block)
	local times, operations, hits, depends, hit = {}, 0, 0, 0, 0
	local itself, t, to = 1e9, 0, 0
	for _ = 1, 1000 do
		t = now()
		itself = math.min(itself, now() - t)
	end
	local began = now()
	local from = began
	repeat
		if each then
			for _ = 1, block do
				t = now()
				hit, depends = one(access, depends)
				t = math.max(0, now() - t - itself)
				times[t] = (times[t] or 0) + 1
				hits = hits + hit
			end
			to = now()
		else
			for _ = 1, block do
				hit, depends = one(access, depends)
				hits = hits + hit
			end
			to = now()
			t = math.floor((to - from) * 1000 / block)
			times[t] = (times[t] or 0) + 1
		end
		operations = operations + block
		from = to
	until to - began >= ns
	local lines = {('%d %d %d'):format(operations, hits, to - began)}
	for v, n in pairs(times) do
		lines[#lines + 1] = ('%d %d'):format(v, n)
	end
	return table.concat(lines, '\n') .. '\nend\n'
end

local function serve(number)
	local input = assert(io.open(directory .. 'in.' .. number, 'r'))
	local output = assert(io.open(directory .. 'out.' .. number, 'w'))
	for line in input:lines() do
		local what, a, b, c, d = line:match('^(%S+) ?(%S*) ?(%S*) ?(%S*) ?(%S*)')
		if what == 'round' then
			output:write(round(a, b == '1', tonumber(c), tonumber(d)))
		else
			local v = dict:get(a) or ''
			output:write(#v, '\n', v)
		end
		output:flush()
	end
	C.usleep(300000) -- by then our master is told to end, too, and starts no other worker
	C._exit(0)
end

assert(ngx.timer.at(0, function()
	prepare()
	if ngx.worker.id() == 0 then
		fill()
	end
	while not dict:get('filled') do
		C.usleep(10000)
	end
	at = math.floor(#numbers * ngx.worker.id() / ngx.worker.count())
	serve(ngx.worker.id())
end))
