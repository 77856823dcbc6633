/* SPDX-License-Identifier: MIT */
/*
 * A worker process: libmicrohttpd on the listening socket that all workers inherit.
 *
 * One thread per connection. With one thread per worker, a query would also hold up the other connections that happen
 * to live in that worker, in every mode alike, and one could not tell what the cache does from what the event loop
 * does. With a thread per connection a request waits for its own page alone, and one worker's threads meet in the
 * cache as well as the workers do.
 *
 * Who accepts: SO_REUSEPORT hashes connections to workers, which with 64 connections leaves one with three and another
 * with fourteen. On one shared socket the quickest worker would take most. So it is shared, and each worker stops
 * accepting at its share and two more; a killed worker's connections find room in the others. (With select(): with
 * poll() libmicrohttpd goes on accepting at its limit, and resets what it accepted.)
 *
 *	GET  /item/ID[?size=N]   the page
 *	GET  /stats              counters, JSON
 *	POST /expire-all         all cached items expire together
 *	POST /new-keys           a deploy that changes how keys are built, in all workers at once
 *	POST /kill/N?item=ID     the item is forgotten, and the worker that then loads it is killed (once per N)
 */
#include "item.h"

#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PAGE (1 << 20)

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, const char *text)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result rc = MHD_queue_response(connection, status, response);

	MHD_destroy_response(response);
	return rc;
}

static enum MHD_Result answer_error(struct MHD_Connection *connection, int error)
{
	char text[128];

	snprintf(text, sizeof(text), "%s\n", shoal_strerror(error));
	return answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, text);
}

static void page_sent(void *page)
{
	item_release(page);
	free(page);
}

/* The page goes out from where it is, a cached one from the segment itself. */
static enum MHD_Result answer_item(struct site *site, struct MHD_Connection *connection, const char *text)
{
	const char *wanted = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "size");
	unsigned long size = wanted ? strtoul(wanted, NULL, 10) : 0;
	struct item_page *page = malloc(sizeof(*page));
	struct MHD_Response *response;
	enum MHD_Result rc;
	int error;

	if (!page)
		return MHD_NO;
	error = item_get(site, strtoull(text, NULL, 10), size < MAX_PAGE ? size : MAX_PAGE, page);
	if (error) {
		page_sent(page);
		return answer_error(connection, error);
	}
	response = MHD_create_response_from_buffer_with_free_callback_cls(page->size, (void *)(uintptr_t)page->data,
	                                                                  page_sent, page);
	if (!response) {
		page_sent(page);
		return MHD_NO;
	}
	rc = MHD_queue_response(connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return rc;
}

static enum MHD_Result answer_stats(struct site *site, struct MHD_Connection *connection)
{
	struct board *board = site->board;
	struct shoal_stats stats = {0};
	const struct shoal_keyspace_stats *items = &stats.total;
	struct item_hits hits;
	char text[1024];

	if (site->cache)
		shoal_stats(site->cache, &stats);
	item_hits(site, &hits);
	snprintf(text, sizeof(text),
	         "{\"mode\":\"%s\",\"queries\":%llu,\"failures\":%llu,\"killed_loading\":%u,\"kills\":%u,"
	         "\"respawned\":%u,"
	         "\"hits_fresh\":%llu,\"hits_stale\":%llu,\"misses\":%llu,\"loads\":%llu,\"coalesced\":%llu,"
	         "\"takeovers\":%llu,\"timeouts\":%llu,\"busy\":%llu,\"uncached\":%llu,\"entries\":%llu,"
	         "\"evicted_entries\":%llu,\"wait_p99_ms\":%.3f,"
	         "\"epoch\":%u,\"hits\":%llu,\"lookups\":%llu,\"migrated\":%llu}\n",
	         site->mode_name, (unsigned long long)board_get(board, queries),
	         (unsigned long long)board_get(board, failures), board_get(board, killed_loading),
	         board_get(board, kill_done), board_get(board, respawned), (unsigned long long)items->hits_fresh,
	         (unsigned long long)items->hits_stale, (unsigned long long)items->misses,
	         (unsigned long long)items->loads, (unsigned long long)items->coalesced,
	         (unsigned long long)items->takeovers, (unsigned long long)items->timeouts,
	         (unsigned long long)items->busy, (unsigned long long)items->uncached,
	         (unsigned long long)stats.entries, (unsigned long long)stats.evicted_entries, items->wait_p99_ms,
	         hits.epoch, (unsigned long long)hits.hits, (unsigned long long)hits.lookups,
	         (unsigned long long)hits.migrated);
	return answer_text(connection, MHD_HTTP_OK, text);
}

static enum MHD_Result post(struct site *site, struct MHD_Connection *connection, const char *url)
{
	struct board *board = site->board;
	const char *item;
	char text[32];
	int count;

	item = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "item");
	if (!strncmp(url, "/kill/", 6) && item) {
		board_set(board, hot_item, strtoull(item, NULL, 10));
		board_set(board, kill_asked, (uint32_t)strtoul(url + 6, NULL, 10));
		kill(site->master, SIGUSR1);
		item_forget(site, board_get(board, hot_item));
		return answer_text(connection, MHD_HTTP_OK, "ok\n");
	}
	if (!strcmp(url, "/new-keys")) {
		item_use_new_keys(site);
		return answer_text(connection, MHD_HTTP_OK, "ok\n");
	}
	if (!strcmp(url, "/expire-all")) {
		count = item_expire_all(site);
		if (count < 0)
			return answer_error(connection, count);
		snprintf(text, sizeof(text), "%d\n", count);
		return answer_text(connection, MHD_HTTP_OK, text);
	}
	return answer_text(connection, MHD_HTTP_NOT_FOUND, "no such action\n");
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *upload, size_t *upload_size, void **state)
{
	struct site *site = arg;

	if (!*state) { /* the head has come; answer when the body has, too */
		*state = site;
		return MHD_YES;
	}
	if (*upload_size) {
		*upload_size = 0;
		return MHD_YES;
	}
	if (!strcmp(method, MHD_HTTP_METHOD_POST))
		return post(site, connection, url);
	if (!strncmp(url, "/item/", 6))
		return answer_item(site, connection, url + 6);
	if (!strcmp(url, "/stats"))
		return answer_stats(site, connection);
	return answer_text(connection, MHD_HTTP_NOT_FOUND, "no such page\n");
}

int worker_run(struct site *site)
{
	unsigned share = (site->connections + site->workers - 1) / site->workers + 2;
	struct MHD_Daemon *daemon;
	struct shoal_value value;
	uint64_t nothing = UINT64_MAX;
	sigset_t signals;
	int number;

	/* Join the segment while there is one thread: the kernel's part of that is quicker then. */
	if (site->cache && shoal_get(site->items[0], &nothing, sizeof(nothing), &value) == SHOAL_OK)
		shoal_release(&value);

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	daemon = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC, 0,
	                          NULL, NULL, answer, site, MHD_OPTION_LISTEN_SOCKET, site->listen_fd,
	                          MHD_OPTION_CONNECTION_LIMIT, share, MHD_OPTION_THREAD_STACK_SIZE, (size_t)256 << 10,
	                          MHD_OPTION_END);
	if (!daemon) {
		fprintf(stderr, "worker %d: the HTTP server did not start\n", (int)getpid());
		return 1;
	}
	sigwait(&signals, &number);
	MHD_stop_daemon(daemon);
	shoal_close(site->cache);
	return 0;
}
