/* SPDX-License-Identifier: MIT */
/*
 * A client's request, before its content handler: out of the segment, or parked until its value is there, or on its way.
 *
 * A parked request costs its memory and a timer. It is woken by the fill it leads, or by the library (shoal_watch) where
 * another process leads; its timer, which nothing should need, also keeps a worker that is told to go until it is answered.
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_TRIES     3
#define NGX_HTTP_SHOAL_PATIENCE  1000   /* after the library's own deadline */


static ngx_int_t ngx_http_shoal_begin(ngx_http_shoal_ctx_t *ctx);


static ngx_http_shoal_ctx_t *
ngx_http_shoal_find_ctx(ngx_http_request_t *r);


/* the context is lost by an internal redirect, but for its cleanup */

ngx_http_shoal_ctx_t *
ngx_http_shoal_get_ctx(ngx_http_request_t *r)
{
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_shoal_module);

    if (ctx == NULL && (r->internal || r->filter_finalize)) {
        ctx = ngx_http_shoal_find_ctx(r);
    }

    return ctx;
}


static void
ngx_http_shoal_drop_value(ngx_http_shoal_ctx_t *ctx)
{
    shoal_release(&ctx->value);

    if (ctx->held) {
        ctx->held = 0;
        ctx->conf->zone->held--;
    }
}


static void
ngx_http_shoal_cleanup(void *data)
{
    ngx_http_shoal_ctx_t *ctx = data;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->fill) {
        ngx_http_shoal_fill_leave(ctx);
    }

    if (ctx->wake.posted) {
        ngx_delete_posted_event(&ctx->wake);
    }

    if (ctx->load) {
        if (ctx->passed) {
            (void) shoal_load_publish(ctx->load, NULL, 0);

        } else {
            shoal_load_cancel(ctx->load);
        }

        ctx->load = NULL;
    }

    ngx_http_shoal_drop_value(ctx);
}


static ngx_http_shoal_ctx_t *
ngx_http_shoal_find_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_shoal_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}


/* parking */


static void
ngx_http_shoal_resume(ngx_event_t *ev)
{
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ev->data;
    r = ctx->request;
    c = r->connection;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    ngx_http_set_log_request(c->log, r);

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
    ngx_http_run_posted_requests(c);
}


static ngx_int_t
ngx_http_shoal_park(ngx_http_shoal_ctx_t *ctx, ngx_msec_t timeout)
{
    ngx_http_request_t  *r;

    r = ctx->request;

    ctx->wake.handler = ngx_http_shoal_resume;
    ctx->wake.data = ctx;
    ctx->wake.log = r->connection->log;
    ctx->timer.handler = ngx_http_shoal_resume;
    ctx->timer.data = ctx;
    ctx->timer.log = r->connection->log;

    if (timeout) {
        ngx_add_timer(&ctx->timer, timeout);
    }

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    return NGX_AGAIN;
}


/* never at once: who calls this is in the midst of something */

void
ngx_http_shoal_wake_client(ngx_http_shoal_ctx_t *ctx)
{
    ngx_post_event(&ctx->wake, &ngx_posted_events);
}


static void
ngx_http_shoal_woken(struct shoal_load *load, void *arg)
{
    ngx_http_shoal_wake_client(arg);
}


void
ngx_http_shoal_poll(ngx_event_t *ev)
{
    ngx_connection_t       *c;
    ngx_http_shoal_zone_t  *zone;

    c = ev->data;
    zone = c->data;

    (void) shoal_dispatch(zone->cache);
}


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


/*
 * A value in hand pins its extent, and a client may take its time: in each worker a few are served in place at a time, the
 * others from copies. So slow clients keep an eighth of the extents from eviction at most.
 */

