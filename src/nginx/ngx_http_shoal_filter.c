/* SPDX-License-Identifier: MIT */
/*
 * Where a fill's output ends: its headers decide what becomes of it, its body goes into the load's space. For clients it
 * adds what we say of the cache. It is called after the filters that a client's own request needs (not modified, range,
 * copy), and before those that say things of their own (headers, gzip).
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_SPACE  32768   /* for a body of unknown length, to begin with */


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


static ngx_http_module_t  ngx_http_shoal_filter_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_shoal_filter_init,            /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_shoal_filter_module = {
    NGX_MODULE_V1,
    &ngx_http_shoal_filter_module_ctx,     /* module context */
    NULL,                                  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* ends of a fill's load */


static void
ngx_http_shoal_commit(ngx_http_shoal_fill_t *fill)
{
    int                    rc;
    uint64_t               fill_ms;
    struct shoal_load     *load;
    ngx_http_shoal_ctx_t  *ctx;

    fill_ms = ngx_current_msec - fill->began_ms;
    ngx_memcpy(fill->space + offsetof(ngx_http_shoal_frame_t, fill_ms),
               &fill_ms, sizeof(uint64_t));

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

static void
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


static ngx_int_t
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


/* headers of a fill */


static void
ngx_http_shoal_read_rules(ngx_http_shoal_fill_t *fill,
    ngx_http_shoal_rules_t *rules)
{
    ngx_http_request_t  *fr;

    fr = fill->request;

    ngx_http_shoal_rules_init(rules);
    ngx_http_shoal_rules_list(rules, &fr->headers_out.headers);

    /* X-Accel-Expires and Date don't go farther than the upstream module */

    if (fr->upstream && fr->upstream->headers_in.headers.part.elts) {
        ngx_http_shoal_rules_list(rules, &fr->upstream->headers_in.headers);
    }
}


/* 304 to our own condition: what we have is fresh again, for as long as the 304 or else the response itself says */

static ngx_int_t
ngx_http_shoal_not_modified(ngx_http_shoal_fill_t *fill)
{
    size_t                     offset;
    ngx_str_t                  previous;
    struct shoal_load         *load;
    const struct shoal_value  *value;
    ngx_http_shoal_rules_t     rules;
    ngx_http_shoal_field_t     field;
    ngx_http_shoal_frame_t     frame;

    load = fill->load;
    fill->load = NULL;

    value = shoal_load_previous(load);
    previous.data = (u_char *) value->data;
    previous.len = value->size;

    ngx_http_shoal_read_rules(fill, &rules);

    if (ngx_http_shoal_frame_check(&previous, &frame) == NGX_OK
        && rules.x_accel < 0 && rules.s_maxage < 0 && rules.max_age < 0
        && rules.expires < 0)
    {
        offset = 0;

        while (ngx_http_shoal_frame_field(&previous, &offset, frame.body,
                                          &field)
               == NGX_OK)
        {
            ngx_http_shoal_rules_field(&rules, &field.name, &field.value);
        }
    }

    ngx_http_shoal_rules_decide(&rules, fill->conf, NGX_HTTP_OK,
                                fill->authorized, &fill->lives);

    if (fill->lives.store) {
        shoal_load_ttl(load, fill->lives.fresh_ms, fill->lives.stale_ms);
        shoal_load_error_ttl(load, fill->lives.error_ms);
        (void) shoal_load_keep(load);

    } else {
        (void) shoal_delete(fill->conf->keyspace, fill->key.data,
                            fill->key.len);
        shoal_load_cancel(load);
    }

    ngx_http_shoal_again(fill);

    return NGX_OK;
}


/* what error_page made of it tells nothing of what happened */

static ngx_uint_t
ngx_http_shoal_failure(ngx_http_request_t *fr)
{
    if (fr->headers_out.status >= 500) {
        return fr->headers_out.status;
    }

    if (fr->error_page && fr->headers_out.status < 400) {
        return NGX_HTTP_BAD_GATEWAY;
    }

    return 0;
}


/* where an older value may be served in its place, the client that leads gets that, too; else the error as it came */

static ngx_int_t
ngx_http_shoal_origin_failed(ngx_http_shoal_fill_t *fill, ngx_uint_t status)
{
    if (fill->client == NULL || shoal_load_previous(fill->load)) {
        fill->mode = NGX_HTTP_SHOAL_DISCARD;
        ngx_http_shoal_fill_failed(fill, status);
        return NGX_OK;
    }

    (void) shoal_load_fail(fill->load, (int) status);
    fill->load = NULL;

    return ngx_http_shoal_relay(fill);
}


static ngx_int_t
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


static size_t
ngx_http_shoal_limit(ngx_http_shoal_fill_t *fill)
{
    size_t  limit;

    limit = fill->conf->zone->entry_limit;

    return limit > fill->key.len ? limit - fill->key.len : 0;
}


static ngx_int_t
ngx_http_shoal_collect(ngx_http_shoal_fill_t *fill)
{
    size_t               head, limit;
    ngx_http_request_t  *fr;

    fr = fill->request;
    head = ngx_http_shoal_frame_size(fr);
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

    ngx_http_shoal_frame_write(fill, fill->space, head);
    fill->used = head;

    shoal_load_ttl(fill->load, fill->lives.fresh_ms, fill->lives.stale_ms);
    shoal_load_error_ttl(fill->load, fill->lives.error_ms);

    if (fr->header_only) {
        ngx_http_shoal_commit(fill);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_shoal_fill_header(ngx_http_shoal_fill_t *fill)
{
    ngx_uint_t               failure;
    ngx_http_request_t      *fr;
    ngx_http_shoal_rules_t   rules;

    fr = fill->request;
    fr->header_sent = 1;

    if (fr->headers_out.status == NGX_HTTP_NO_CONTENT
        || fr->headers_out.status == NGX_HTTP_NOT_MODIFIED)
    {
        fr->header_only = 1;
    }

    if (fill->load == NULL) {
        return NGX_OK;
    }

    if (fr->headers_out.status == NGX_HTTP_NOT_MODIFIED && fill->conditional) {
        return ngx_http_shoal_not_modified(fill);
    }

    ngx_http_shoal_read_rules(fill, &rules);

    failure = ngx_http_shoal_failure(fr);

    if (failure
        && (fr->error_page || !fill->conf->valid
            || !ngx_http_file_cache_valid(fill->conf->valid, failure)))
    {
        return ngx_http_shoal_origin_failed(fill, failure);
    }

    ngx_http_shoal_rules_decide(&rules, fill->conf, fr->headers_out.status,
                                fill->authorized, &fill->lives);

    if (fill->lives.store
        && ngx_http_test_predicates(fr, fill->conf->no_store) == NGX_DECLINED)
    {
        fill->lives.store = 0;
        fill->lives.refuse_ms = (uint32_t) fill->conf->retry;
    }

    if (!fill->lives.store) {
        return ngx_http_shoal_uncacheable(fill);
    }

    return ngx_http_shoal_collect(fill);
}


/* the body of a fill */


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


static void
ngx_http_shoal_discard(ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
        in->buf->file_pos = in->buf->file_last;
    }
}


static ngx_int_t
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


static ngx_int_t
ngx_http_shoal_header_filter(ngx_http_request_t *r)
{
    ngx_http_shoal_ctx_t   *ctx;
    ngx_http_shoal_fill_t  *fill;

    fill = ngx_http_shoal_get_fill(r);

    if (fill) {
        if (r != r->main) {
            r->header_sent = 1;
            return NGX_OK;
        }

        return ngx_http_shoal_fill_header(fill);
    }

    if (r == r->main) {
        ctx = ngx_http_shoal_get_ctx(r);

        if (ctx) {
            ngx_http_shoal_invalidate(r, ctx);
        }

        if (ctx && ctx->status
            && ngx_http_shoal_add_headers(r, ctx) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_shoal_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_shoal_fill_t  *fill;

    fill = ngx_http_shoal_get_fill(r);

    if (fill == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    if (r == r->main && fill->mode == NGX_HTTP_SHOAL_COLLECT && fill->load) {
        return ngx_http_shoal_collect_body(fill, in);
    }

    if (r == r->main && fill->mode == NGX_HTTP_SHOAL_RELAY && fill->client) {
        return ngx_http_shoal_relay_body(fill, in);
    }

    ngx_http_shoal_discard(in);

    return NGX_OK;
}


ngx_int_t
ngx_http_shoal_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_shoal_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_shoal_body_filter;

    return NGX_OK;
}
