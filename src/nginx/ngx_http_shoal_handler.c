/* SPDX-License-Identifier: MIT */
/*
 * A client's request, before its content handler: answered out of the segment, or parked until its value is there, or
 * on its way. What the library says of its key decides, when it comes and when it is woken.
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_TRIES     3
#define NGX_HTTP_SHOAL_PATIENCE  1000   /* after the library's own deadline */


static ngx_int_t ngx_http_shoal_begin(ngx_http_shoal_ctx_t *ctx);


/* outcomes */


static ngx_int_t
ngx_http_shoal_pass(ngx_http_shoal_ctx_t *ctx, ngx_http_shoal_status_e status,
    const char *forward)
{
    ctx->status = status;
    ctx->forward = forward;

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_shoal_error(ngx_http_shoal_ctx_t *ctx, ngx_uint_t status)
{
    ctx->status = NGX_HTTP_SHOAL_ERROR;
    ctx->forward = "uri-miss";

    if (status < 400 || status > 599) {
        status = NGX_HTTP_BAD_GATEWAY;
    }

    return status;
}


/* its value could not be read, and goes */

static ngx_int_t
ngx_http_shoal_bad_frame(ngx_http_shoal_ctx_t *ctx)
{
    ngx_http_clean_header(ctx->request);

    if (ctx->value.data) {
        (void) shoal_reject(ctx->conf->keyspace, ctx->key.data, ctx->key.len,
                            &ctx->value);

    } else {
        (void) shoal_delete(ctx->conf->keyspace, ctx->key.data, ctx->key.len);
    }

    ngx_http_shoal_drop_value(ctx);

    return ngx_http_shoal_begin(ctx);
}


static ngx_int_t
ngx_http_shoal_answer(ngx_http_shoal_ctx_t *ctx, ngx_http_shoal_status_e status,
    const char *forward)
{
    int        error;
    ngx_int_t  rc;

    error = ctx->value.load_error;
    rc = ngx_http_shoal_serve(ctx, status, forward);

    if (rc == NGX_ABORT) {
        return ngx_http_shoal_bad_frame(ctx);
    }

    if (rc == NGX_DECLINED) {
        ngx_http_shoal_drop_value(ctx);
        return ngx_http_shoal_error(ctx, error);
    }

    return rc;
}


/* the right to load is had; `load` is the library's until here */

static ngx_int_t
ngx_http_shoal_lead(ngx_http_shoal_ctx_t *ctx, struct shoal_load *load)
{
    ctx->forward = shoal_load_previous(load) ? "stale" : "uri-miss";

    /* renewing tells whether others wait for it: if not, it is a request like any other,
     * and keeps its permit meanwhile */

    if (shoal_load_renew(load) == SHOAL_ERR_INVALID) {
        ctx->load = load;
        ctx->passed = 1;
        return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_PASS, "uri-miss");
    }

    if (ngx_http_shoal_fill(ctx->request, ctx, load, 1) != NGX_OK) {
        return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_PASS, "uri-miss");
    }

    ctx->state = NGX_HTTP_SHOAL_LEADING;

    return ngx_http_shoal_park(ctx, 0);
}


static ngx_int_t
ngx_http_shoal_failed(ngx_http_shoal_ctx_t *ctx, int error)
{
    switch (error) {

    case SHOAL_ERR_LOAD:
        return ngx_http_shoal_error(ctx, ctx->value.load_error);

    case SHOAL_ERR_TIMEOUT:
        return ngx_http_shoal_error(ctx, NGX_HTTP_GATEWAY_TIME_OUT);

    case SHOAL_ERR_BUSY:
        return ngx_http_shoal_error(ctx, NGX_HTTP_SERVICE_UNAVAILABLE);

    default:
        return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_PASS, "uri-miss");
    }
}


static ngx_int_t
ngx_http_shoal_begin(ngx_http_shoal_ctx_t *ctx)
{
    int                  rc;
    struct shoal_load   *load;

    if (ctx->tries++ == NGX_HTTP_SHOAL_TRIES) {
        return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_PASS, "uri-miss");
    }

    rc = shoal_begin(ctx->conf->keyspace, ctx->key.data, ctx->key.len, &load,
                     &ctx->value);

    /* its own load has failed: an older value, or the error, but no other load */

    if (ctx->error && (rc == SHOAL_LEAD || rc == SHOAL_WAIT)) {
        shoal_load_cancel(load);
        return ngx_http_shoal_error(ctx, ctx->error);
    }

    switch (rc) {

    case SHOAL_REFRESH:
        (void) ngx_http_shoal_fill(ctx->request, ctx, load, 0);

        /* fall through */

    case SHOAL_OK:
        return ngx_http_shoal_answer(ctx,
                                    ctx->value.freshness == SHOAL_STALE
                                    ? NGX_HTTP_SHOAL_STALE
                                    : NGX_HTTP_SHOAL_HIT,
                                    ctx->error ? "stale" : NULL);

    case SHOAL_LEAD:
        return ngx_http_shoal_lead(ctx, load);

    case SHOAL_WAIT:
        if (shoal_watch(load, ngx_http_shoal_woken, ctx) != SHOAL_OK) {
            shoal_load_cancel(load);
            return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_PASS, "uri-miss");
        }

        ctx->load = load;
        ctx->state = NGX_HTTP_SHOAL_WAITING;

        return ngx_http_shoal_park(ctx, ctx->conf->wait
                                        + NGX_HTTP_SHOAL_PATIENCE);

    default:
        return ngx_http_shoal_failed(ctx, rc);
    }
}


