/* SPDX-License-Identifier: MIT */
/*
 * A method that is not safe (POST, PUT, DELETE, PATCH, an unknown one) and succeeds has changed what its URI stands
 * for: what is stored of it goes (RFC 9111, 4.4), before the client has the first byte of the answer. So does what is
 * stored of the URIs of this host that the response names by Location and Content-Location.
 *
 * It is deleted, not made stale: a stale response would be served while one refreshes it, or in place of an error, and
 * who has just posted would see what was before. A load that began before is not stored, as its response may have been
 * made before, and who waits for it begins anew.
 *
 * The key is that of a GET in the same location. For another URI it is evaluated with that one in place of the
 * request's, so it is right where shoal_key is made of $request_uri, $uri, $args and what doesn't depend on the URI.
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_SAFE  (NGX_HTTP_GET|NGX_HTTP_HEAD|NGX_HTTP_OPTIONS     \
                              |NGX_HTTP_TRACE|NGX_HTTP_PROPFIND)


typedef struct {
    ngx_uint_t                   method;
    ngx_str_t                    method_name;
    ngx_str_t                    unparsed_uri;
    ngx_str_t                    uri;
    ngx_str_t                    args;
    ngx_http_variable_value_t   *variables;
    size_t                       size;
} ngx_http_shoal_saved_t;


ngx_uint_t
ngx_http_shoal_is_safe(ngx_http_request_t *r)
{
    return (r->method & NGX_HTTP_SHOAL_SAFE) != 0;
}


static ngx_int_t
ngx_http_shoal_save(ngx_http_request_t *r, ngx_http_shoal_saved_t *saved)
{
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    saved->method = r->method;
    saved->method_name = r->method_name;
    saved->unparsed_uri = r->unparsed_uri;
    saved->uri = r->uri;
    saved->args = r->args;
    saved->size = cmcf->variables.nelts * sizeof(ngx_http_variable_value_t);

    saved->variables = ngx_palloc(r->pool, saved->size + 1);
    if (saved->variables == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(saved->variables, r->variables, saved->size);

    return NGX_OK;
}


static void
ngx_http_shoal_restore(ngx_http_request_t *r, ngx_http_shoal_saved_t *saved)
{
    r->method = saved->method;
    r->method_name = saved->method_name;
    r->unparsed_uri = saved->unparsed_uri;
    r->uri = saved->uri;
    r->args = saved->args;
    ngx_memcpy(r->variables, saved->variables, saved->size);
}


/* of the variables that are made of the URI the only one that is kept once it is known */

static void
ngx_http_shoal_forget_uri(ngx_http_request_t *r)
{
    ngx_uint_t                  i;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].name.len == sizeof("request_uri") - 1
            && ngx_strncmp(v[i].name.data, "request_uri", v[i].name.len) == 0)
        {
            r->variables[i].valid = 0;
            r->variables[i].not_found = 0;
        }
    }
}


static ngx_int_t
ngx_http_shoal_take_uri(ngx_http_request_t *r, ngx_str_t *target)
{
    ngx_str_t   uri, args;
    ngx_uint_t  flags;

    uri = *target;
    ngx_str_null(&args);
    flags = 0;

    if (ngx_http_parse_unsafe_uri(r, &uri, &args, &flags) != NGX_OK) {
        return NGX_ERROR;
    }

    r->unparsed_uri = *target;
    r->uri = uri;
    r->args = args;
    ngx_http_shoal_forget_uri(r);

    return NGX_OK;
}


/* the key of a GET; target: path and query of another URI, or NULL */

ngx_int_t
ngx_http_shoal_get_key(ngx_http_request_t *r, ngx_http_shoal_loc_conf_t *slcf,
    ngx_str_t *target, ngx_str_t *key)
{
    ngx_int_t               rc;
    ngx_http_shoal_saved_t  saved;

    if (ngx_http_shoal_save(r, &saved) != NGX_OK) {
        return NGX_ERROR;
    }

    r->method = NGX_HTTP_GET;
    ngx_str_set(&r->method_name, "GET");

    rc = target ? ngx_http_shoal_take_uri(r, target) : NGX_OK;

    if (rc == NGX_OK) {
        rc = ngx_http_complex_value(r, slcf->key, key);
    }

    ngx_http_shoal_restore(r, &saved);

    return rc;
}


