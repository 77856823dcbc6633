/* SPDX-License-Identifier: MIT */
/*
 * A stored response: struct ngx_http_shoal_frame_s, then each header as {kind:16, name:16, value:32} and its bytes,
 * then the body. What is read comes from shared memory: it is looked at before it is believed. A change of this takes
 * another NGX_HTTP_SHOAL_SCHEMA.
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_MAGIC  0x53484e31
#define NGX_HTTP_SHOAL_LEAST  1000    /* milliseconds */
#define NGX_HTTP_SHOAL_FIELD  (2 * sizeof(uint16_t) + sizeof(uint32_t))


typedef void (*ngx_http_shoal_each_pt)(void *data, ngx_uint_t kind,
    ngx_str_t *name, ngx_str_t *value);


typedef struct {
    u_char      *p;
    size_t       size;
    ngx_uint_t   n;
} ngx_http_shoal_frame_sink_t;


static ngx_str_t  ngx_http_shoal_no_name = ngx_string("");


static ngx_uint_t
ngx_http_shoal_kind(ngx_http_request_t *r, ngx_table_elt_t *h)
{
    return h == r->headers_out.etag ? NGX_HTTP_SHOAL_FIELD_ETAG
           : h == r->headers_out.last_modified
                 ? NGX_HTTP_SHOAL_FIELD_LAST_MODIFIED
           : h == r->headers_out.location ? NGX_HTTP_SHOAL_FIELD_LOCATION
           : h == r->headers_out.content_encoding
                 ? NGX_HTTP_SHOAL_FIELD_ENCODING
           : h == r->headers_out.expires ? NGX_HTTP_SHOAL_FIELD_EXPIRES
           : NGX_HTTP_SHOAL_FIELD_OTHER;
}


static void
ngx_http_shoal_each_type(ngx_http_request_t *r, ngx_http_shoal_each_pt each,
    void *data)
{
    if (r->headers_out.content_type.len) {
        each(data, NGX_HTTP_SHOAL_FIELD_TYPE, &ngx_http_shoal_no_name,
             &r->headers_out.content_type);
    }

    if (r->headers_out.charset.len) {
        each(data, NGX_HTTP_SHOAL_FIELD_CHARSET, &ngx_http_shoal_no_name,
             &r->headers_out.charset);
    }
}


/* what tells how the body is to be read stays as it came with the body */

static ngx_uint_t
ngx_http_shoal_is_kept(ngx_str_t *name)
{
    return name->len == 0 || ngx_http_shoal_is(name, "Content-Encoding");
}


static ngx_uint_t
ngx_http_shoal_brings(ngx_table_elt_t *h)
{
    return h->hash && h->key.len <= 0xffff && ngx_http_shoal_is_stored(&h->key);
}


/* whether a field that is stored gives way to what a 304 has of its name */

ngx_uint_t
ngx_http_shoal_frame_replaces(ngx_http_request_t *r,
    ngx_http_shoal_field_t *field)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (ngx_http_shoal_is_kept(&field->name)) {
        return 0;
    }

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (ngx_http_shoal_brings(&h[i])
                && h[i].key.len == field->name.len
                && ngx_strncasecmp(h[i].key.data, field->name.data,
                                   field->name.len)
                   == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


static void
ngx_http_shoal_each_kept(ngx_http_request_t *r, ngx_str_t *previous,
    ngx_http_shoal_frame_t *old, ngx_http_shoal_each_pt each, void *data)
{
    size_t                   offset;
    ngx_http_shoal_field_t   field;

    offset = 0;

    while (ngx_http_shoal_frame_field(previous, &offset, old->body, &field)
           == NGX_OK)
    {
        if (!ngx_http_shoal_frame_replaces(r, &field)) {
            each(data, field.kind, &field.name, &field.value);
        }
    }
}


/* of a response, or of what there was (previous) and the 304 that has come for it */

static void
ngx_http_shoal_each_field(ngx_http_request_t *r, ngx_str_t *previous,
    ngx_http_shoal_frame_t *old, ngx_http_shoal_each_pt each, void *data)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (previous) {
        ngx_http_shoal_each_kept(r, previous, old, each, data);

    } else {
        ngx_http_shoal_each_type(r, each, data);
    }

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (ngx_http_shoal_brings(&h[i])
                && !(previous && ngx_http_shoal_is_kept(&h[i].key)))
            {
                each(data, ngx_http_shoal_kind(r, &h[i]), &h[i].key,
                     &h[i].value);
            }
        }
    }
}


