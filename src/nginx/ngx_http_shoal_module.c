/* SPDX-License-Identifier: MIT */
/* Directives, and the segments: made by the master before it forks, so that old workers and new ones share them. */

#include "ngx_http_shoal.h"

#include <sys/socket.h>
#include <sys/stat.h>


static void *ngx_http_shoal_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_shoal_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_shoal_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_shoal_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_shoal_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_shoal_init_process(ngx_cycle_t *cycle);
static void ngx_http_shoal_exit_process(ngx_cycle_t *cycle);
static void ngx_http_shoal_exit_master(ngx_cycle_t *cycle);
static char *ngx_http_shoal_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_shoal(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_http_shoal_purge(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_shoal_content(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


#define NGX_HTTP_SHOAL_EVERYWHERE                                             \
    NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF


static ngx_conf_bitmask_t  ngx_http_shoal_method_mask[] = {
    { ngx_string("GET"), NGX_HTTP_GET },
    { ngx_string("HEAD"), NGX_HTTP_HEAD },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_shoal_commands[] = {

    { ngx_string("shoal_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_shoal_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("shoal"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE123,
      ngx_http_shoal,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("shoal_key"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE1,
      ngx_http_set_complex_value_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, key),
      NULL },

    { ngx_string("shoal_fresh"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, fresh),
      NULL },

    { ngx_string("shoal_stale"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, stale),
      NULL },

    { ngx_string("shoal_stale_error"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, stale_error),
      NULL },

    { ngx_string("shoal_wait"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, wait),
      NULL },

    { ngx_string("shoal_retry"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, retry),
      NULL },

    { ngx_string("shoal_methods"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_1MORE,
      ngx_conf_set_bitmask_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, methods),
      &ngx_http_shoal_method_mask },

    { ngx_string("shoal_bypass"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_1MORE,
      ngx_http_set_predicate_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, bypass),
      NULL },

    { ngx_string("shoal_no_store"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_1MORE,
      ngx_http_set_predicate_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, no_store),
      NULL },

    { ngx_string("shoal_valid"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_1MORE,
      ngx_http_file_cache_valid_set_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, valid),
      NULL },

    { ngx_string("shoal_purge"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_1MORE,
      ngx_http_shoal_purge,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("shoal_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_shoal_content,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      ngx_http_shoal_metrics_handler },

    { ngx_string("shoal_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_shoal_content,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      ngx_http_shoal_status_handler },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_shoal_module_ctx = {
    ngx_http_shoal_add_variables,          /* preconfiguration */
    ngx_http_shoal_init,                   /* postconfiguration */

    ngx_http_shoal_create_main_conf,       /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_shoal_create_loc_conf,        /* create location configuration */
    ngx_http_shoal_merge_loc_conf          /* merge location configuration */
};


ngx_module_t  ngx_http_shoal_module = {
    NGX_MODULE_V1,
    &ngx_http_shoal_module_ctx,            /* module context */
    ngx_http_shoal_commands,               /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_shoal_init_module,            /* init module */
    ngx_http_shoal_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_shoal_exit_process,           /* exit process */
    ngx_http_shoal_exit_master,            /* exit master */
    NGX_MODULE_V1_PADDING
};


/* directives */


static void *
ngx_http_shoal_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_shoal_main_conf_t  *smcf;

    smcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_shoal_main_conf_t));
    if (smcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&smcf->zones, cf->pool, 2,
                       sizeof(ngx_http_shoal_zone_t *))
        != NGX_OK
        || ngx_array_init(&smcf->locations, cf->pool, 4,
                          sizeof(ngx_http_shoal_loc_conf_t *))
           != NGX_OK)
    {
        return NULL;
    }

    ngx_queue_init(&smcf->fills);
    smcf->socket = (ngx_socket_t) -1;

    return smcf;
}


static void *
ngx_http_shoal_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_shoal_loc_conf_t  *slcf;

    slcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_shoal_loc_conf_t));
    if (slcf == NULL) {
        return NULL;
    }

    slcf->zone = NGX_CONF_UNSET_PTR;
    slcf->fresh = NGX_CONF_UNSET_MSEC;
    slcf->stale = NGX_CONF_UNSET_MSEC;
    slcf->stale_error = NGX_CONF_UNSET_MSEC;
    slcf->wait = NGX_CONF_UNSET_MSEC;
    slcf->retry = NGX_CONF_UNSET_MSEC;
    slcf->bypass = NGX_CONF_UNSET_PTR;
    slcf->no_store = NGX_CONF_UNSET_PTR;
    slcf->purge = NGX_CONF_UNSET_PTR;
    slcf->purge_soft = NGX_CONF_UNSET_UINT;
    slcf->purge_all = NGX_CONF_UNSET_UINT;
    slcf->valid = NGX_CONF_UNSET_PTR;

    return slcf;
}


static char *
ngx_http_shoal_default_key(ngx_conf_t *cf, ngx_http_shoal_loc_conf_t *slcf)
{
    ngx_str_t                          value;
    ngx_http_compile_complex_value_t   ccv;

    ngx_str_set(&value, "$scheme://$host$request_uri");

    slcf->key = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (slcf->key == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = &value;
    ccv.complex_value = slcf->key;

    return ngx_http_compile_complex_value(&ccv) == NGX_OK ? NGX_CONF_OK
                                                          : NGX_CONF_ERROR;
}


static char *
ngx_http_shoal_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_shoal_loc_conf_t *prev = parent;
    ngx_http_shoal_loc_conf_t *conf = child;

    ngx_http_shoal_loc_conf_t   **location;
    ngx_http_shoal_main_conf_t   *smcf;

    if (conf->zone == NGX_CONF_UNSET_PTR) {
        conf->keyspace_name = prev->keyspace_name;
        conf->version = prev->version;
    }

    ngx_conf_merge_ptr_value(conf->zone, prev->zone, NULL);
    ngx_conf_merge_msec_value(conf->fresh, prev->fresh, 60000);
    ngx_conf_merge_msec_value(conf->stale, prev->stale, 0);
    ngx_conf_merge_msec_value(conf->stale_error, prev->stale_error, 0);
    ngx_conf_merge_msec_value(conf->wait, prev->wait, 60000);
    ngx_conf_merge_msec_value(conf->retry, prev->retry, 1000);
    ngx_conf_merge_bitmask_value(conf->methods, prev->methods,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_HTTP_GET|NGX_HTTP_HEAD));
    ngx_conf_merge_ptr_value(conf->bypass, prev->bypass, NULL);
    ngx_conf_merge_ptr_value(conf->no_store, prev->no_store, NULL);
    ngx_conf_merge_ptr_value(conf->purge, prev->purge, NULL);
    ngx_conf_merge_uint_value(conf->purge_soft, prev->purge_soft, 0);
    ngx_conf_merge_uint_value(conf->purge_all, prev->purge_all, 0);
    ngx_conf_merge_ptr_value(conf->valid, prev->valid, NULL);

    if (conf->key == NULL) {
        conf->key = prev->key;
    }

    if (conf->zone == NULL) {
        return NGX_CONF_OK;
    }

    if (conf->key == NULL
        && ngx_http_shoal_default_key(cf, conf) != NGX_CONF_OK)
    {
        return NGX_CONF_ERROR;
    }

    smcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_shoal_module);

    location = ngx_array_push(&smcf->locations);
    if (location == NULL) {
        return NGX_CONF_ERROR;
    }

    *location = conf;

    return NGX_CONF_OK;
}


static ngx_http_shoal_zone_t *
ngx_http_shoal_find_zone(ngx_http_shoal_main_conf_t *smcf, ngx_str_t *name)
{
    ngx_uint_t               i;
    ngx_http_shoal_zone_t  **zones;

    zones = smcf->zones.elts;

    for (i = 0; i < smcf->zones.nelts; i++) {
        if (zones[i]->name.len == name->len
            && ngx_strncmp(zones[i]->name.data, name->data, name->len) == 0)
        {
            return zones[i];
        }
    }

    return NULL;
}


/* one that is used before its shoal_zone is seen is there already, without a size */

static ngx_http_shoal_zone_t *
ngx_http_shoal_use_zone(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_http_shoal_zone_t       *zone, **place;
    ngx_http_shoal_main_conf_t  *smcf;

    smcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_shoal_module);

    zone = ngx_http_shoal_find_zone(smcf, name);
    if (zone) {
        return zone;
    }

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_http_shoal_zone_t));
    place = ngx_array_push(&smcf->zones);
    if (zone == NULL || place == NULL) {
        return NULL;
    }

    zone->name.len = name->len;
    zone->name.data = ngx_pnalloc(cf->pool, name->len + 1);
    if (zone->name.data == NULL) {
        return NULL;
    }

    (void) ngx_cpystrn(zone->name.data, name->data, name->len + 1);
    *place = zone;

    return zone;
}


