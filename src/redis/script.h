/* SPDX-License-Identifier: MIT */
/*
 * What Redis does by itself, in one step each: scripts in Lua over two keys, KEYS[1] the value and KEYS[2] the lock.
 * script.c says what the words of a lock are, and what holds for it.
 */
#ifndef SHOAL_REDIS_SCRIPT_H
#define SHOAL_REDIS_SCRIPT_H

#define SCRIPT_ID 16 /* characters of a delete's id, and of a machine's */
#define SCRIPT_TOKEN 32
#define SCRIPT_LOCK (SCRIPT_ID + SCRIPT_ID + SCRIPT_TOKEN)
#define SCRIPT_NO_DELETE "0000000000000000"

enum script {
	SCRIPT_LOOK,   /* tag, machine and token, lease, largest value, 1 = whatever is there is corrupt, age from which
	                  on a fresh one is to be refreshed, too, or -1
	                  -> value or nil, its age, time to live, enum script_lock, id of the last delete */
	SCRIPT_STORE,  /* the lock, header and value, its life or 0, tombstone's life -> enum script_end */
	SCRIPT_HOLD,   /* the lock, its new lease or 0 = let go, tombstone's life -> enum script_end */
	SCRIPT_DELETE, /* a new id, tombstone's life -> how many values there were */
	SCRIPT_EXPIRE, /* likewise */
	SCRIPTS
};

enum script_lock { SCRIPT_OTHERS, SCRIPT_OURS, SCRIPT_INHERITED, SCRIPT_UNASKED };
enum script_age { SCRIPT_NONE = -1, SCRIPT_MISMATCH = -2 }; /* in place of an age */
enum script_end { SCRIPT_DELETED = -1, SCRIPT_LOST = 0, SCRIPT_DONE = 1 };

extern const char *const script_text[SCRIPTS];

#endif
