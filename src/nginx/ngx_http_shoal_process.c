/* SPDX-License-Identifier: MIT */
/*
 * Segments and processes: the master makes or attaches the segments before it forks, so that old workers and new ones
 * share them; a worker adds what wakes it to its events, and recovers what one before it may have died with.
 */

#include "ngx_http_shoal.h"

#include <sys/socket.h>


static void
ngx_http_shoal_log(enum shoal_level level, const char *text, void *arg)
{
    ngx_uint_t  n;

    n = level == SHOAL_LOG_ERROR ? NGX_LOG_ERR
        : level == SHOAL_LOG_WARNING ? NGX_LOG_WARN : NGX_LOG_INFO;

    ngx_log_error(n, ngx_cycle->log, 0, "shoal: %s", text);
}


static void
ngx_http_shoal_close(void *data)
{
    ngx_http_shoal_zone_t *zone = data;

    /* a worker that ends may have values in hand: its death gives all back */

    if (ngx_process != NGX_PROCESS_WORKER) {
        shoal_close(zone->cache);
        zone->cache = NULL;
    }
}


/* the workers' user may open it, too */

static void
ngx_http_shoal_chown(ngx_cycle_t *cycle, ngx_http_shoal_zone_t *zone,
    ngx_uid_t user)
{
    u_char  path[NGX_MAX_PATH];

    if (geteuid() != 0 || user == (ngx_uid_t) NGX_CONF_UNSET_UINT) {
        return;
    }

    (void) ngx_snprintf(path, NGX_MAX_PATH, "/dev/shm/shoal.%V.v%ud%Z",
                        &zone->name, shoal_layout());

    if (chown((const char *) path, user, (gid_t) -1) == -1) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, ngx_errno,
                      "chown(\"%s\", %d) failed", path, user);
    }
}


/* a segment that was there already keeps its own but for the size; nothing else would tell */

static void
ngx_http_shoal_compare(ngx_cycle_t *cycle, ngx_http_shoal_zone_t *zone,
    struct shoal_info *info)
{
    if ((zone->max_entry == 0
         || info->max_entry == ngx_min(zone->max_entry, info->size / 64))
        && info->max_loads == zone->max_loads)
    {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                  "shoal_zone \"%V\": its segment was made with max_entry=%uz "
                  "max_loads=%ud (0: any number), which stay until it is "
                  "removed", &zone->name, info->max_entry, info->max_loads);
}


static ngx_int_t
ngx_http_shoal_open(ngx_cycle_t *cycle, ngx_http_shoal_zone_t *zone)
{
    int                   rc;
    ngx_int_t             workers;
    struct shoal_info     info;
    ngx_core_conf_t      *ccf;
    ngx_pool_cleanup_t   *cln;
    struct shoal_config   config;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    ngx_memzero(&config, sizeof(struct shoal_config));
    config.size = zone->size;
    config.max_entry = zone->max_entry;
    config.max_loads = (unsigned) zone->max_loads;
    config.log = ngx_http_shoal_log;

    if (ccf->user != (ngx_uid_t) NGX_CONF_UNSET_UINT) {
        config.owner = ccf->user;
    }

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    rc = shoal_open((char *) zone->name.data, &config, &zone->cache);
    if (rc != SHOAL_OK) {
        zone->cache = NULL;
        ngx_log_error(NGX_LOG_EMERG, cycle->log,
                      rc == SHOAL_ERR_SYSTEM ? ngx_errno : 0,
                      "shoal_zone \"%V\": %s", &zone->name,
                      shoal_strerror(rc));
        return NGX_ERROR;
    }

    cln->handler = ngx_http_shoal_close;
    cln->data = zone;

    ngx_http_shoal_chown(cycle, zone, ccf->user);

    if (shoal_info(zone->cache, &info) == SHOAL_OK && info.size != zone->size) {
        rc = shoal_resize(zone->cache, zone->size);
        if (rc != SHOAL_OK) {
            ngx_log_error(NGX_LOG_ERR, cycle->log,
                          rc == SHOAL_ERR_SYSTEM ? ngx_errno : 0,
                          "shoal_zone \"%V\" stays at %uz bytes: %s",
                          &zone->name, info.size, shoal_strerror(rc));
        }
    }

    rc = shoal_info(zone->cache, &info);
    if (rc != SHOAL_OK) {
        return NGX_ERROR;
    }

    ngx_http_shoal_compare(cycle, zone, &info);

    workers = ccf->worker_processes > 0 ? ccf->worker_processes : 1;
    zone->entry_limit = info.max_entry;
    zone->held_max = ngx_max(info.extents / 8 / workers, 1);

    return NGX_OK;
}


static uint32_t
ngx_http_shoal_msec(ngx_msec_t msec)
{
    return msec == 0 ? SHOAL_NONE
                     : (uint32_t) ngx_min(msec, (ngx_msec_t) SHOAL_FOREVER - 1);
}


