/* SPDX-License-Identifier: MIT */
/*
 * A fill: a request of our own that runs a location's content handler for the cache. It takes over what the client's
 * request has come to in the phases before (location, variables, captures, headers), as copies, since it outlives it.
 *
 * Its connection has no client's socket but one that leads nowhere, and is "shared", so that nginx leaves that alone: it
 * ends, is terminated and is freed as any other. It is always ready to be written to; the filter takes all that it is given.
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_RENEW  5000   /* of the library's lease of 30 s: this worker is alive */


static void ngx_http_shoal_fill_event(ngx_event_t *ev);
static void ngx_http_shoal_fill_renew(ngx_event_t *ev);
static void ngx_http_shoal_fill_end(void *data);
static void ngx_http_shoal_fill_cleanup(void *data);


static const char  *ngx_http_shoal_not_filled[] = {
    "accept-encoding",
    "content-length",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "te",
    "transfer-encoding",
    NULL
};


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


/* copies */


static ngx_int_t
ngx_http_shoal_copy(ngx_pool_t *pool, ngx_str_t *to, ngx_str_t *from)
{
    to->len = from->len;
    to->data = ngx_pnalloc(pool, from->len + 1);
    if (to->data == NULL) {
        return NGX_ERROR;
    }

    if (from->len) {
        ngx_memcpy(to->data, from->data, from->len);
    }

    to->data[to->len] = '\0';

    return NGX_OK;
}


/* what nginx's own parser would have done with it */