static char *
ngx_http_shoal_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ssize_t                 size;
    ngx_int_t               n;
    ngx_str_t              *value, s;
    ngx_uint_t              i;
    ngx_http_shoal_zone_t  *zone;

    value = cf->args->elts;

    zone = ngx_http_shoal_use_zone(cf, &value[1]);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (zone->size) {
        return "is duplicate";
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "size=", 5) == 0) {
            s.data = value[i].data + 5;
            s.len = value[i].len - 5;
            size = ngx_parse_size(&s);
            if (size < 1024 * 1024) {
                goto invalid;
            }

            zone->size = size;
            continue;
        }

        if (ngx_strncmp(value[i].data, "max_entry=", 10) == 0) {
            s.data = value[i].data + 10;
            s.len = value[i].len - 10;
            size = ngx_parse_size(&s);
            if (size <= 0) {
                goto invalid;
            }

            zone->max_entry = size;
            continue;
        }

        if (ngx_strncmp(value[i].data, "max_loads=", 10) == 0) {
            n = ngx_atoi(value[i].data + 10, value[i].len - 10);
            if (n <= 0) {
                goto invalid;
            }

            zone->max_loads = n;
            continue;
        }

        goto invalid;
    }

    if (zone->size == 0) {
        zone->size = 64 * 1024 * 1024;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                       &value[i]);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_shoal(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_shoal_loc_conf_t *slcf = conf;

    ngx_int_t    n;
    ngx_str_t   *value;
    ngx_uint_t   i;

    if (slcf->zone != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        slcf->zone = NULL;
        return cf->args->nelts == 2 ? NGX_CONF_OK : "takes no more than off";
    }

    slcf->zone = ngx_http_shoal_use_zone(cf, &value[1]);
    if (slcf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_set(&slcf->keyspace_name, "http");
    slcf->version = 1;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "keyspace=", 9) == 0
            && value[i].len > 9)
        {
            slcf->keyspace_name.data = value[i].data + 9;
            slcf->keyspace_name.len = value[i].len - 9;
            continue;
        }

        if (ngx_strncmp(value[i].data, "version=", 8) == 0) {
            n = ngx_atoi(value[i].data + 8, value[i].len - 8);
            if (n >= 0) {
                slcf->version = n;
                continue;
            }
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                           &value[i]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* shoal_purge [soft] [all] VALUE ...; the rest are predicates as shoal_bypass has them */

static char *
ngx_http_shoal_purge(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_shoal_loc_conf_t *slcf = conf;

    char           *rv;
    ngx_str_t      *value, *kept;
    ngx_uint_t      i;
    ngx_array_t    *all, rest;
    ngx_command_t   predicates;

    value = cf->args->elts;

    if (ngx_array_init(&rest, cf->pool, cf->args->nelts, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    slcf->purge_soft = 0;
    slcf->purge_all = 0;

    for (i = 0; i < cf->args->nelts; i++) {

        if (rest.nelts == 1 && ngx_strcmp(value[i].data, "soft") == 0) {
            slcf->purge_soft = 1;
            continue;
        }

        if (rest.nelts == 1 && ngx_strcmp(value[i].data, "all") == 0) {
            slcf->purge_all = 1;
            continue;
        }

        kept = ngx_array_push(&rest);
        *kept = value[i];
    }

    if (rest.nelts < 2) {
        return "needs a value that says when";
    }

    predicates = *cmd;
    predicates.offset = offsetof(ngx_http_shoal_loc_conf_t, purge);

    all = cf->args;
    cf->args = &rest;
    rv = ngx_http_set_predicate_slot(cf, &predicates, conf);
    cf->args = all;

    return rv;
}


static char *
ngx_http_shoal_content(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = (ngx_http_handler_pt) cmd->post;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_shoal_init(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_http_handler_pt          *h;
    ngx_http_shoal_zone_t       **zones;
    ngx_http_core_main_conf_t    *cmcf;
    ngx_http_shoal_main_conf_t   *smcf;

    smcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_shoal_module);
    zones = smcf->zones.elts;

    for (i = 0; i < smcf->zones.nelts; i++) {
        if (zones[i]->size == 0) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "there is no shoal_zone \"%V\"", &zones[i]->name);
            return NGX_ERROR;
        }
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_shoal_handler;

    return NGX_OK;
}


/* segments */


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
 * At a start an error here ends nginx. On a reload it would end the master under its workers, so there a zone that can't
 * be had is done without.
 */

static ngx_int_t
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


static ngx_int_t
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
 * Those who wait for a worker that is told to end at once take over at once. One that may end in peace has no request in hand
 * and leaves; the other's death gives back what it has.
 */

static void
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


static void
ngx_http_shoal_exit_master(ngx_cycle_t *cycle)
{
    ngx_http_shoal_exit_process(cycle);
}
