/* SPDX-License-Identifier: MIT */
/*
 * What a client's request has of the cache, from its way in to its end: a context, which gives back all it holds when
 * the request goes, and parking.
 *
 * A parked request costs its memory and a timer. It is woken by the fill it leads, or by the library
 * (shoal_watch) where another process leads; its timer, which nothing should need, also keeps a worker that is
 * told to go until it is answered.
 */

#include "ngx_http_shoal.h"


static ngx_http_shoal_ctx_t *ngx_http_shoal_find_ctx(ngx_http_request_t *r);


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


void
ngx_http_shoal_drop_value(ngx_http_shoal_ctx_t *ctx)
{
    shoal_release(&ctx->value);

    if (ctx->held) {
        ctx->held = 0;
        ctx->conf->zone->held--;
    }
}


static void
ngx_http_shoal_end_load(ngx_http_shoal_ctx_t *ctx)
{
    struct shoal_load  *load;

    load = ctx->load;
    ctx->load = NULL;

    if (load && ctx->passed) {
        (void) shoal_load_publish(load, NULL, 0);

    } else {
        shoal_load_cancel(load);
    }
}


static void
ngx_http_shoal_let_go(ngx_http_shoal_ctx_t *ctx)
{
    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->fill) {
        ngx_http_shoal_fill_leave(ctx);
    }

    if (ctx->wake.posted) {
        ngx_delete_posted_event(&ctx->wake);
    }

    ngx_http_shoal_end_load(ctx);
}


static void
ngx_http_shoal_cleanup(void *data)
{
    ngx_http_shoal_ctx_t *ctx = data;

    ngx_http_shoal_let_go(ctx);
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


ngx_http_shoal_ctx_t *
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

    /* redirected: what it did there is done, and its permit is not held while it asks for another */

    if (ctx->outer && ctx->outer->passed) {
        ngx_http_shoal_end_load(ctx->outer);
    }

    ngx_http_set_ctx(r, ctx, ngx_http_shoal_module);

    return ctx;
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


ngx_int_t
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
        ngx_http_shoal_let_go(ctx);
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


void
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
