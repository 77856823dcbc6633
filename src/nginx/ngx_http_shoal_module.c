/* SPDX-License-Identifier: MIT */
/* The module, as nginx sees it: its directives, its phase handler, and when it is called. */

#include "ngx_http_shoal.h"


static ngx_int_t ngx_http_shoal_init(ngx_conf_t *cf);


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

    { ngx_string("shoal_keep"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, keep),
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

    { ngx_string("shoal_invalidate"),
      NGX_HTTP_SHOAL_EVERYWHERE|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_shoal_loc_conf_t, invalidate),
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
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


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
