/* SPDX-License-Identifier: MIT */
/*
 * A fill's response on its way into the cache: headers and body go into the load's space as a frame
 * (ngx_http_shoal_frame.c), which is committed when the last of the body has come. What turns out not to be storable
 * after all is refused here, and goes on as a relay.
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_SPACE  32768   /* for a body of unknown length, to begin with */


/* ends of a fill's load */


void
ngx_http_shoal_commit(ngx_http_shoal_fill_t *fill)
{
    int                    rc;
    struct shoal_load     *load;
    ngx_http_shoal_ctx_t  *ctx;

    ngx_http_shoal_frame_came(fill);

    load = fill->load;
    fill->load = NULL;
    fill->mode = NGX_HTTP_SHOAL_DISCARD;
    ctx = fill->client;

    if (ctx == NULL) {
        (void) shoal_load_commit(load, fill->used);
        return;
    }

    rc = shoal_load_commit_value(load, fill->used, &ctx->value);
    ctx->stored = rc == SHOAL_OK;

    ngx_http_shoal_fill_leave(ctx);
    ngx_http_shoal_wake_client(ctx);
}


/* its client asks the cache again */

void
ngx_http_shoal_again(ngx_http_shoal_fill_t *fill)
{
    ngx_http_shoal_ctx_t  *ctx;

    ctx = fill->client;
    fill->mode = NGX_HTTP_SHOAL_DISCARD;

    if (ctx) {
        ngx_http_shoal_fill_leave(ctx);
        ngx_http_shoal_wake_client(ctx);
    }
}


/* not to be stored: nor is what was, if the origin has changed its mind */

static void
ngx_http_shoal_refuse(ngx_http_shoal_fill_t *fill, size_t size,
    struct shoal_value *value)
{
    struct shoal_load  *load;

    load = fill->load;
    fill->load = NULL;

    if (size == 0 && shoal_load_reserve(load, 1) == NULL) {
        shoal_load_cancel(load);
        return;
    }

    shoal_load_uncacheable(load, fill->lives.refuse_ms);

    if (shoal_load_previous(load)) {
        (void) shoal_delete(fill->conf->keyspace, fill->key.data,
                            fill->key.len);
    }

    (void) shoal_load_commit_value(load, size, value);
}


/* to the client that leads, or to nobody: then the rest needn't come */

static ngx_int_t
ngx_http_shoal_turn(ngx_http_shoal_fill_t *fill)
{
    if (fill->client) {
        return ngx_http_shoal_relay(fill);
    }

    fill->mode = NGX_HTTP_SHOAL_DISCARD;
    fill->closing = 1;
    ngx_http_shoal_fill_run(fill);

    return NGX_OK;
}


ngx_int_t
ngx_http_shoal_uncacheable(ngx_http_shoal_fill_t *fill)
{
    struct shoal_value  value;

    ngx_memzero(&value, sizeof(struct shoal_value));
    ngx_http_shoal_refuse(fill, 0, &value);
    shoal_release(&value);

    return ngx_http_shoal_turn(fill);
}


/* it outgrew what may be stored: what is there of it goes first */

