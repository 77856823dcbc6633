/* SPDX-License-Identifier: MIT */
/*
 * A relay: a response that is not stored (Set-Cookie, private, too big, an error) goes from the fill to the client that
 * leads, as it comes. The others were let go to load for themselves, or were told of the error.
 *
 * The client's bufs are the fill's, so the fill is not freed before the client has let go of it: it is `blocked`.
 * While the client is behind, the fill's connection is not ready to be written to, so that its upstream reads no more
 * than it may buffer.
 */

#include "ngx_http_shoal.h"


static void ngx_http_shoal_relay_writer(ngx_http_request_t *r);
static void ngx_http_shoal_relay_event(ngx_event_t *ev);


/* what nginx wants to find without a search, so that it doesn't say it a second time */

static size_t  ngx_http_shoal_known[] = {
    offsetof(ngx_http_headers_out_t, server),
    offsetof(ngx_http_headers_out_t, date),
    offsetof(ngx_http_headers_out_t, content_encoding),
    offsetof(ngx_http_headers_out_t, location),
    offsetof(ngx_http_headers_out_t, refresh),
    offsetof(ngx_http_headers_out_t, last_modified),
    offsetof(ngx_http_headers_out_t, content_range),
    offsetof(ngx_http_headers_out_t, accept_ranges),
    offsetof(ngx_http_headers_out_t, www_authenticate),
    offsetof(ngx_http_headers_out_t, expires),
    offsetof(ngx_http_headers_out_t, etag)
};


static ngx_table_elt_t **
ngx_http_shoal_known_place(ngx_http_headers_out_t *headers, ngx_uint_t i)
{
    return (ngx_table_elt_t **) ((u_char *) headers + ngx_http_shoal_known[i]);
}


static ngx_int_t
ngx_http_shoal_relay_known(ngx_http_request_t *r, ngx_table_elt_t *copy,
    ngx_http_request_t *fr, ngx_table_elt_t *h)
{
    ngx_uint_t  i;

    for (i = 0; i < sizeof(ngx_http_shoal_known) / sizeof(size_t); i++) {
        if (*ngx_http_shoal_known_place(&fr->headers_out, i) == h) {
            *ngx_http_shoal_known_place(&r->headers_out, i) = copy;
        }
    }

    return ngx_http_shoal_link_header(r, copy);
}


static ngx_int_t
ngx_http_shoal_relay_list(ngx_http_request_t *r, ngx_http_request_t *fr)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *copy;

    for (part = &fr->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].hash == 0) {
                continue;
            }

            copy = ngx_list_push(&r->headers_out.headers);
            if (copy == NULL) {
                return NGX_ERROR;
            }

            *copy = h[i];
#if (nginx_version >= 1023000)
            copy->next = NULL;
#endif

            if (ngx_http_shoal_relay_known(r, copy, fr, &h[i]) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_shoal_relay_headers(ngx_http_request_t *r, ngx_http_request_t *fr)
{
    r->headers_out.status = fr->headers_out.status;
    r->headers_out.status_line = fr->headers_out.status_line;
    r->headers_out.content_length_n = fr->headers_out.content_length_n;
    r->headers_out.last_modified_time = fr->headers_out.last_modified_time;
    r->headers_out.content_type = fr->headers_out.content_type;
    r->headers_out.content_type_len = fr->headers_out.content_type_len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.charset = fr->headers_out.charset;
    r->allow_ranges = fr->allow_ranges;
    r->single_range = 1;                  /* several want the body as one buf */

    /* 204 and 304: the fill has no body, nor anything else that would end it */

    if (fr->header_only) {
        r->header_only = 1;
    }

    return ngx_http_shoal_relay_list(r, fr);
}


/* what TLS or a filter (gzip, sub) keeps back until there is more is no reason to wait: nothing would tell
 * that it is over */

static ngx_uint_t
ngx_http_shoal_is_behind(ngx_http_request_t *r)
{
    ngx_event_t  *wev;

    wev = r->connection->write;

    return (r->buffered || r->connection->buffered)
           && (!wev->ready || wev->delayed);
}


/* from now on the client's request is this file's; its end is an event's, as we are amid one of the fill's */

ngx_int_t
ngx_http_shoal_relay(ngx_http_shoal_fill_t *fill)
{
    ngx_int_t              rc;
    ngx_http_request_t    *r;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = fill->client;
    r = ctx->request;

    fill->mode = NGX_HTTP_SHOAL_RELAY;
    fill->holding = 1;
    fill->request->blocked++;

    ctx->status = NGX_HTTP_SHOAL_MISS;
    ctx->wake.handler = ngx_http_shoal_relay_event;
    ctx->relay_rc = NGX_AGAIN;

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_shoal_relay_writer;

    if (ngx_http_shoal_relay_headers(r, fill->request) != NGX_OK) {
        rc = NGX_ERROR;

    } else {
        rc = ngx_http_discard_request_body(r);

        if (rc == NGX_OK) {
            rc = ngx_http_send_header(r);
        }
    }

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        ctx->relay_rc = rc;
        fill->complete = 1;
        ngx_http_shoal_wake_client(ctx);
    }

    return NGX_OK;
}


