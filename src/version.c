/* SPDX-License-Identifier: MIT */
/* What the library calls itself and its results. */
#include "base.h"

#define TEXT(n) #n
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

EXPORT const char *shoal_version(void)
{
	return VERSION(SHOAL_VERSION_MAJOR, SHOAL_VERSION_MINOR, SHOAL_VERSION_PATCH);
}

EXPORT const char *shoal_strerror(int code)
{
	switch (code) {
	case SHOAL_OK: return "ok";
	case SHOAL_MISS: return "no value";
	case SHOAL_REFRESH: return "a stale value, to be refreshed by the caller";
	case SHOAL_LEAD: return "no value, to be loaded by the caller";
	case SHOAL_WAIT: return "no value, being loaded by another";
	case SHOAL_ERR_SYSTEM: return "a system call failed (errno)";
	case SHOAL_ERR_INVALID: return "invalid argument, or not a regular file";
	case SHOAL_ERR_TOO_BIG: return "too big (max_entry, or the caller's buffer)";
	case SHOAL_ERR_NO_SPACE: return "no space: every extent is pinned or in use";
	case SHOAL_ERR_TIMEOUT: return "timed out waiting for another's load (wait_ms)";
	case SHOAL_ERR_LOAD: return "the load failed (load_error)";
	case SHOAL_ERR_BUSY: return "no permit to load (max_loads, wait_ms)";
	case SHOAL_ERR_SUPERSEDED: return "superseded by something newer";
	case SHOAL_ERR_DEADLOCK: return "a loader asks for the key it is loading";
	case SHOAL_ERR_LAYOUT: return "not a segment, or of another layout version or time namespace";
	case SHOAL_ERR_CORRUPT: return "corrupt segment (size or header checksum)";
	case SHOAL_ERR_PERMISSION: return "segment of an owner or mode that is not trusted, or not writable";
	case SHOAL_ERR_LIMIT: return "a limit of the segment: max_processes, max_threads, max_flights or max_keyspaces";
	case SHOAL_ERR_EXISTS: return "the segment exists";
	case SHOAL_ERR_NOT_FOUND: return "no such segment or keyspace";
	}
	return "unknown code";
}
