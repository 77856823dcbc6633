/* SPDX-License-Identifier: MIT */
/* What nginx looks for in a dynamic module. The order places the filter: it is called after the copy filter. */

#include <ngx_config.h>
#include <ngx_core.h>


extern ngx_module_t  ngx_http_shoal_module;
extern ngx_module_t  ngx_http_shoal_filter_module;

extern ngx_module_t  *ngx_modules[];
extern char          *ngx_module_names[];
extern char          *ngx_module_order[];


ngx_module_t *ngx_modules[] = {
    &ngx_http_shoal_module,
    &ngx_http_shoal_filter_module,
    NULL
};


char *ngx_module_names[] = {
    "ngx_http_shoal_module",
    "ngx_http_shoal_filter_module",
    NULL
};


/*
 * Each module's own list starts with its name; nginx looks for the first of
 * the rest that it has, and inserts the module before it.
 */

char *ngx_module_order[] = {
    "ngx_http_shoal_filter_module",
    "ngx_http_copy_filter_module",
    NULL
};
