/* SPDX-License-Identifier: MIT */
/* A stored response, out of the segment to a client: its headers and body as if a content handler had made them. */

#include "ngx_http_shoal.h"


/*
 * A value in hand pins its extent, and a client may take its time: in each worker a few are served in place at a time,
 * the others from copies. So slow clients keep an eighth of the extents from eviction at most.
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


/* NGX_ABORT: its bytes are bad, or (NGX_DECLINED) it may not be served in place of an error;
 * the value is still there */

ngx_int_t
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
        return NGX_ABORT;
    }

    age_ms = ctx->value.age_ms;

    if (ctx->value.load_error && age_ms > frame.served_ms) {
        return NGX_DECLINED;
    }

    if (ngx_http_shoal_hold(ctx, &response) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_shoal_frame_headers(r, &response, &frame);

    if (rc == NGX_ERROR) {
        return NGX_ABORT;
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->status = status;
    ctx->forward = forward;
    ctx->framed = 1;
    ctx->age_ms = frame.age_ms + age_ms;
    ctx->fresh_left_ms = (int64_t) (frame.fresh_ms - age_ms);

    /* made stale (a soft purge), or a little before its time */

    if (status == NGX_HTTP_SHOAL_STALE && ctx->fresh_left_ms >= 0) {
        ctx->fresh_left_ms = -1;
    }

    ctx->fill_ms = frame.fill_ms;
    r->allow_ranges = frame.status == NGX_HTTP_OK;

    return ngx_http_shoal_send(r, response.data + frame.body,
                               response.len - frame.body);
}
