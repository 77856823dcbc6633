/* SPDX-License-Identifier: MIT */
/*
 * Where a fill's output ends: its headers decide what becomes of it (stored, relayed, a failure, what there is
 * made fresh again), its body goes there. For clients it adds what we say of the cache. It is called after the
 * filters that a client's own request needs (not modified, range, copy), and before those that say things of their
 * own (headers, gzip).
 */

#include "ngx_http_shoal.h"


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;
#if (nginx_version >= 1029000)
static ngx_http_output_header_filter_pt  ngx_http_next_early_hints_filter;
#endif


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


/* headers of a fill */


void
ngx_http_shoal_read_rules(ngx_http_shoal_fill_t *fill,
    ngx_http_shoal_rules_t *rules)
{
    ngx_http_request_t   *fr;
    ngx_http_upstream_t  *u;

    fr = fill->request;
    u = fr->upstream;

    ngx_http_shoal_rules_init(rules, u ? u->conf->ignore_headers : 0);
    ngx_http_shoal_rules_list(rules, &fr->headers_out.headers);

    /* X-Accel-Expires and Date don't go farther than the upstream module */

    if (u && u->headers_in.headers.part.elts) {
        ngx_http_shoal_rules_list(rules, &u->headers_in.headers);
    }
}


/* by error_page: with "recursive_error_pages on" there is only the status that it sets to tell it by */

static ngx_uint_t
ngx_http_shoal_is_remade(ngx_http_request_t *fr)
{
    return (fr->error_page && fr->headers_out.status < 400)
           || (fr->err_status >= NGX_HTTP_OK
               && fr->err_status < NGX_HTTP_SPECIAL_RESPONSE);
}


/* error_page may have made something else of it: then what the upstreams said tells what has happened */

static ngx_uint_t
ngx_http_shoal_failure(ngx_http_request_t *fr)
{
    ngx_uint_t                  i;
    ngx_http_upstream_state_t  *state;

    /* what came had none: HTTP/0.9, which nothing else can be told from */

    if (fr->headers_out.status == 0) {
        return NGX_HTTP_BAD_GATEWAY;
    }

    if (fr->headers_out.status >= 500) {
        return fr->headers_out.status;
    }

    if (!ngx_http_shoal_is_remade(fr) || fr->upstream_states == NULL) {
        return 0;
    }

    state = fr->upstream_states->elts;

    for (i = 0; i < fr->upstream_states->nelts; i++) {
        if (state[i].status >= 500) {
            return state[i].status;
        }
    }

    return 0;
}


/* where an older value may be served in its place, the client that leads gets that, too; else the error as it came */

static ngx_int_t
ngx_http_shoal_origin_failed(ngx_http_shoal_fill_t *fill, ngx_uint_t status)
{
    if (fill->client == NULL
        || fill->request->headers_out.status == 0
        || ngx_http_shoal_may_stand_in(shoal_load_previous(fill->load)))
    {
        fill->mode = NGX_HTTP_SHOAL_DISCARD;
        ngx_http_shoal_fill_failed(fill, status);
        return NGX_OK;
    }

    (void) shoal_load_fail(fill->load, (int) status);
    fill->load = NULL;

    return ngx_http_shoal_relay(fill);
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

    /* hints, which nginx before 1.29 takes for the response: a 304 to our condition may follow,
     * which is none of the client's */

    if (fr->headers_out.status / 100 == 1 && fill->conditional) {
        return ngx_http_shoal_ask_anew(fill);
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
        && (ngx_http_shoal_is_remade(fr)
            || ngx_http_test_predicates(fr, fill->conf->no_store)
               == NGX_DECLINED))
    {
        fill->lives.store = 0;
        fill->lives.refuse_ms = (uint32_t) fill->conf->retry;
    }

    if (!fill->lives.store) {
        return ngx_http_shoal_uncacheable(fill);
    }

    return ngx_http_shoal_collect(fill);
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
            r->filter_need_in_memory = 1;
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


/*
 * The body of a fill, or of a subrequest whose turn it is: slices come so, one after the other. What comes before its
 * turn would have to be put off (the postpone filter does that, which is called after us), so such a response is none.
 */

static ngx_int_t
ngx_http_shoal_fill_body(ngx_http_shoal_fill_t *fill, ngx_http_request_t *r,
    ngx_chain_t *in)
{
    if (r != r->connection->data
        && (fill->mode != NGX_HTTP_SHOAL_DISCARD && in))
    {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "shoal: subrequests that run at once can't be cached");
        return NGX_ERROR;
    }

    if (fill->mode == NGX_HTTP_SHOAL_COLLECT && fill->load) {
        return ngx_http_shoal_collect_body(fill, in);
    }

    if (fill->mode == NGX_HTTP_SHOAL_RELAY && fill->client) {
        return ngx_http_shoal_relay_body(fill, in);
    }

    ngx_http_shoal_discard(in);

    return NGX_OK;
}


static ngx_int_t
ngx_http_shoal_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_shoal_fill_t  *fill;

    fill = ngx_http_shoal_get_fill(r);

    if (fill == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    if (!r->background) {
        return ngx_http_shoal_fill_body(fill, r, in);
    }

    ngx_http_shoal_discard(in);

    return NGX_OK;
}


#if (nginx_version >= 1029000)

/* they would be written to the connection at once, and a fill's leads nowhere */

static ngx_int_t
ngx_http_shoal_early_hints_filter(ngx_http_request_t *r)
{
    return ngx_http_shoal_get_fill(r) ? NGX_OK
                                      : ngx_http_next_early_hints_filter(r);
}

#endif


ngx_int_t
ngx_http_shoal_filter_init(ngx_conf_t *cf)
{
#if (nginx_version >= 1029000)
    ngx_http_next_early_hints_filter = ngx_http_top_early_hints_filter;
    ngx_http_top_early_hints_filter = ngx_http_shoal_early_hints_filter;
#endif

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_shoal_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_shoal_body_filter;

    return NGX_OK;
}
