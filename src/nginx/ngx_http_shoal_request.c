/* SPDX-License-Identifier: MIT */
/*
 * The request of a fill. It takes over what the client's request has come to in the phases before (location, variables,
 * captures, headers), as copies, since it outlives it.
 *
 * Its connection has no client's socket but one that leads nowhere, and is "shared", so that nginx leaves that
 * alone: it ends, is terminated and is freed as any other. It is always ready to be written to; the filter takes
 * all that it is given.
 */

#include "ngx_http_shoal.h"


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


ngx_int_t
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

ngx_int_t
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
        if (ngx_http_shoal_is(name, ngx_http_shoal_not_filled[i])) {
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


/* $http_range and the like are known only of headers that a fill has, too */

static ngx_uint_t
ngx_http_shoal_is_of_client(ngx_str_t *name)
{
    u_char      lower[32];
    size_t      i;
    ngx_str_t   header;

    if (name->len < 5 || name->len - 5 > sizeof(lower)
        || ngx_strncmp(name->data, "http_", 5) != 0)
    {
        return 0;
    }

    header.data = lower;
    header.len = name->len - 5;

    for (i = 0; i < header.len; i++) {
        lower[i] = name->data[5 + i] == '_' ? '-' : name->data[5 + i];
    }

    return !ngx_http_shoal_is_filled(&header);
}


/* those that may change are evaluated anew */

static ngx_int_t
ngx_http_shoal_copy_variables(ngx_http_request_t *fr, ngx_http_request_t *r)
{
    ngx_uint_t                  i;
    ngx_str_t                   from, to;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {

        if ((!r->variables[i].valid && !r->variables[i].not_found)
            || r->variables[i].no_cacheable
            || ngx_http_shoal_is_of_client(&v[i].name))
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


ngx_int_t
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
    fc->tcp_nodelay = NGX_TCP_NODELAY_DISABLED;   /* there is no TCP */
    fc->tcp_nopush = NGX_TCP_NOPUSH_DISABLED;
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


ngx_http_request_t *
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
