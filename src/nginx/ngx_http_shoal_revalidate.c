/* SPDX-License-Identifier: MIT */
/*
 * Asking the origin whether what there is is still right: a load that replaces something asks for it by If-None-Match
 * and If-Modified-Since, and a 304 makes it fresh again, with the header fields that the 304 brings in place of its own
 * (RFC 9111, 3.2 and 4.3.4). How it is kept so long that there is something to ask for is the library's error_ms, which
 * shoal_keep prolongs: what is there for that alone is not served.
 */

#include "ngx_http_shoal.h"


ngx_int_t
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


/* strong validators that differ: it is another response that the 304 speaks of */

static ngx_uint_t
ngx_http_shoal_is_other(ngx_http_request_t *fr, ngx_http_shoal_field_t *field)
{
    ngx_str_t  *etag;

    if (field->kind != NGX_HTTP_SHOAL_FIELD_ETAG
        || fr->headers_out.etag == NULL
        || fr->headers_out.etag->hash == 0)
    {
        return 0;
    }

    etag = &fr->headers_out.etag->value;

    if (ngx_strlchr(etag->data, etag->data + ngx_min(etag->len, 1), 'W')
        || ngx_strlchr(field->value.data,
                       field->value.data + ngx_min(field->value.len, 1), 'W'))
    {
        return 0;
    }

    return etag->len != field->value.len
           || ngx_strncmp(etag->data, field->value.data, etag->len) != 0;
}


/* may it be kept, and for how long: by what it says with the fields of the 304 in place of its own */

static ngx_int_t
ngx_http_shoal_renewed_lives(ngx_http_shoal_fill_t *fill, ngx_str_t *previous,
    ngx_http_shoal_frame_t *frame)
{
    size_t                   offset;
    ngx_int_t                rc;
    ngx_http_request_t      *fr;
    ngx_http_shoal_rules_t   rules;
    ngx_http_shoal_field_t   field;

    fr = fill->request;
    offset = 0;

    ngx_http_shoal_read_rules(fill, &rules);

    while ((rc = ngx_http_shoal_frame_field(previous, &offset, frame->body,
                                            &field))
           == NGX_OK)
    {
        if (ngx_http_shoal_is_other(fr, &field)) {
            return NGX_DECLINED;
        }

        if (!ngx_http_shoal_frame_replaces(fr, &field)) {
            ngx_http_shoal_rules_field(&rules, &field.name, &field.value);
        }
    }

    if (rc == NGX_ERROR) {
        return NGX_DECLINED;
    }

    ngx_http_shoal_rules_decide(&rules, fill->conf, NGX_HTTP_OK,
                                fill->authorized, &fill->lives);

    return fill->lives.store
           && ngx_http_test_predicates(fr, fill->conf->no_store) == NGX_OK
           ? NGX_OK : NGX_DECLINED;
}


/* with its new fields, or as it is if there is no room for them */

static void
ngx_http_shoal_renew(ngx_http_shoal_fill_t *fill, ngx_str_t *previous,
    ngx_http_shoal_frame_t *frame)
{
    size_t              head, body;
    struct shoal_load  *load;

    ngx_http_shoal_load_lives(fill);

    head = ngx_http_shoal_frame_size(fill->request, previous, frame);
    body = previous->len - frame->body;

    if (head + body > ngx_http_shoal_limit(fill)
        || ngx_http_shoal_reserve(fill, head + body) != NGX_OK)
    {
        load = fill->load;
        fill->load = NULL;
        (void) shoal_load_keep(load);
        ngx_http_shoal_again(fill);
        return;
    }

    ngx_http_shoal_frame_write(fill, previous, frame, fill->space, head);
    ngx_memcpy(fill->space + head, previous->data + frame->body, body);
    fill->used = head + body;

    if (fill->client) {
        fill->client->forward = "stale; fwd-status=304";
    }

    ngx_http_shoal_commit(fill);
}


/* what there is is asked for no more: it is loaded anew, without a condition */

ngx_int_t
ngx_http_shoal_ask_anew(ngx_http_shoal_fill_t *fill)
{
    struct shoal_load  *load;

    load = fill->load;
    fill->load = NULL;

    (void) shoal_delete(fill->conf->keyspace, fill->key.data, fill->key.len);
    shoal_load_cancel(load);

    ngx_http_shoal_again(fill);

    return NGX_OK;
}


/* 304 to our own condition */

ngx_int_t
ngx_http_shoal_not_modified(ngx_http_shoal_fill_t *fill)
{
    ngx_str_t                  previous;
    const struct shoal_value  *value;
    ngx_http_shoal_frame_t     frame;

    value = shoal_load_previous(fill->load);
    previous.data = (u_char *) value->data;
    previous.len = value->size;

    if (ngx_http_shoal_frame_check(&previous, &frame) == NGX_OK
        && ngx_http_shoal_renewed_lives(fill, &previous, &frame) == NGX_OK)
    {
        ngx_http_shoal_renew(fill, &previous, &frame);
        return NGX_OK;
    }

    return ngx_http_shoal_ask_anew(fill);
}


/* not what is kept to be asked for alone; the library has looked at the rest */

ngx_uint_t
ngx_http_shoal_may_stand_in(const struct shoal_value *value)
{
    ngx_str_t               response;
    ngx_http_shoal_frame_t  frame;

    if (value == NULL) {
        return 0;
    }

    response.data = (u_char *) value->data;
    response.len = value->size;

    return ngx_http_shoal_frame_check(&response, &frame) == NGX_OK
           && value->age_ms <= frame.served_ms;
}
