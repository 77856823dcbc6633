/* SPDX-License-Identifier: MIT */
/* A fill: a request of our own (ngx_http_shoal_request.c) that runs a location's content handler for the cache. */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_RENEW  5000   /* of the library's lease of 30 s: this worker is alive */


static void ngx_http_shoal_fill_event(ngx_event_t *ev);
static void ngx_http_shoal_fill_renew(ngx_event_t *ev);
static void ngx_http_shoal_fill_end(void *data);
static void ngx_http_shoal_fill_cleanup(void *data);


ngx_http_shoal_fill_t *
ngx_http_shoal_get_fill(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;

    if (!r->connection->shared) {
        return NULL;
    }

    for (cln = r->main->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_shoal_fill_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}


/* the fill */


static ngx_int_t
ngx_http_shoal_init_fill(ngx_http_shoal_fill_t *fill, ngx_http_request_t *r,
    ngx_http_shoal_ctx_t *ctx)
{
    ngx_http_cleanup_t          *cln;
    ngx_http_request_t          *fr;
    ngx_http_shoal_main_conf_t  *smcf;

    fr = fill->request;
    fill->conf = ctx->conf;
    fill->began_ms = ngx_current_msec;
    fill->authorized = r->headers_in.authorization != NULL;

    fill->run.handler = ngx_http_shoal_fill_event;
    fill->run.data = fill;
    fill->run.log = fr->connection->log;
    fill->renew.handler = ngx_http_shoal_fill_renew;
    fill->renew.data = fill;
    fill->renew.log = fr->connection->log;

    if (ngx_http_shoal_copy(fr->pool, &fill->key, &ctx->key) != NGX_OK
        || ngx_http_shoal_copy_request(fr, r) != NGX_OK
        || ngx_http_shoal_condition(fill) != NGX_OK)
    {
        return NGX_ERROR;
    }

    cln = ngx_http_cleanup_add(fr, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_shoal_fill_end;
    cln->data = fill;

    smcf = ngx_http_get_module_main_conf(r, ngx_http_shoal_module);
    ngx_queue_insert_tail(&smcf->fills, &fill->queue);
    ngx_add_timer(&fill->renew, NGX_HTTP_SHOAL_RENEW);

    return NGX_OK;
}


/* takes the load over, whatever it returns; `lead`: the client waits for what comes */

ngx_int_t
ngx_http_shoal_fill(ngx_http_request_t *r, ngx_http_shoal_ctx_t *ctx,
    struct shoal_load *load, ngx_uint_t lead)
{
    ngx_pool_cleanup_t     *cln;
    ngx_http_request_t     *fr;
    ngx_http_shoal_fill_t  *fill;

    fr = ngx_http_shoal_create_request(r);
    if (fr == NULL) {
        shoal_load_cancel(load);
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(fr->pool, sizeof(ngx_http_shoal_fill_t));
    if (cln == NULL) {
        shoal_load_cancel(load);
        ngx_http_free_request(fr, 0);
        ngx_http_close_connection(fr->connection);
        return NGX_ERROR;
    }

    fill = cln->data;
    ngx_memzero(fill, sizeof(ngx_http_shoal_fill_t));
    cln->handler = ngx_http_shoal_fill_cleanup;
    fill->request = fr;
    fill->load = load;

    if (ngx_http_shoal_init_fill(fill, r, ctx) != NGX_OK) {
        shoal_load_cancel(load);
        fill->load = NULL;
        fr->connection->error = 1;
        ngx_http_shoal_fill_run(fill);
        return NGX_ERROR;
    }

    if (lead) {
        fill->client = ctx;
        ctx->fill = fill;
    }

    ngx_http_shoal_fill_run(fill);

    return NGX_OK;
}


/* start it, kick it, or end it; never at once */

void
ngx_http_shoal_fill_run(ngx_http_shoal_fill_t *fill)
{
    ngx_post_event(&fill->run, &ngx_posted_events);
}


/*
 * The end of a fill's request. A count of 0 says that an upstream has let go of it already, in its own cleanup:
 * then freeing is all that is left. Nginx waits with that while a client sends out of the fill's memory
 * (`blocked`; the relay).
 */

static void
ngx_http_shoal_fill_close(ngx_http_shoal_fill_t *fill)
{
    ngx_http_request_t  *fr;

    fr = fill->request;

    if (fr->count++ == 0) {
        ngx_http_finalize_request(fr, NGX_DONE);

    } else {
        ngx_http_finalize_request(fr, NGX_HTTP_CLIENT_CLOSED_REQUEST);
    }
}


static void
ngx_http_shoal_fill_event(ngx_event_t *ev)
{
    ngx_connection_t       *fc;
    ngx_http_request_t     *fr;
    ngx_http_shoal_fill_t  *fill;

    fill = ev->data;
    fr = fill->request;
    fc = fr->connection;

    ngx_http_set_log_request(fc->log, fr);

    if (fill->closing || (fc->error && !fill->holding)) {
        ngx_http_shoal_fill_close(fill);

    } else if (!fill->started) {
        fill->started = 1;
        ngx_http_core_run_phases(fr);

    } else if (fill->holding && !fill->complete
               && (fr->count == 0 || fr->done || fc->error))
    {
        ngx_http_shoal_relay_broken(fill);
        return;

    } else if (fill->going_on) {
        fill->going_on = 0;
        fc->write->ready = 1;
        fc->write->handler(fc->write);
        return;
    }

    ngx_http_run_posted_requests(fc);
}


/* the client of a fill has what it wanted, or has gone */

void
ngx_http_shoal_fill_leave(ngx_http_shoal_ctx_t *ctx)
{
    ngx_http_shoal_fill_t  *fill;

    fill = ctx->fill;
    ctx->fill = NULL;
    fill->client = NULL;

    if (fill->holding) {
        fill->holding = 0;
        fill->closing = 1;
        fill->mode = NGX_HTTP_SHOAL_DISCARD;
        fill->request->blocked--;
        ngx_http_shoal_fill_run(fill);
    }
}


/* no response, or half of one, or one that says so */

void
ngx_http_shoal_fill_failed(ngx_http_shoal_fill_t *fill, ngx_uint_t status)
{
    ngx_http_shoal_ctx_t  *ctx;

    if (fill->load) {
        (void) shoal_load_fail(fill->load, (int) status);
        fill->load = NULL;
    }

    ctx = fill->client;

    if (ctx && !fill->holding) {
        ctx->error = status;
        ngx_http_shoal_fill_leave(ctx);
        ngx_http_shoal_wake_client(ctx);
    }
}


static void
ngx_http_shoal_fill_renew(ngx_event_t *ev)
{
    ngx_http_shoal_fill_t  *fill;

    fill = ev->data;

    if (fill->load) {
        (void) shoal_load_renew(fill->load);
    }

    if (fill->holding && !fill->complete) {
        ngx_http_shoal_fill_run(fill);
    }

    ngx_add_timer(ev, NGX_HTTP_SHOAL_RENEW);
}


/* it ends; it may be told so twice */

static void
ngx_http_shoal_fill_end(void *data)
{
    ngx_http_shoal_fill_t *fill = data;

    if (fill->holding && !fill->complete) {
        ngx_http_shoal_relay_broken(fill);
    }

    if (fill->mode == NGX_HTTP_SHOAL_COLLECT) {
        fill->mode = NGX_HTTP_SHOAL_DISCARD;
        ngx_http_shoal_fill_failed(fill, NGX_HTTP_BAD_GATEWAY);
    }
}


static void
ngx_http_shoal_fill_cleanup(void *data)
{
    ngx_http_shoal_fill_t *fill = data;

    if (fill->run.posted) {
        ngx_delete_posted_event(&fill->run);
    }

    if (fill->renew.timer_set) {
        ngx_del_timer(&fill->renew);
    }

    if (fill->queue.next) {
        ngx_queue_remove(&fill->queue);
    }

    ngx_http_shoal_fill_end(fill);
}
