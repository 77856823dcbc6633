/* SPDX-License-Identifier: MIT */
/* What is said of the cache: Age and Cache-Status (RFC 9211) in responses, variables, metrics, a page of JSON. */

#include "ngx_http_shoal.h"

#include <stdlib.h>


static ngx_int_t ngx_http_shoal_variable_status(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_shoal_variable_key(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_shoal_variable_age(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_shoal_variable_fill_time(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_str_t  ngx_http_shoal_status_names[] = {
    ngx_null_string,
    ngx_string("HIT"),
    ngx_string("STALE"),
    ngx_string("MISS"),
    ngx_string("COALESCED"),
    ngx_string("PASS"),
    ngx_string("BYPASS"),
    ngx_string("ERROR")
};


static ngx_http_variable_t  ngx_http_shoal_vars[] = {

    { ngx_string("shoal_status"), NULL, ngx_http_shoal_variable_status, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("shoal_key"), NULL, ngx_http_shoal_variable_key, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("shoal_age"), NULL, ngx_http_shoal_variable_age, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("shoal_fill_time"), NULL, ngx_http_shoal_variable_fill_time, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_shoal_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_shoal_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_shoal_set(ngx_http_variable_value_t *v, u_char *data, size_t len)
{
    v->valid = len != 0;
    v->no_cacheable = 0;
    v->not_found = len == 0;
    v->data = data;
    v->len = (unsigned) len;

    return NGX_OK;
}


static ngx_int_t
ngx_http_shoal_variable_status(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t             *name;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ngx_http_shoal_get_ctx(r->main);
    name = &ngx_http_shoal_status_names[ctx ? ctx->status : 0];

    return ngx_http_shoal_set(v, name->data, name->len);
}


/* of any bytes: what would end a line of a header or a log is escaped */

static ngx_int_t
ngx_http_shoal_set_key(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    ngx_str_t *key)
{
    size_t   i, n;
    u_char  *p, *last;

    n = 0;

    for (i = 0; i < key->len; i++) {
        n += key->data[i] < 0x20 || key->data[i] == 0x7f;
    }

    if (n == 0) {
        return ngx_http_shoal_set(v, key->data, key->len);
    }

    p = ngx_pnalloc(r->pool, key->len + 2 * n);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = p;

    for (i = 0; i < key->len; i++) {
        if (key->data[i] < 0x20 || key->data[i] == 0x7f) {
            last = ngx_sprintf(last, "%%%02Xd", (int) key->data[i]);

        } else {
            *last++ = key->data[i];
        }
    }

    return ngx_http_shoal_set(v, p, last - p);
}


static ngx_int_t
ngx_http_shoal_variable_key(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_shoal_ctx_t   *ctx;
    ngx_http_shoal_fill_t  *fill;

    fill = ngx_http_shoal_get_fill(r);
    if (fill) {
        return ngx_http_shoal_set_key(r, v, &fill->key);
    }

    ctx = ngx_http_shoal_get_ctx(r->main);

    return ctx ? ngx_http_shoal_set_key(r, v, &ctx->key)
               : ngx_http_shoal_set(v, NULL, 0);
}


static ngx_int_t
ngx_http_shoal_variable_age(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                *p;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ngx_http_shoal_get_ctx(r->main);
    if (ctx == NULL || !ctx->framed) {
        return ngx_http_shoal_set(v, NULL, 0);
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_shoal_set(v, p, ngx_sprintf(p, "%uL", ctx->age_ms / 1000)
                                    - p);
}


/* as $request_time: seconds, of the load that made it, whoever's it was */

static ngx_int_t
ngx_http_shoal_variable_fill_time(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                *p;
    ngx_http_shoal_ctx_t  *ctx;

    ctx = ngx_http_shoal_get_ctx(r->main);
    if (ctx == NULL || !ctx->framed) {
        return ngx_http_shoal_set(v, NULL, 0);
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN + 4);
    if (p == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_shoal_set(v, p, ngx_sprintf(p, "%uL.%03uL",
                                                ctx->fill_ms / 1000,
                                                ctx->fill_ms % 1000) - p);
}


/* headers */


static ngx_table_elt_t *
ngx_http_shoal_new_header(ngx_http_request_t *r, const char *name, size_t size)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NULL;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);

    h->value.data = ngx_pnalloc(r->pool, size);
    if (h->value.data == NULL) {
        return NULL;
    }

    h->hash = 1;

    return h;
}


ngx_int_t
ngx_http_shoal_add_headers(ngx_http_request_t *r, ngx_http_shoal_ctx_t *ctx)
{
    u_char           *p;
    int64_t           ttl;
    ngx_table_elt_t  *h;

    if (ctx->framed) {
        h = ngx_http_shoal_new_header(r, "Age", NGX_INT64_LEN);
        if (h == NULL) {
            return NGX_ERROR;
        }

        h->value.len = ngx_sprintf(h->value.data, "%uL", ctx->age_ms / 1000)
                       - h->value.data;
    }

    h = ngx_http_shoal_new_header(r, "Cache-Status", 128);
    if (h == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(h->value.data, "shoal", 5);

    if (ctx->forward == NULL) {
        ttl = (ctx->fresh_left_ms < 0 ? ctx->fresh_left_ms - 999
                                      : ctx->fresh_left_ms) / 1000;
        p = ngx_sprintf(p, "; hit; ttl=%L", ttl);

    } else {
        p = ngx_sprintf(p, "; fwd=%s", ctx->forward);

        if (ctx->stored) {
            p = ngx_cpymem(p, "; stored", 8);
        }

        if (ctx->status == NGX_HTTP_SHOAL_COALESCED) {
            p = ngx_cpymem(p, "; collapsed", 11);
        }
    }

    h->value.len = p - h->value.data;

    return NGX_OK;
}


/* pages */


static ngx_int_t
ngx_http_shoal_send_text(ngx_http_request_t *r, ngx_str_t *type, char *text,
    size_t size)
{
    ngx_buf_t    *b;
    ngx_int_t     rc;
    ngx_chain_t   out;

    b = ngx_create_temp_buf(r->pool, size + 1);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_cpymem(b->pos, text, size);
    b->last_buf = 1;
    b->last_in_chain = 1;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = type->len;
    r->headers_out.content_length_n = size;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


typedef int (*ngx_http_shoal_page_pt)(ngx_http_shoal_main_conf_t *smcf,
    FILE *to);


static ngx_int_t
ngx_http_shoal_page(ngx_http_request_t *r, ngx_str_t *type,
    ngx_http_shoal_page_pt write)
{
    int         rc;
    char       *text;
    FILE       *to;
    size_t      size;
    ngx_int_t   n;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    n = ngx_http_discard_request_body(r);
    if (n != NGX_OK) {
        return n;
    }

    text = NULL;

    to = open_memstream(&text, &size);
    if (to == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = write(ngx_http_get_module_main_conf(r, ngx_http_shoal_module), to);

    if (fclose(to) != 0 || rc != SHOAL_OK) {
        free(text);
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    n = ngx_http_shoal_send_text(r, type, text, size);
    free(text);

    return n;
}


static int
ngx_http_shoal_write_metrics(ngx_http_shoal_main_conf_t *smcf, FILE *to)
{
    int                      rc;
    size_t                   n;
    ngx_uint_t               i;
    const char             **names;
    struct shoal           **caches;
    ngx_http_shoal_zone_t  **zones;

    zones = smcf->zones.elts;
    caches = malloc(smcf->zones.nelts * sizeof(struct shoal *) + 1);
    names = malloc(smcf->zones.nelts * sizeof(char *) + 1);
    n = 0;

    if (caches == NULL || names == NULL) {
        free(caches);
        free(names);
        return SHOAL_ERR_SYSTEM;
    }

    for (i = 0; i < smcf->zones.nelts; i++) {
        if (zones[i]->cache) {
            caches[n] = zones[i]->cache;
            names[n++] = (const char *) zones[i]->name.data;
        }
    }

    rc = n ? shoal_metrics_all(caches, names, n, to) : SHOAL_OK;

    free(caches);
    free(names);

    return rc;
}


ngx_int_t
ngx_http_shoal_metrics_handler(ngx_http_request_t *r)
{
    static ngx_str_t  type = ngx_string("text/plain; version=0.0.4");

    return ngx_http_shoal_page(r, &type, ngx_http_shoal_write_metrics);
}


typedef struct {
    FILE        *to;
    ngx_uint_t   n;
} ngx_http_shoal_keyspaces_t;


static int
ngx_http_shoal_write_keyspace(const struct shoal_keyspace_info *k, void *arg)
{
    ngx_http_shoal_keyspaces_t *keyspaces = arg;

    FILE  *to = keyspaces->to;

    const struct shoal_keyspace_stats  *s = &k->stats;

    fprintf(to, "%s{\"name\":\"%s\",\"version\":%u,\"hits_fresh\":%lu,"
            "\"hits_stale\":%lu,\"misses\":%lu,\"loads\":%lu,"
            "\"load_errors\":%lu,\"coalesced\":%lu,\"takeovers\":%lu,"
            "\"superseded\":%lu,\"timeouts\":%lu,\"busy\":%lu,"
            "\"uncached\":%lu,\"rejected\":%lu,\"running\":%lu,"
            "\"load_p50_ms\":%.3f,\"load_p95_ms\":%.3f,"
            "\"load_p99_ms\":%.3f}",
            keyspaces->n++ ? "," : "", k->name, k->version, s->hits_fresh,
            s->hits_stale, s->misses, s->loads, s->load_errors, s->coalesced,
            s->takeovers, s->superseded, s->timeouts, s->busy, s->uncached,
            s->rejected, s->running, s->load_p50_ms, s->load_p95_ms,
            s->load_p99_ms);

    return 0;
}


static int
ngx_http_shoal_write_zone(ngx_http_shoal_zone_t *zone, FILE *to)
{
    int                          rc;
    struct shoal_stats           s;
    ngx_http_shoal_keyspaces_t   keyspaces;

    rc = shoal_stats(zone->cache, &s);
    if (rc != SHOAL_OK) {
        return rc;
    }

    fprintf(to, "{\"name\":\"%s\",\"size\":%lu,\"bytes_live\":%lu,"
            "\"bytes_dead\":%lu,\"bytes_free\":%lu,\"bytes_overhead\":%lu,"
            "\"entries\":%lu,\"evicted_entries\":%lu,"
            "\"evicted_extents\":%lu,\"processes\":%u,\"threads\":%u,"
            "\"pins\":%u,\"flights\":%u,\"permits_used\":%u,"
            "\"keyspaces\":[",
            (char *) zone->name.data, s.size, s.bytes_live, s.bytes_dead,
            s.bytes_free, s.bytes_overhead, s.entries, s.evicted_entries,
            s.evicted_extents, s.processes, s.threads, s.pins, s.flights,
            s.permits_used);

    keyspaces.to = to;
    keyspaces.n = 0;
    rc = shoal_keyspaces(zone->cache, ngx_http_shoal_write_keyspace,
                         &keyspaces);
    fputs("]}", to);

    return rc;
}


static int
ngx_http_shoal_write_status(ngx_http_shoal_main_conf_t *smcf, FILE *to)
{
    int                      rc;
    ngx_uint_t               i, n;
    ngx_http_shoal_zone_t  **zones;

    zones = smcf->zones.elts;
    n = 0;

    fprintf(to, "{\"version\":\"%s\",\"zones\":[", shoal_version());

    for (i = 0; i < smcf->zones.nelts; i++) {
        if (zones[i]->cache == NULL) {
            continue;
        }

        if (n++) {
            fputc(',', to);
        }

        rc = ngx_http_shoal_write_zone(zones[i], to);
        if (rc != SHOAL_OK) {
            return rc;
        }
    }

    fputs("]}\n", to);

    return SHOAL_OK;
}


ngx_int_t
ngx_http_shoal_status_handler(ngx_http_request_t *r)
{
    static ngx_str_t  type = ngx_string("application/json");

    return ngx_http_shoal_page(r, &type, ngx_http_shoal_write_status);
}