static void
ngx_http_shoal_frame_measure(void *data, ngx_uint_t kind, ngx_str_t *name,
    ngx_str_t *value)
{
    ngx_http_shoal_frame_sink_t  *sink = data;

    sink->size += NGX_HTTP_SHOAL_FIELD + name->len + value->len;
}


static void
ngx_http_shoal_frame_copy(void *data, ngx_uint_t kind, ngx_str_t *name,
    ngx_str_t *value)
{
    ngx_http_shoal_frame_sink_t  *sink = data;

    uint16_t  small;
    uint32_t  large;

    small = (uint16_t) kind;
    sink->p = ngx_cpymem(sink->p, &small, sizeof(uint16_t));
    small = (uint16_t) name->len;
    sink->p = ngx_cpymem(sink->p, &small, sizeof(uint16_t));
    large = (uint32_t) value->len;
    sink->p = ngx_cpymem(sink->p, &large, sizeof(uint32_t));
    sink->p = ngx_cpymem(sink->p, name->data, name->len);

    if (value->len) {
        sink->p = ngx_cpymem(sink->p, value->data, value->len);
    }

    sink->n++;
}


size_t
ngx_http_shoal_frame_size(ngx_http_request_t *r, ngx_str_t *previous,
    ngx_http_shoal_frame_t *old)
{
    ngx_http_shoal_frame_sink_t  sink;

    ngx_memzero(&sink, sizeof(ngx_http_shoal_frame_sink_t));
    ngx_http_shoal_each_field(r, previous, old, ngx_http_shoal_frame_measure,
                              &sink);

    return sizeof(ngx_http_shoal_frame_t) + sink.size;
}


static uint64_t
ngx_http_shoal_life_ms(uint32_t own, ngx_msec_t otherwise)
{
    return own == SHOAL_NONE ? 0 : own ? own : otherwise;
}


static void
ngx_http_shoal_frame_lives(ngx_http_shoal_fill_t *fill,
    ngx_http_shoal_frame_t *frame)
{
    ngx_http_shoal_lives_t     *lives;
    ngx_http_shoal_loc_conf_t  *slcf;

    lives = &fill->lives;
    slcf = fill->conf;

    frame->age_ms = lives->age_ms;
    frame->fresh_ms = ngx_http_shoal_life_ms(lives->fresh_ms, slcf->fresh);
    frame->served_ms = frame->fresh_ms
                       + ngx_http_shoal_life_ms(lives->stale_ms, slcf->stale)
                       + ngx_http_shoal_life_ms(lives->error_ms,
                                                slcf->stale_error);
}


/* tells the library how long it lives; in place of errors it may be there longer than it is served */

void
ngx_http_shoal_load_lives(ngx_http_shoal_fill_t *fill)
{
    uint32_t    error_ms;
    ngx_msec_t  keep;

    error_ms = fill->lives.error_ms;
    keep = ngx_min(fill->conf->keep, (ngx_msec_t) SHOAL_FOREVER - 1);

    if (keep > ngx_http_shoal_life_ms(error_ms, fill->conf->stale_error)) {
        error_ms = (uint32_t) keep;
    }

    shoal_load_ttl(fill->load, fill->lives.fresh_ms, fill->lives.stale_ms);
    shoal_load_error_ttl(fill->load, error_ms);
}


