/* SPDX-License-Identifier: MIT */
/*
 * The lock of a key. Its words, one after the other:
 *
 *     id        of the last delete or expire of the key, random; zeros: none that is remembered
 *     machine   whose lock it is: the id of a segment, which all its processes know
 *     token     of the load, random
 *
 * An id alone is a tombstone: nobody loads, but whoever began before the delete can be told from who began after it.
 * Who takes the lock takes the id along, and who lets go leaves it, so it stays until nobody has loaded the key for a
 * while (the tombstone's life, twice the lease).
 *
 *   free -> held         look: there is no value, or no fresh one. In the same step as the look: a value that was
 *                        stored in between is seen, so there is never a second load because of it
 *   held -> held         look by the same machine. A segment has one load for each key, so the holder has died, or is
 *                        overdue: its heir goes on at once
 *   held -> free         store, with the value; or let go; or the lease is over
 *   any  -> tombstone    delete, expire
 *
 * S.1  A value is stored by who holds the lock: a load that began before a delete, or that outlived its lease, stores
 *      nothing, whatever came in between.
 * S.2  A load that began before a delete is told so (DELETED) as long as the tombstone stands: its machine doesn't keep
 *      the value, either. LOST: its lease ended, or it never held the lock. Its machine keeps the value.
 * S.3  Time is Redis's own. Ages are of its clock, and what is stored ends by itself.
 *
 * If a holder dies at any step: with the value stored the lock is free, in one step; before, it ends with its lease.
 */
#include "script.h"

#define NOW                                                                                                            \
	"local t = redis.call('TIME')\n"                                                                               \
	"local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
#define NUMBER                                                                                                         \
	"local function number(v, at)\n"                                                                               \
	"  local a, b, c, d = string.byte(v, at, at + 3)\n"                                                            \
	"  return a + b * 256 + c * 65536 + d * 16777216\n"                                                            \
	"end\n"
#define LET_GO /* of the lock, with what is remembered of deletes */                                                   \
	"local function let_go(life)\n"                                                                                \
	"  local id = string.sub(ARGV[1], 1, 16)\n"                                                                    \
	"  if id == '" SCRIPT_NO_DELETE "' then\n"                                                                     \
	"    redis.call('DEL', KEYS[2])\n"                                                                             \
	"  else\n"                                                                                                     \
	"    redis.call('SET', KEYS[2], id, 'PX', life)\n"                                                             \
	"  end\n"                                                                                                      \
	"end\n"
#define IF_HELD                                                                                                        \
	"local held = redis.call('GET', KEYS[2])\n"                                                                    \
	"if held ~= ARGV[1] then\n"                                                                                    \
	"  if held and string.sub(held, 1, 16) ~= string.sub(ARGV[1], 1, 16) then return -1 end\n"                     \
	"  return 0\n"                                                                                                 \
	"end\n"

const char *const script_text[SCRIPTS] = {
	[SCRIPT_LOOK] = NOW NUMBER
	"local v = redis.call('GET', KEYS[1])\n"
	"local age = -1\n"
	"if v then\n"
	"  if ARGV[5] == '0' and #v >= 48 and #v <= tonumber(ARGV[4]) and string.sub(v, 17, 24) == ARGV[1] then\n"
	"    age = math.max(now - (tonumber(string.sub(v, 1, 16)) or 0), 0)\n"
	"    local fresh = number(v, 25)\n"
	"    local early = tonumber(ARGV[6])\n"
	"    if (fresh == 4294967294 or age < fresh) and (early < 0 or age < early) then\n"
	"      return {v, age, redis.call('PTTL', KEYS[1]), 3, ''}\n"
	"    end\n"
	"  else\n"
	"    v = false\n"
	"    age = -2\n"
	"  end\n"
	"end\n"
	"local lock = 1\n"
	"local held = redis.call('GET', KEYS[2]) or '" SCRIPT_NO_DELETE "'\n"
	"local id = string.sub(held, 1, 16)\n"
	"if #held > 16 then\n"
	"  lock = string.sub(held, 17, 32) == string.sub(ARGV[2], 1, 16) and 2 or 0\n"
	"end\n"
	"if lock ~= 0 then redis.call('SET', KEYS[2], id .. ARGV[2], 'PX', ARGV[3]) end\n"
	"return {v, age, redis.call('PTTL', KEYS[1]), lock, id}\n",
	[SCRIPT_STORE] = IF_HELD NOW LET_GO "local v = string.format('%016.0f', now) .. ARGV[2]\n"
					    "if ARGV[3] == '0' then\n"
					    "  redis.call('SET', KEYS[1], v)\n"
					    "else\n"
					    "  redis.call('SET', KEYS[1], v, 'PX', ARGV[3])\n"
					    "end\n"
					    "let_go(ARGV[4])\n"
					    "return 1\n",
	[SCRIPT_HOLD] = IF_HELD LET_GO
	"if ARGV[2] == '0' then let_go(ARGV[3]) else redis.call('PEXPIRE', KEYS[2], ARGV[2]) end\n"
	"return 1\n",
	[SCRIPT_DELETE] = "redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])\n"
			  "return redis.call('DEL', KEYS[1])\n",
	[SCRIPT_EXPIRE] = /* as if it had been stored just so long ago that its fresh life is over */
	NOW NUMBER
	"redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])\n"
	"local v = redis.call('GETRANGE', KEYS[1], 0, 47)\n"
	"if #v < 48 or string.sub(v, 17, 20) ~= 'SHR1' then return redis.call('DEL', KEYS[1]) end\n"
	"local fresh, stale, error = number(v, 25), number(v, 29), number(v, 33)\n"
	"if stale == 0 or fresh == 4294967294 then return redis.call('DEL', KEYS[1]) end\n"
	"local stored = tonumber(string.sub(v, 1, 16)) or 0\n"
	"redis.call('SETRANGE', KEYS[1], 0, string.format('%016.0f', math.max(math.min(stored, now - fresh), 0)))\n"
	"if stale ~= 4294967294 and error ~= 4294967294 then\n"
	"  local left = redis.call('PTTL', KEYS[1])\n"
	"  if left < 0 or left > stale + error then redis.call('PEXPIRE', KEYS[1], stale + error) end\n"
	"end\n"
	"return 1\n",
};