static ngx_int_t
ngx_http_shoal_push_header_in(ngx_http_request_t *fr, ngx_str_t *key,
    ngx_str_t *value)
{
    ngx_table_elt_t            *h;
    ngx_http_header_t          *hh;
    ngx_http_core_main_conf_t  *cmcf;

    h = ngx_list_push(&fr->headers_in.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    if (ngx_http_shoal_copy(fr->pool, &h->key, key) != NGX_OK
        || ngx_http_shoal_copy(fr->pool, &h->value, value) != NGX_OK)
    {
        return NGX_ERROR;
    }

    h->lowcase_key = ngx_pnalloc(fr->pool, key->len);
    if (h->lowcase_key == NULL) {
        return NGX_ERROR;
    }

    h->hash = ngx_hash_strlow(h->lowcase_key, h->key.data, h->key.len);

    cmcf = ngx_http_get_module_main_conf(fr, ngx_http_core_module);
    hh = ngx_hash_find(&cmcf->headers_in_hash, h->hash, h->lowcase_key,
                       h->key.len);

    return hh ? hh->handler(fr, h, hh->offset) : NGX_OK;
}


static ngx_uint_t
ngx_http_shoal_is_filled(ngx_str_t *name)
{
    ngx_uint_t  i;

    for (i = 0; ngx_http_shoal_not_filled[i]; i++) {
        if (ngx_strlen(ngx_http_shoal_not_filled[i]) == name->len
            && ngx_strncasecmp((u_char *) ngx_http_shoal_not_filled[i],
                               name->data, name->len)
               == 0)
        {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_http_shoal_copy_headers(ngx_http_request_t *fr, ngx_http_request_t *r)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (ngx_list_init(&fr->headers_in.headers, fr->pool, 20,
                      sizeof(ngx_table_elt_t))
        != NGX_OK
#if (nginx_version < 1023000)
        || ngx_array_init(&fr->headers_in.cookies, fr->pool, 2,
                          sizeof(ngx_table_elt_t *))
           != NGX_OK
#endif
        || ngx_http_shoal_copy(fr->pool, &fr->headers_in.server,
                               &r->headers_in.server)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].hash
                && ngx_http_shoal_is_filled(&h[i].key)
                && ngx_http_shoal_push_header_in(fr, &h[i].key, &h[i].value)
                   != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


/* those that may change are evaluated anew */

static ngx_int_t
ngx_http_shoal_copy_variables(ngx_http_request_t *fr, ngx_http_request_t *r)
{
    ngx_uint_t                  i;
    ngx_str_t                   from, to;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    for (i = 0; i < cmcf->variables.nelts; i++) {

        if ((!r->variables[i].valid && !r->variables[i].not_found)
            || r->variables[i].no_cacheable)
        {
            continue;
        }

        fr->variables[i] = r->variables[i];

        if (r->variables[i].valid) {
            from.len = r->variables[i].len;
            from.data = r->variables[i].data;

            if (ngx_http_shoal_copy(fr->pool, &to, &from) != NGX_OK) {
                return NGX_ERROR;
            }

            fr->variables[i].data = to.data;
        }
    }

    return NGX_OK;
}


#if (NGX_PCRE)

static ngx_int_t
ngx_http_shoal_copy_captures(ngx_http_request_t *fr, ngx_http_request_t *r)
{
    int         end;
    ngx_str_t   from, to;
    ngx_uint_t  i;

    if (r->ncaptures == 0) {
        return NGX_OK;
    }

    fr->captures = ngx_palloc(fr->pool, r->ncaptures * sizeof(int));
    if (fr->captures == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(fr->captures, r->captures, r->ncaptures * sizeof(int));

    /* a capture that took no part is {-1, -1} */

    end = 0;
    for (i = 1; i < r->ncaptures; i += 2) {
        end = ngx_max(end, r->captures[i]);
    }

    from.data = r->captures_data;
    from.len = end;

    if (ngx_http_shoal_copy(fr->pool, &to, &from) != NGX_OK) {
        return NGX_ERROR;
    }

    fr->ncaptures = r->ncaptures;
    fr->captures_data = to.data;
    fr->realloc_captures = 1;

    return NGX_OK;
}

#endif


static ngx_int_t
ngx_http_shoal_copy_request(ngx_http_request_t *fr, ngx_http_request_t *r)
{
    fr->srv_conf = r->srv_conf;
    fr->loc_conf = r->loc_conf;

    fr->method = NGX_HTTP_GET;
    ngx_str_set(&fr->method_name, "GET");
    fr->http_version = r->http_version;
    fr->http_major = r->http_major;
    fr->http_minor = r->http_minor;

    fr->complex_uri = r->complex_uri;
    fr->quoted_uri = r->quoted_uri;
    fr->plus_in_uri = r->plus_in_uri;
    fr->empty_path_in_uri = r->empty_path_in_uri;
    fr->add_uri_to_alias = r->add_uri_to_alias;
    fr->valid_location = r->valid_location;
    fr->valid_unparsed_uri = r->valid_unparsed_uri;
    fr->internal = r->internal;

    if (ngx_http_shoal_copy(fr->pool, &fr->uri, &r->uri) != NGX_OK
        || ngx_http_shoal_copy(fr->pool, &fr->args, &r->args) != NGX_OK
        || ngx_http_shoal_copy(fr->pool, &fr->exten, &r->exten) != NGX_OK
        || ngx_http_shoal_copy(fr->pool, &fr->unparsed_uri, &r->unparsed_uri)
           != NGX_OK
        || ngx_http_shoal_copy(fr->pool, &fr->request_line, &r->request_line)
           != NGX_OK
        || ngx_http_shoal_copy(fr->pool, &fr->http_protocol, &r->http_protocol)
           != NGX_OK
        || ngx_http_shoal_copy(fr->pool, &fr->schema, &r->schema) != NGX_OK
        || ngx_http_shoal_copy_headers(fr, r) != NGX_OK
        || ngx_http_shoal_copy_variables(fr, r) != NGX_OK
#if (NGX_PCRE)
        || ngx_http_shoal_copy_captures(fr, r) != NGX_OK
#endif
       )
    {
        return NGX_ERROR;
    }

    ngx_http_update_location_config(fr);

    fr->connection->sendfile = 0;
    fr->content_handler = r->content_handler;
    fr->phase_handler = r->phase_handler;
    fr->read_event_handler = ngx_http_block_reading;
    fr->main_filter_need_in_memory = 1;
    fr->filter_need_in_memory = 1;
    fr->expect_tested = 1;

    return NGX_OK;
}


/* the connection */


static ngx_int_t
ngx_http_shoal_copy_address(ngx_connection_t *fc, ngx_connection_t *c)
{
    ngx_str_t  from, to;

    from.data = (u_char *) c->sockaddr;
    from.len = c->socklen;
    if (ngx_http_shoal_copy(fc->pool, &to, &from) != NGX_OK) {
        return NGX_ERROR;
    }

    fc->sockaddr = (struct sockaddr *) to.data;
    fc->socklen = c->socklen;

    if (c->local_sockaddr) {
        from.data = (u_char *) c->local_sockaddr;
        from.len = c->local_socklen;
        if (ngx_http_shoal_copy(fc->pool, &to, &from) != NGX_OK) {
            return NGX_ERROR;
        }

        fc->local_sockaddr = (struct sockaddr *) to.data;
        fc->local_socklen = c->local_socklen;
    }

    return ngx_http_shoal_copy(fc->pool, &fc->addr_text, &c->addr_text);
}


#if (NGX_HTTP_SSL)

/* so that $scheme is what the client's is; it never shakes hands, and has no certificate of a client's */

static ngx_int_t
ngx_http_shoal_secure(ngx_connection_t *fc, ngx_http_request_t *r)
{
    ngx_http_ssl_srv_conf_t  *sscf;

    if (r->connection->ssl == NULL) {
        return NGX_OK;
    }

    sscf = ngx_http_get_module_srv_conf(r, ngx_http_ssl_module);

    return ngx_ssl_create_connection(&sscf->ssl, fc, 0);
}

#endif


static ngx_int_t
ngx_http_shoal_init_connection(ngx_connection_t *fc, ngx_http_request_t *r)
{
    ngx_connection_t       *c;
    ngx_http_log_ctx_t     *ctx;
    ngx_http_connection_t  *hc;

    c = r->connection;

    fc->shared = 1;
    fc->log = ngx_pcalloc(fc->pool, sizeof(ngx_log_t));
    fc->buffer = ngx_calloc_buf(fc->pool);
    ctx = ngx_pcalloc(fc->pool, sizeof(ngx_http_log_ctx_t));
    hc = ngx_pcalloc(fc->pool, sizeof(ngx_http_connection_t));

    if (fc->log == NULL || fc->buffer == NULL || ctx == NULL || hc == NULL) {
        return NGX_ERROR;
    }

    *hc = *r->http_connection;
    hc->busy = NULL;
    hc->free = NULL;
    fc->data = hc;

    ctx->connection = fc;
    *fc->log = *c->log;
    fc->log->data = ctx;
    fc->log->action = "filling a cache";
    fc->pool->log = fc->log;
    fc->log_error = c->log_error;
    fc->number = c->number;
    fc->start_time = c->start_time;

    fc->read->log = fc->log;
    fc->read->handler = c->read->handler;
    fc->read->active = 1;
    fc->read->eof = 1;           /* so that it is closed at once at its end */
    fc->write->log = fc->log;
    fc->write->handler = c->write->handler;
    fc->write->active = 1;
    fc->write->ready = 1;

    if (ngx_http_shoal_copy_address(fc, c) != NGX_OK) {
        return NGX_ERROR;
    }

#if (NGX_HTTP_SSL)
    return ngx_http_shoal_secure(fc, r);
#else
    return NGX_OK;
#endif
}


static ngx_http_request_t *
ngx_http_shoal_create_request(ngx_http_request_t *r)
{
    ngx_connection_t            *fc;
    ngx_http_request_t          *fr;
    ngx_http_shoal_main_conf_t  *smcf;

    smcf = ngx_http_get_module_main_conf(r, ngx_http_shoal_module);

    fc = ngx_get_connection(smcf->socket, r->connection->log);
    if (fc == NULL) {
        return NULL;
    }

    fc->pool = ngx_create_pool(1024, ngx_cycle->log);
    if (fc->pool == NULL) {
        ngx_free_connection(fc);
        fc->fd = (ngx_socket_t) -1;
        return NULL;
    }

#if (NGX_STAT_STUB)
    (void) ngx_atomic_fetch_add(ngx_stat_active, 1);
#endif

    fr = ngx_http_shoal_init_connection(fc, r) == NGX_OK
         ? ngx_http_create_request(fc) : NULL;

    if (fr == NULL) {
        ngx_http_close_connection(fc);
        return NULL;
    }

    fc->data = fr;
    fr->logged = 1;
    fr->write_event_handler = ngx_http_core_run_phases;

    return fr;
}


/* the fill */


static ngx_int_t
ngx_http_shoal_condition(ngx_http_shoal_fill_t *fill)
{
    size_t                     offset;
    ngx_str_t                  previous, name;
    const struct shoal_value  *value;
    ngx_http_shoal_field_t     field;
    ngx_http_shoal_frame_t     frame;

    value = shoal_load_previous(fill->load);
    if (value == NULL) {
        return NGX_OK;
    }

    previous.data = (u_char *) value->data;
    previous.len = value->size;
    offset = 0;

    if (ngx_http_shoal_frame_check(&previous, &frame) != NGX_OK
        || frame.status != NGX_HTTP_OK)
    {
        return NGX_OK;
    }

    while (ngx_http_shoal_frame_field(&previous, &offset, frame.body, &field)
           == NGX_OK)
    {
        if (field.kind == NGX_HTTP_SHOAL_FIELD_ETAG) {
            ngx_str_set(&name, "If-None-Match");

        } else if (field.kind == NGX_HTTP_SHOAL_FIELD_LAST_MODIFIED) {
            ngx_str_set(&name, "If-Modified-Since");

        } else {
            continue;
        }

        fill->conditional = 1;

        if (ngx_http_shoal_push_header_in(fill->request, &name, &field.value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


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
 * Ends of a fill that relays: its client may still send out of its memory (`blocked`), so it is freed when that has let go.
 */

static void
ngx_http_shoal_fill_close(ngx_http_shoal_fill_t *fill)
{
    ngx_http_request_t  *fr;

    fr = fill->request;

    /* an upstream that is cleaned up amid it lets go of the request, too */

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
