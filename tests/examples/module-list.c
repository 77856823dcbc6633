/* SPDX-License-Identifier: MIT */
/* What nginx looks for in a dynamic module. nginx's own `auto/module` writes this file itself. */

#include <ngx_config.h>
#include <ngx_core.h>


extern ngx_module_t  ngx_http_shoal_example_module;

extern ngx_module_t  *ngx_modules[];
extern char          *ngx_module_names[];
extern char          *ngx_module_order[];


ngx_module_t  *ngx_modules[] = { &ngx_http_shoal_example_module, NULL };
char          *ngx_module_names[] = { "ngx_http_shoal_example_module", NULL };
char          *ngx_module_order[] = { NULL };