/* woken */


static ngx_int_t
ngx_http_shoal_waited(ngx_http_shoal_ctx_t *ctx)
{
    int                 rc;
    struct shoal_load  *load;

    load = ctx->load;
    ctx->load = NULL;

    rc = shoal_wait(load, 0, &ctx->value);

    if (rc == SHOAL_OK) {
        return ngx_http_shoal_answer(ctx, NGX_HTTP_SHOAL_COALESCED, "uri-miss");
    }

    if (rc == SHOAL_LEAD) {
        return ngx_http_shoal_lead(ctx, load);
    }

    shoal_load_cancel(load);

    return ngx_http_shoal_failed(ctx, rc);
}


static ngx_int_t
ngx_http_shoal_filled(ngx_http_shoal_ctx_t *ctx)
{
    if (ctx->value.data) {
        return ngx_http_shoal_answer(ctx, NGX_HTTP_SHOAL_MISS, ctx->forward);
    }

    return ngx_http_shoal_begin(ctx);
}


/* the way in */


static ngx_int_t
ngx_http_shoal_purge_handler(ngx_http_shoal_ctx_t *ctx)
{
    int                         rc;
    ngx_http_shoal_loc_conf_t  *slcf;

    slcf = ctx->conf;
    ctx->status = NGX_HTTP_SHOAL_NONE;

    if (slcf->purge_all) {
        rc = slcf->purge_soft ? shoal_keyspace_expire(slcf->keyspace)
                              : shoal_keyspace_delete(slcf->keyspace);

    } else {
        rc = slcf->purge_soft
             ? shoal_expire(slcf->keyspace, ctx->key.data, ctx->key.len)
             : shoal_delete(slcf->keyspace, ctx->key.data, ctx->key.len);
    }

    return rc == SHOAL_OK ? NGX_HTTP_NO_CONTENT
           : rc == SHOAL_MISS ? NGX_HTTP_NOT_FOUND
           : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


/* HEAD is GET's affair, and so is what the other methods change */

static ngx_int_t
ngx_http_shoal_key(ngx_http_shoal_ctx_t *ctx)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    return r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)
           ? ngx_http_complex_value(r, ctx->conf->key, &ctx->key)
           : ngx_http_shoal_get_key(r, ctx->conf, NULL, &ctx->key);
}


static ngx_int_t
ngx_http_shoal_start(ngx_http_request_t *r, ngx_http_shoal_loc_conf_t *slcf)
{
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ngx_http_shoal_create_ctx(r, slcf);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_shoal_key(ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (slcf->purge && ngx_http_test_predicates(r, slcf->purge) == NGX_DECLINED)
    {
        return ngx_http_shoal_purge_handler(ctx);
    }

    /* an unknown method has the bit that says that a mask is set */

    if (!(r->method & slcf->methods & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        ctx->unsafe = slcf->invalidate && !ngx_http_shoal_is_safe(r);
        return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_PASS, "method");
    }

    if (r->headers_in.content_length_n > 0
        || r->headers_in.chunked
        || r->headers_in.upgrade
        || ctx->key.len == 0)
    {
        return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_PASS, "request");
    }

    if (ngx_http_test_predicates(r, slcf->bypass) == NGX_DECLINED) {
        return ngx_http_shoal_pass(ctx, NGX_HTTP_SHOAL_BYPASS, "bypass");
    }

    return ngx_http_shoal_begin(ctx);
}


/*
 * An error's page may have the key of what has failed. nginx says that a request is one (error_page) where it makes no
 * page of a page (recursive_error_pages off), or which status it has (err_status) if that isn't the page's own
 * (error_page 404 = @app).
 */

static ngx_uint_t
ngx_http_shoal_is_error_page(ngx_http_request_t *r)
{
    ngx_http_shoal_ctx_t  *ctx;

    if (r->error_page || r->err_status) {
        return 1;
    }

    ctx = ngx_http_shoal_get_ctx(r);

    return ctx && ctx->status == NGX_HTTP_SHOAL_ERROR;
}


static ngx_uint_t
ngx_http_shoal_is_own_page(ngx_http_request_t *r)
{
    return r->content_handler == ngx_http_shoal_metrics_handler
           || r->content_handler == ngx_http_shoal_status_handler;
}


ngx_int_t
ngx_http_shoal_handler(ngx_http_request_t *r)
{
    ngx_http_shoal_ctx_t       *ctx;
    ngx_http_shoal_loc_conf_t  *slcf;

    slcf = ngx_http_get_module_loc_conf(r, ngx_http_shoal_module);

    if (slcf->keyspace == NULL
        || r != r->main
        || ngx_http_shoal_is_own_page(r)
        || ngx_http_shoal_is_error_page(r)
        || ngx_http_shoal_get_fill(r))
    {
        return NGX_DECLINED;
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_shoal_module);

    if (ctx == NULL) {
        return ngx_http_shoal_start(r, slcf);
    }

    switch (ctx->state) {

    case NGX_HTTP_SHOAL_LEADING:
        ctx->state = NGX_HTTP_SHOAL_DONE;
        return ngx_http_shoal_filled(ctx);

    case NGX_HTTP_SHOAL_WAITING:
        ctx->state = NGX_HTTP_SHOAL_DONE;
        return ngx_http_shoal_waited(ctx);

    default:
        return NGX_DECLINED;
    }
}