static void
ngx_http_shoal_drop(ngx_http_shoal_ctx_t *ctx, ngx_str_t *key)
{
    int  rc;

    if (key->len == 0) {
        return;
    }

    rc = shoal_delete(ctx->conf->keyspace, key->data, key->len);

    if (rc < 0) {
        ngx_log_error(NGX_LOG_ERR, ctx->request->connection->log, 0,
                      "shoal_delete(\"%V\"): %s", key, shoal_strerror(rc));
    }
}


static ngx_uint_t
ngx_http_shoal_skip(ngx_str_t *s, u_char *prefix, size_t len)
{
    if (s->len < len || ngx_strncasecmp(s->data, prefix, len) != 0) {
        return 0;
    }

    s->data += len;
    s->len -= len;

    return 1;
}


/* path and query of a reference to this very scheme, host and port; others' may not be touched */

static ngx_int_t
ngx_http_shoal_own_target(ngx_http_request_t *r, ngx_str_t *value,
    ngx_str_t *target)
{
    u_char      *end;
    ngx_str_t    host;
    ngx_uint_t   secure;

    *target = *value;

    end = ngx_strlchr(target->data, target->data + target->len, '#');
    if (end) {
        target->len = end - target->data;
    }

#if (NGX_HTTP_SSL)
    secure = r->connection->ssl != NULL;
#else
    secure = 0;
#endif

    host = r->headers_in.host ? r->headers_in.host->value
                              : r->headers_in.server;

    if (ngx_http_shoal_skip(target, (u_char *) (secure ? "https:" : "http:"),
                            secure ? 6 : 5)
        || (target->len > 1 && target->data[1] == '/'))
    {
        if (!ngx_http_shoal_skip(target, (u_char *) "//", 2)
            || host.len == 0
            || !ngx_http_shoal_skip(target, host.data, host.len))
        {
            return NGX_DECLINED;
        }

        if (target->len == 0) {
            ngx_str_set(target, "/");
        }
    }

    return target->len && target->data[0] == '/' ? NGX_OK : NGX_DECLINED;
}


static void
ngx_http_shoal_drop_named(ngx_http_request_t *r, ngx_http_shoal_ctx_t *ctx,
    ngx_table_elt_t *h)
{
    ngx_str_t  target, key;

    if (ngx_http_shoal_own_target(r, &h->value, &target) == NGX_OK
        && ngx_http_shoal_get_key(r, ctx->conf, &target, &key) == NGX_OK)
    {
        ngx_http_shoal_drop(ctx, &key);
    }
}


static ngx_uint_t
ngx_http_shoal_names_uri(ngx_table_elt_t *h)
{
    ngx_str_t  name;

    name = h->key;

    (void) ngx_http_shoal_skip(&name, (u_char *) "Content-", 8);

    return h->hash && ngx_http_shoal_skip(&name, (u_char *) "Location", 8)
           && name.len == 0;
}


static void
ngx_http_shoal_invalidate_by(ngx_http_request_t *r, ngx_http_shoal_ctx_t *ctx)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    ctx->unsafe = 0;
    ngx_http_shoal_drop(ctx, &ctx->key);

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (ngx_http_shoal_names_uri(&h[i])) {
                ngx_http_shoal_drop_named(r, ctx, &h[i]);
            }
        }
    }
}


/* its answer is about to be sent; it may have come through several locations */

void
ngx_http_shoal_invalidate(ngx_http_request_t *r, ngx_http_shoal_ctx_t *ctx)
{
    if (r->headers_out.status < NGX_HTTP_OK
        || r->headers_out.status >= NGX_HTTP_BAD_REQUEST)
    {
        return;
    }

    for ( /* void */ ; ctx; ctx = ctx->outer) {
        if (ctx->unsafe) {
            ngx_http_shoal_invalidate_by(r, ctx);
        }
    }
}
