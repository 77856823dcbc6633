/* SPDX-License-Identifier: MIT */
/* What the directives mean: configurations, their defaults and inheritance, and the directives that nginx
 * has no slot for. */

#include "ngx_http_shoal.h"


void *
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


void *
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
    slcf->keep = NGX_CONF_UNSET_MSEC;
    slcf->wait = NGX_CONF_UNSET_MSEC;
    slcf->retry = NGX_CONF_UNSET_MSEC;
    slcf->bypass = NGX_CONF_UNSET_PTR;
    slcf->no_store = NGX_CONF_UNSET_PTR;
    slcf->purge = NGX_CONF_UNSET_PTR;
    slcf->purge_soft = NGX_CONF_UNSET_UINT;
    slcf->purge_all = NGX_CONF_UNSET_UINT;
    slcf->valid = NGX_CONF_UNSET_PTR;
    slcf->invalidate = NGX_CONF_UNSET;

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


char *
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
    ngx_conf_merge_msec_value(conf->keep, prev->keep, 0);
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
    ngx_conf_merge_value(conf->invalidate, prev->invalidate, 1);

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


/* of a segment or a keyspace, as shoal_open() and shoal_keyspace_open() want them: here,
 * so that "nginx -t" tells, too */

static ngx_uint_t
ngx_http_shoal_is_name(ngx_str_t *name)
{
    size_t  i;
    u_char  c;

    if (name->len < 1 || name->len > 63 || name->data[0] == '.') {
        return 0;
    }

    for (i = 0; i < name->len; i++) {
        c = name->data[i];

        if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')
              || c == '.' || c == '_' || c == '-'))
        {
            return 0;
        }
    }

    return 1;
}


char *
ngx_http_shoal_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ssize_t                 size;
    ngx_int_t               n;
    ngx_str_t              *value, s;
    ngx_uint_t              i;
    ngx_http_shoal_zone_t  *zone;

    value = cf->args->elts;

    if (!ngx_http_shoal_is_name(&value[1])
        || ngx_strcmp(value[1].data, "off") == 0)
    {
        i = 1;
        goto invalid;
    }

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
            if (n <= 0 || n > NGX_MAX_INT32_VALUE) {
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

    if (zone->max_entry > zone->size / 64) {
        return "has a max_entry of more than the 64th part of its size";
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                       &value[i]);
    return NGX_CONF_ERROR;
}


char *
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

        if (ngx_strncmp(value[i].data, "keyspace=", 9) == 0) {
            slcf->keyspace_name.data = value[i].data + 9;
            slcf->keyspace_name.len = value[i].len - 9;

            if (ngx_http_shoal_is_name(&slcf->keyspace_name)) {
                continue;
            }
        }

        if (ngx_strncmp(value[i].data, "version=", 8) == 0) {
            n = ngx_atoi(value[i].data + 8, value[i].len - 8);
            if (n >= 0 && (uint64_t) n <= UINT32_MAX) {
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

char *
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


char *
ngx_http_shoal_content(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = (ngx_http_handler_pt) cmd->post;

    return NGX_CONF_OK;
}