static ngx_int_t
ngx_http_shoal_hold(ngx_http_shoal_ctx_t *ctx, ngx_str_t *response)
{
    ngx_http_shoal_zone_t  *zone;

    zone = ctx->conf->zone;
    response->data = (u_char *) ctx->value.data;
    response->len = ctx->value.size;

    if (zone->held < zone->held_max) {
        zone->held++;
        ctx->held = 1;
        return NGX_OK;
    }

    response->data = ngx_palloc(ctx->request->pool, response->len);
    if (response->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(response->data, ctx->value.data, response->len);
    ngx_http_shoal_drop_value(ctx);

    return NGX_OK;
}


static ngx_int_t
ngx_http_shoal_send(ngx_http_request_t *r, u_char *body, size_t size)
{
    ngx_buf_t    *b;
    ngx_int_t     rc;
    ngx_chain_t   out;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->pos = body;
    b->last = body + size;
    b->memory = size ? 1 : 0;
    b->last_buf = 1;
    b->last_in_chain = 1;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_send_header(r);

    /* NGX_AGAIN is no end of it: a header of HTTP/2 may have to wait, too */

    if (rc != NGX_ERROR && rc <= NGX_OK && !r->header_only) {
        out.buf = b;
        out.next = NULL;
        rc = ngx_http_output_filter(r, &out);
    }

    ngx_http_finalize_request(r, rc);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_shoal_serve(ngx_http_shoal_ctx_t *ctx, ngx_http_shoal_status_e status,
    const char *forward)
{
    uint64_t                 age_ms;
    ngx_int_t                rc;
    ngx_str_t                response;
    ngx_http_request_t      *r;
    ngx_http_shoal_frame_t   frame;

    r = ctx->request;
    response.data = (u_char *) ctx->value.data;
    response.len = ctx->value.size;

    if (ngx_http_shoal_frame_check(&response, &frame) != NGX_OK) {
        return ngx_http_shoal_bad_frame(ctx);
    }

    age_ms = ctx->value.age_ms;

    if (ctx->value.load_error && age_ms > frame.served_ms) {
        rc = ngx_http_shoal_error(ctx, ctx->value.load_error);
        ngx_http_shoal_drop_value(ctx);
        return rc;
    }

    if (ngx_http_shoal_hold(ctx, &response) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_shoal_frame_headers(r, &response, &frame);

    if (rc == NGX_ERROR) {
        return ngx_http_shoal_bad_frame(ctx);
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->status = status;
    ctx->forward = forward;
    ctx->framed = 1;
    ctx->age_ms = frame.age_ms + age_ms;
    ctx->fresh_left_ms = (int64_t) (frame.fresh_ms - age_ms);
    ctx->fill_ms = frame.fill_ms;
    r->allow_ranges = frame.status == NGX_HTTP_OK;

    return ngx_http_shoal_send(r, response.data + frame.body,
                               response.len - frame.body);
}


/* the right to load is had; `load` is the library's until here */

static ngx_int_t
ngx_http_shoal_lead(ngx_http_shoal_ctx_t *ctx, struct shoal_load *load)
{
    ctx->forward = shoal_load_previous(load) ? "stale" : "uri-miss";

    /* renewing tells whether others wait for it: if not, it is a request like any other, and keeps its permit meanwhile */

    if (shoal_load_renew(load) != SHOAL_OK) {
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
        return ngx_http_shoal_serve(ctx,
                                    ctx->value.freshness == SHOAL_STALE
                                    ? NGX_HTTP_SHOAL_STALE
                                    : NGX_HTTP_SHOAL_HIT, NULL);

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
        return ngx_http_shoal_serve(ctx, NGX_HTTP_SHOAL_COALESCED, "uri-miss");
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
        return ngx_http_shoal_serve(ctx, NGX_HTTP_SHOAL_MISS, ctx->forward);
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


static ngx_http_shoal_ctx_t *
ngx_http_shoal_create_ctx(ngx_http_request_t *r,
    ngx_http_shoal_loc_conf_t *slcf)
{
    ngx_pool_cleanup_t    *cln;
    ngx_http_shoal_ctx_t  *ctx;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_shoal_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_http_shoal_ctx_t));
    ctx->request = r;
    ctx->outer = ngx_http_shoal_find_ctx(r);
    ctx->conf = slcf;
    cln->handler = ngx_http_shoal_cleanup;

    ngx_http_set_ctx(r, ctx, ngx_http_shoal_module);

    return ctx;
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


ngx_int_t
ngx_http_shoal_handler(ngx_http_request_t *r)
{
    ngx_http_shoal_ctx_t       *ctx;
    ngx_http_shoal_loc_conf_t  *slcf;

    slcf = ngx_http_get_module_loc_conf(r, ngx_http_shoal_module);

    if (slcf->keyspace == NULL || r != r->main || ngx_http_shoal_get_fill(r)) {
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