static ngx_int_t
ngx_http_shoal_too_big(ngx_http_shoal_fill_t *fill)
{
    size_t               size;
    ngx_buf_t           *b;
    ngx_int_t            rc;
    ngx_str_t            response;
    ngx_chain_t          out;
    struct shoal_value   unwanted, *value;
    ngx_http_shoal_frame_t  frame;

    ngx_memzero(&unwanted, sizeof(struct shoal_value));
    value = fill->client ? &fill->client->value : &unwanted;
    size = fill->used;

    fill->lives.refuse_ms = 0;
    ngx_http_shoal_refuse(fill, size, value);
    shoal_release(&unwanted);

    rc = ngx_http_shoal_turn(fill);

    if (rc != NGX_OK || fill->mode != NGX_HTTP_SHOAL_RELAY) {
        return rc;
    }

    response.data = (u_char *) value->data;
    response.len = value->size;
    if (response.data == NULL
        || ngx_http_shoal_frame_check(&response, &frame) != NGX_OK)
    {
        return NGX_ERROR;
    }

    b = ngx_calloc_buf(fill->request->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->pos = response.data + frame.body;
    b->last = response.data + response.len;

    if (b->pos == b->last) {
        return NGX_OK;
    }

    b->memory = 1;
    out.buf = b;
    out.next = NULL;

    return ngx_http_shoal_relay_body(fill, &out);
}


/* headers */


ngx_int_t
ngx_http_shoal_reserve(ngx_http_shoal_fill_t *fill, size_t size)
{
    u_char  *space;

    space = shoal_load_reserve(fill->load, size);
    if (space == NULL) {
        return NGX_ERROR;
    }

    fill->space = space;
    fill->capacity = size;

    return NGX_OK;
}


size_t
ngx_http_shoal_limit(ngx_http_shoal_fill_t *fill)
{
    size_t  limit;

    limit = fill->conf->zone->entry_limit;

    return limit > fill->key.len ? limit - fill->key.len : 0;
}


ngx_int_t
ngx_http_shoal_collect(ngx_http_shoal_fill_t *fill)
{
    size_t               head, limit;
    ngx_http_request_t  *fr;

    fr = fill->request;
    head = ngx_http_shoal_frame_size(fr, NULL, NULL);
    limit = ngx_http_shoal_limit(fill);

    if (head > limit
        || (fr->headers_out.content_length_n >= 0
            && (uint64_t) fr->headers_out.content_length_n > limit - head))
    {
        fill->lives.refuse_ms = 0;
        return ngx_http_shoal_uncacheable(fill);
    }

    if (fr->headers_out.content_length_n >= 0) {
        limit = head + fr->headers_out.content_length_n;

    } else {
        limit = ngx_min(limit, head + NGX_HTTP_SHOAL_SPACE);
    }

    if (ngx_http_shoal_reserve(fill, limit) != NGX_OK) {
        return ngx_http_shoal_uncacheable(fill);
    }

    ngx_http_shoal_frame_write(fill, NULL, NULL, fill->space, head);
    fill->used = head;
    ngx_http_shoal_load_lives(fill);

    if (fr->header_only) {
        ngx_http_shoal_commit(fill);
    }

    return NGX_OK;
}


/* body */


static ngx_int_t
ngx_http_shoal_append(ngx_http_shoal_fill_t *fill, ngx_buf_t *b)
{
    size_t  size, capacity, limit;

    size = b->last - b->pos;

    if (size > fill->capacity - fill->used) {
        limit = ngx_http_shoal_limit(fill);

        if (size > limit - fill->used) {
            return NGX_DECLINED;
        }

        capacity = ngx_max(fill->capacity * 2, fill->used + size);

        if (ngx_http_shoal_reserve(fill, ngx_min(capacity, limit)) != NGX_OK) {
            return NGX_DECLINED;
        }
    }

    ngx_memcpy(fill->space + fill->used, b->pos, size);
    fill->used += size;
    b->pos = b->last;

    return NGX_OK;
}


void
ngx_http_shoal_discard(ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
        in->buf->file_pos = in->buf->file_last;
    }
}


ngx_int_t
ngx_http_shoal_collect_body(ngx_http_shoal_fill_t *fill, ngx_chain_t *in)
{
    ngx_int_t     rc;
    ngx_uint_t    last;
    ngx_chain_t  *cl;

    last = 0;

    for (cl = in; cl; cl = cl->next) {

        if (ngx_buf_in_memory(cl->buf)) {
            rc = ngx_http_shoal_append(fill, cl->buf);

            if (rc == NGX_DECLINED) {
                rc = ngx_http_shoal_too_big(fill);

                if (rc != NGX_OK || fill->mode != NGX_HTTP_SHOAL_RELAY) {
                    ngx_http_shoal_discard(cl);
                    return rc;
                }

                return ngx_http_shoal_relay_body(fill, cl);
            }
        }

        if (cl->buf->last_buf) {
            last = 1;
        }
    }

    if (last) {
        ngx_http_shoal_commit(fill);
    }

    return NGX_OK;
}