void
ngx_http_shoal_frame_write(ngx_http_shoal_fill_t *fill, ngx_str_t *previous,
    ngx_http_shoal_frame_t *old, u_char *p, size_t size)
{
    ngx_http_request_t           *r;
    ngx_http_shoal_frame_t        frame;
    ngx_http_shoal_frame_sink_t   sink;

    r = fill->request;

    sink.p = p + sizeof(ngx_http_shoal_frame_t);
    sink.n = 0;
    ngx_http_shoal_each_field(r, previous, old, ngx_http_shoal_frame_copy,
                              &sink);

    if (previous) {
        frame = *old;

    } else {
        ngx_memzero(&frame, sizeof(ngx_http_shoal_frame_t));
        frame.magic = NGX_HTTP_SHOAL_MAGIC;
        frame.status = (uint16_t) r->headers_out.status;
        frame.type_len = (uint32_t) r->headers_out.content_type_len;
        frame.last_modified = -1;
    }

    frame.headers = (uint16_t) sink.n;
    frame.body = (uint32_t) size;
    ngx_http_shoal_frame_lives(fill, &frame);

    if (r->headers_out.last_modified_time != -1) {
        frame.last_modified = r->headers_out.last_modified_time;
    }

    ngx_memcpy(p, &frame, sizeof(ngx_http_shoal_frame_t));
}


/*
 * All of it is there: the time that took is age, too (RFC 9111, 4.2.3). A second of what it is fresh is left to it, as
 * those who have waited for it would else ask once more, one after the other.
 */

void
ngx_http_shoal_frame_came(ngx_http_shoal_fill_t *fill)
{
    uint64_t                lost;
    ngx_http_shoal_frame_t  frame;

    ngx_memcpy(&frame, fill->space, sizeof(ngx_http_shoal_frame_t));

    frame.fill_ms = ngx_current_msec - fill->began_ms;
    frame.age_ms += frame.fill_ms;

    if (fill->lives.aged && frame.fresh_ms > NGX_HTTP_SHOAL_LEAST) {
        lost = ngx_min(frame.fill_ms, frame.fresh_ms - NGX_HTTP_SHOAL_LEAST);
        frame.fresh_ms -= lost;
        frame.served_ms -= lost;

        shoal_load_ttl(fill->load, (uint32_t) frame.fresh_ms,
                       fill->lives.stale_ms);
    }

    ngx_memcpy(fill->space, &frame, sizeof(ngx_http_shoal_frame_t));
}