static void
ngx_http_shoal_relay_wait(ngx_http_shoal_ctx_t *ctx)
{
    ngx_event_t               *wev;
    ngx_http_core_loc_conf_t  *clcf;

    wev = ctx->request->connection->write;
    clcf = ngx_http_get_module_loc_conf(ctx->request, ngx_http_core_module);

    if (!wev->delayed) {
        ngx_add_timer(wev, clcf->send_timeout);
    }

    if (ngx_handle_write_event(wev, clcf->send_lowat) != NGX_OK) {
        ctx->relay_rc = NGX_ERROR;
        ngx_http_shoal_wake_client(ctx);
    }
}


ngx_int_t
ngx_http_shoal_relay_body(ngx_http_shoal_fill_t *fill, ngx_chain_t *in)
{
    ngx_int_t              rc;
    ngx_chain_t           *cl;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = fill->client;

    if (ctx->relay_rc != NGX_AGAIN) {
        ngx_http_shoal_discard(in);
        return NGX_OK;
    }

    for (cl = in; cl; cl = cl->next) {
        if (cl->buf->last_buf) {
            fill->complete = 1;
        }
    }

    rc = ngx_http_output_filter(ctx->request, in);

    if (rc == NGX_ERROR || fill->complete) {
        fill->complete = 1;
        ctx->relay_rc = rc;
        ngx_http_shoal_wake_client(ctx);
        return NGX_OK;
    }

    if (ngx_http_shoal_is_behind(ctx->request)) {
        fill->request->connection->write->ready = 0;
        ngx_http_shoal_relay_wait(ctx);
    }

    /* a flush may be all that is heard of an upstream that broke off */

    ngx_http_shoal_fill_run(fill);

    return NGX_OK;
}


/* the fill has ended before its response had */

void
ngx_http_shoal_relay_broken(ngx_http_shoal_fill_t *fill)
{
    ngx_http_shoal_ctx_t  *ctx;

    ctx = fill->client;
    fill->complete = 1;

    ctx->request->keepalive = 0;
    ctx->relay_rc = NGX_ERROR;
    ngx_http_shoal_wake_client(ctx);
}


static void
ngx_http_shoal_relay_event(ngx_event_t *ev)
{
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ev->data;
    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    r->write_event_handler = ngx_http_request_empty_handler;
    ngx_http_finalize_request(r, ctx->relay_rc == NGX_AGAIN ? NGX_OK
                                                            : ctx->relay_rc);
    ngx_http_run_posted_requests(c);
}


static void
ngx_http_shoal_relay_writer(ngx_http_request_t *r)
{
    ngx_event_t           *wev;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ngx_http_shoal_get_ctx(r);
    wev = r->connection->write;

    if (wev->timedout) {
        r->connection->timedout = 1;
        ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (!wev->delayed && ngx_http_output_filter(r, NULL) == NGX_ERROR) {
        ngx_http_finalize_request(r, NGX_ERROR);
        return;
    }

    if (wev->delayed || ngx_http_shoal_is_behind(r)) {
        ngx_http_shoal_relay_wait(ctx);
        return;
    }

    if (wev->timer_set) {
        ngx_del_timer(wev);
    }

    ctx->fill->going_on = 1;
    ngx_http_shoal_fill_run(ctx->fill);
}