static ngx_int_t
ngx_http_shoal_open_keyspace(ngx_cycle_t *cycle,
    ngx_http_shoal_loc_conf_t *slcf)
{
    int                  rc;
    char                 name[64];
    struct shoal_policy  policy;

    if (slcf->keyspace_name.len >= sizeof(name)) {
        rc = SHOAL_ERR_INVALID;

    } else {
        (void) ngx_cpystrn((u_char *) name, slcf->keyspace_name.data,
                           slcf->keyspace_name.len + 1);

        ngx_memzero(&policy, sizeof(struct shoal_policy));
        policy.fresh_ms = ngx_http_shoal_msec(slcf->fresh);
        policy.stale_ms = ngx_http_shoal_msec(slcf->stale);
        policy.error_ms = ngx_http_shoal_msec(slcf->stale_error);
        policy.retry_ms = ngx_http_shoal_msec(slcf->retry);
        policy.wait_ms = ngx_http_shoal_msec(slcf->wait);
        policy.schema = NGX_HTTP_SHOAL_SCHEMA;

        rc = shoal_keyspace_open(slcf->zone->cache, name,
                                 (uint32_t) slcf->version, &policy,
                                 &slcf->keyspace);
    }

    if (rc != SHOAL_OK) {
        slcf->keyspace = NULL;
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "shoal keyspace \"%V\": %s", &slcf->keyspace_name,
                      shoal_strerror(rc));
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * At a start an error here ends nginx. On a reload it would end the master under its workers, so there a zone that
 * can't be had is done without.
 */

ngx_int_t
ngx_http_shoal_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i, reload;
    ngx_http_shoal_zone_t       **zones;
    ngx_http_shoal_loc_conf_t   **locations;
    ngx_http_shoal_main_conf_t   *smcf;

    smcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_shoal_module);

    if (smcf == NULL || ngx_test_config) {
        return NGX_OK;
    }

    reload = !ngx_is_init_cycle(cycle->old_cycle);
    zones = smcf->zones.elts;
    locations = smcf->locations.elts;

    for (i = 0; i < smcf->zones.nelts; i++) {
        if (ngx_http_shoal_open(cycle, zones[i]) != NGX_OK && !reload) {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < smcf->locations.nelts; i++) {
        if (locations[i]->zone->cache
            && ngx_http_shoal_open_keyspace(cycle, locations[i]) != NGX_OK
            && !reload)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_shoal_add_poll(ngx_cycle_t *cycle, ngx_http_shoal_zone_t *zone)
{
    int                fd;
    ngx_connection_t  *c;

    /* a worker may have died, and this one be in its place */

    (void) shoal_reap(zone->cache);

    fd = shoal_poll_fd(zone->cache);
    if (fd < 0) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0, "shoal_poll_fd(): %s",
                      shoal_strerror(fd));
        return NGX_OK;   /* who would wait goes to the origin then */
    }

    c = ngx_get_connection(fd, cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->data = zone;
    c->read->handler = ngx_http_shoal_poll;
    c->read->log = cycle->log;
    c->write->log = cycle->log;
    c->read->channel = 1;        /* none of a client's, and none to wait for */
    c->write->channel = 1;

    return ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT);
}


ngx_int_t
ngx_http_shoal_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_http_shoal_zone_t       **zones;
    ngx_http_shoal_main_conf_t   *smcf;

    smcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_shoal_module);

    if (smcf == NULL
        || smcf->zones.nelts == 0
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    smcf->socket = socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0);
    if (smcf->socket == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_socket_errno,
                      "socket(AF_UNIX) failed");
        return NGX_ERROR;
    }

    zones = smcf->zones.elts;

    for (i = 0; i < smcf->zones.nelts; i++) {
        zones[i]->held = 0;

        if (zones[i]->cache
            && ngx_http_shoal_add_poll(cycle, zones[i]) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * Those who wait for a worker that is told to end at once take over at once. One that may end in peace has no request
 * in hand and leaves; the other's death gives back what it has.
 */

void
ngx_http_shoal_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_queue_t                  *q;
    ngx_http_shoal_fill_t        *fill;
    ngx_http_shoal_zone_t       **zones;
    ngx_http_shoal_main_conf_t   *smcf;

    smcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_shoal_module);
    if (smcf == NULL) {
        return;
    }

    for (q = ngx_queue_head(&smcf->fills);
         q != ngx_queue_sentinel(&smcf->fills);
         q = ngx_queue_next(q))
    {
        fill = ngx_queue_data(q, ngx_http_shoal_fill_t, queue);
        shoal_load_cancel(fill->load);
        fill->load = NULL;
    }

    if (ngx_process != NGX_PROCESS_WORKER || ngx_terminate || !ngx_exiting) {
        return;
    }

    zones = smcf->zones.elts;

    for (i = 0; i < smcf->zones.nelts; i++) {
        shoal_close(zones[i]->cache);
        zones[i]->cache = NULL;
    }
}