ngx_int_t
ngx_http_shoal_frame_check(ngx_str_t *response,
    ngx_http_shoal_frame_t *frame)
{
    if (response->len < sizeof(ngx_http_shoal_frame_t)) {
        return NGX_ERROR;
    }

    ngx_memcpy(frame, response->data, sizeof(ngx_http_shoal_frame_t));

    if (frame->magic != NGX_HTTP_SHOAL_MAGIC
        || frame->status < 200 || frame->status > 599
        || frame->body < sizeof(ngx_http_shoal_frame_t)
        || frame->body > response->len)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* offset 0: the first */

ngx_int_t
ngx_http_shoal_frame_field(ngx_str_t *response, size_t *offset,
    size_t end, ngx_http_shoal_field_t *field)
{
    u_char    *p;
    size_t     at;
    uint16_t   kind, name;
    uint32_t   size;

    at = *offset ? *offset : sizeof(ngx_http_shoal_frame_t);

    if (at == end) {
        return NGX_DONE;
    }

    if (end - at < NGX_HTTP_SHOAL_FIELD) {
        return NGX_ERROR;
    }

    p = response->data + at;
    ngx_memcpy(&kind, p, sizeof(uint16_t));
    ngx_memcpy(&name, p + 2, sizeof(uint16_t));
    ngx_memcpy(&size, p + 4, sizeof(uint32_t));
    at += NGX_HTTP_SHOAL_FIELD;

    if (kind >= NGX_HTTP_SHOAL_FIELD_KINDS
        || name > end - at || size > end - at - name)
    {
        return NGX_ERROR;
    }

    field->kind = kind;
    field->name.data = response->data + at;
    field->name.len = name;
    field->value.data = field->name.data + name;
    field->value.len = size;
    *offset = at + name + size;

    return NGX_OK;
}


/* Cache-Control is a list of its own, which "expires" replaces */

ngx_int_t
ngx_http_shoal_link_header(ngx_http_request_t *r, ngx_table_elt_t *h)
{
    ngx_table_elt_t  **place;

    if (!ngx_http_shoal_is(&h->key, "Cache-Control")) {
        return NGX_OK;
    }

#if (nginx_version >= 1023000)

    for (place = &r->headers_out.cache_control; *place;
         place = &(*place)->next)
    { /* void */ }

#else

    if (r->headers_out.cache_control.elts == NULL
        && ngx_array_init(&r->headers_out.cache_control, r->pool, 1,
                          sizeof(ngx_table_elt_t *))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    place = ngx_array_push(&r->headers_out.cache_control);
    if (place == NULL) {
        return NGX_ERROR;
    }

#endif

    *place = h;

    return NGX_OK;
}


static ngx_table_elt_t *
ngx_http_shoal_push_header(ngx_http_request_t *r, ngx_str_t *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NULL;
    }

    h->hash = 1;
    h->key = *name;
    h->value = *value;
    h->lowcase_key = NULL;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return h;
}


static ngx_int_t
ngx_http_shoal_put_field(ngx_http_request_t *r, ngx_http_shoal_field_t *field,
    ngx_http_shoal_frame_t *frame)
{
    ngx_table_elt_t  *h;

    switch (field->kind) {

    case NGX_HTTP_SHOAL_FIELD_TYPE:
        r->headers_out.content_type = field->value;
        r->headers_out.content_type_len = ngx_min(frame->type_len,
                                                  field->value.len);
        r->headers_out.content_type_lowcase = NULL;
        return NGX_OK;

    case NGX_HTTP_SHOAL_FIELD_CHARSET:
        r->headers_out.charset = field->value;
        return NGX_OK;

    default:
        break;
    }

    h = ngx_http_shoal_push_header(r, &field->name, &field->value);
    if (h == NULL) {
        return NGX_ABORT;
    }

    switch (field->kind) {

    case NGX_HTTP_SHOAL_FIELD_ETAG:
        r->headers_out.etag = h;
        break;

    case NGX_HTTP_SHOAL_FIELD_LAST_MODIFIED:
        r->headers_out.last_modified = h;
        break;

    case NGX_HTTP_SHOAL_FIELD_LOCATION:
        r->headers_out.location = h;
        break;

    case NGX_HTTP_SHOAL_FIELD_ENCODING:
        r->headers_out.content_encoding = h;
        break;

    case NGX_HTTP_SHOAL_FIELD_EXPIRES:
        r->headers_out.expires = h;
        break;

    default:
        return ngx_http_shoal_link_header(r, h) == NGX_OK ? NGX_OK : NGX_ABORT;
    }

    return NGX_OK;
}


/* NGX_ERROR: the bytes are bad; NGX_ABORT: no memory */

ngx_int_t
ngx_http_shoal_frame_headers(ngx_http_request_t *r,
    ngx_str_t *response, ngx_http_shoal_frame_t *frame)
{
    size_t                   offset;
    ngx_int_t                rc;
    ngx_http_shoal_field_t   field;

    offset = 0;

    while ((rc = ngx_http_shoal_frame_field(response, &offset, frame->body,
                                            &field))
           == NGX_OK)
    {
        rc = ngx_http_shoal_put_field(r, &field, frame);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    r->headers_out.status = frame->status;
    r->headers_out.last_modified_time = (time_t) frame->last_modified;
    r->headers_out.content_length_n = response->len - frame->body;

    return NGX_OK;
}
