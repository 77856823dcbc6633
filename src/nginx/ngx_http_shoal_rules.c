/* SPDX-License-Identifier: MIT */
/*
 * What a shared cache may store, and for how long: RFC 9111, with the two extensions of RFC 5861, and X-Accel-Expires.
 * The response's own word comes first, then shoal_valid, then shoal_fresh.
 */

#include "ngx_http_shoal.h"


#define NGX_HTTP_SHOAL_MAX_SECONDS  (SHOAL_FOREVER / 1000 - 1)


typedef struct {
    ngx_str_t    name;
    ngx_uint_t   stored;
    ngx_uint_t   ignored;   /* the bit of proxy_ignore_headers and its like */
    void       (*read)(ngx_http_shoal_rules_t *rules, ngx_str_t *value);
} ngx_http_shoal_rule_t;


static void ngx_http_shoal_read_cache_control(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);
static void ngx_http_shoal_read_x_accel(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);
static void ngx_http_shoal_read_expires(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);
static void ngx_http_shoal_read_date(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);
static void ngx_http_shoal_read_age(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);
static void ngx_http_shoal_read_cookie(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);
static void ngx_http_shoal_read_vary(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);
static void ngx_http_shoal_read_encoding(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value);


static ngx_http_shoal_rule_t  ngx_http_shoal_rules[] = {
    { ngx_string("Cache-Control"), 1, NGX_HTTP_UPSTREAM_IGN_CACHE_CONTROL,
      ngx_http_shoal_read_cache_control },
    { ngx_string("X-Accel-Expires"), 0, NGX_HTTP_UPSTREAM_IGN_XA_EXPIRES,
      ngx_http_shoal_read_x_accel },
    { ngx_string("Expires"), 1, NGX_HTTP_UPSTREAM_IGN_EXPIRES,
      ngx_http_shoal_read_expires },
    { ngx_string("Date"), 0, 0, ngx_http_shoal_read_date },
    { ngx_string("Age"), 0, 0, ngx_http_shoal_read_age },

    /* what has it is stored only where it is ignored */

    { ngx_string("Set-Cookie"), 1, NGX_HTTP_UPSTREAM_IGN_SET_COOKIE,
      ngx_http_shoal_read_cookie },

    { ngx_string("Vary"), 1, NGX_HTTP_UPSTREAM_IGN_VARY,
      ngx_http_shoal_read_vary },
    { ngx_string("Content-Encoding"), 1, 0, ngx_http_shoal_read_encoding },

    /* of one connection only, or nginx's own to say */

    { ngx_string("Accept-Ranges"), 0, 0, NULL },
    { ngx_string("Connection"), 0, 0, NULL },
    { ngx_string("Content-Length"), 0, 0, NULL },
    { ngx_string("Content-Range"), 0, 0, NULL },
    { ngx_string("Keep-Alive"), 0, 0, NULL },
    { ngx_string("Proxy-Authenticate"), 0, 0, NULL },
    { ngx_string("Proxy-Connection"), 0, 0, NULL },
    { ngx_string("Server"), 0, 0, NULL },
    { ngx_string("TE"), 0, 0, NULL },
    { ngx_string("Trailer"), 0, 0, NULL },
    { ngx_string("Transfer-Encoding"), 0, 0, NULL },
    { ngx_string("Upgrade"), 0, 0, NULL },

    { ngx_null_string, 0, 0, NULL }
};


ngx_uint_t
ngx_http_shoal_is(ngx_str_t *word, const char *name)
{
    return ngx_strlen(name) == word->len
           && ngx_strncasecmp(word->data, (u_char *) name, word->len) == 0;
}


static ngx_http_shoal_rule_t *
ngx_http_shoal_find_rule(ngx_str_t *name)
{
    ngx_http_shoal_rule_t  *rule;

    for (rule = ngx_http_shoal_rules; rule->name.len; rule++) {
        if (ngx_http_shoal_is(name, (char *) rule->name.data)) {
            return rule;
        }
    }

    return NULL;
}


ngx_uint_t
ngx_http_shoal_is_stored(ngx_str_t *name)
{
    ngx_http_shoal_rule_t  *rule;

    rule = ngx_http_shoal_find_rule(name);

    return rule == NULL || rule->stored;
}


void
ngx_http_shoal_rules_init(ngx_http_shoal_rules_t *rules, ngx_uint_t ignored)
{
    ngx_memzero(rules, sizeof(ngx_http_shoal_rules_t));

    rules->ignored = ignored;
    rules->x_accel = -1;
    rules->s_maxage = -1;
    rules->max_age = -1;
    rules->expires = -1;
    rules->date = -1;
    rules->age = -1;
    rules->stale = -1;
    rules->stale_error = -1;
}


void
ngx_http_shoal_rules_field(ngx_http_shoal_rules_t *rules, ngx_str_t *name,
    ngx_str_t *value)
{
    ngx_http_shoal_rule_t  *rule;

    rule = ngx_http_shoal_find_rule(name);

    if (rule && rule->read && !(rules->ignored & rule->ignored)) {
        rule->read(rules, value);
    }
}


void
ngx_http_shoal_rules_list(ngx_http_shoal_rules_t *rules, ngx_list_t *headers)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &headers->part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].hash) {
                ngx_http_shoal_rules_field(rules, &h[i].key, &h[i].value);
            }
        }
    }
}


/* where the string that begins at p ends, or NULL: it is none then, so that it hides nothing */

static u_char *
ngx_http_shoal_string_end(u_char *p, u_char *last)
{
    for ( /* void */ ; p < last; p++) {
        if (*p == '"') {
            return p;
        }

        if (*p == '\\') {
            p++;
        }
    }

    return NULL;
}


/* the next word of a comma separated list, and its argument if it has one */

static ngx_int_t
ngx_http_shoal_next_word(ngx_str_t *list, ngx_str_t *name, ngx_str_t *argument)
{
    u_char  *p, *last, *end;

    p = list->data;
    last = p + list->len;

    while (p < last && (*p == ' ' || *p == '\t' || *p == ',')) {
        p++;
    }

    name->data = p;

    while (p < last && *p != ',' && *p != '=' && *p != ' ' && *p != '\t') {
        p++;
    }

    name->len = p - name->data;
    ngx_str_null(argument);

    if (p < last && *p == '=') {
        p++;
        end = p < last && *p == '"' ? ngx_http_shoal_string_end(p + 1, last)
                                    : NULL;

        if (end) {
            argument->data = p + 1;
            p = end;

        } else {
            argument->data = p;
            while (p < last && *p != ',' && *p != ' ' && *p != '\t') {
                p++;
            }
        }

        argument->len = p - argument->data;
    }

    while (p < last && *p != ',') {
        p++;
    }

    list->data = p;
    list->len = last - p;

    return name->len ? NGX_OK : NGX_DONE;
}


/* too much is much; what is no number is none: stale at once */

static time_t
ngx_http_shoal_seconds(ngx_str_t *value)
{
    size_t  i;
    time_t  n;

    n = 0;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < '0' || value->data[i] > '9') {
            return 0;
        }

        if (n < NGX_HTTP_SHOAL_MAX_SECONDS) {
            n = n * 10 + (value->data[i] - '0');
        }
    }

    return ngx_min(n, (time_t) NGX_HTTP_SHOAL_MAX_SECONDS);
}


/* said twice: the shorter */

static void
ngx_http_shoal_least(time_t *seconds, ngx_str_t *value)
{
    time_t  n;

    n = ngx_http_shoal_seconds(value);

    if (*seconds < 0 || n < *seconds) {
        *seconds = n;
    }
}


static void
ngx_http_shoal_read_cache_control(ngx_http_shoal_rules_t *rules,
    ngx_str_t *value)
{
    ngx_str_t  list, word, argument;

    list = *value;

    while (ngx_http_shoal_next_word(&list, &word, &argument) == NGX_OK) {

        if (ngx_http_shoal_is(&word, "no-store")
            || ngx_http_shoal_is(&word, "private")
            || ngx_http_shoal_is(&word, "no-cache"))
        {
            rules->forbidden = 1;

        } else if (ngx_http_shoal_is(&word, "public")) {
            rules->public = 1;

        } else if (ngx_http_shoal_is(&word, "must-revalidate")
                   || ngx_http_shoal_is(&word, "proxy-revalidate"))
        {
            rules->revalidate = 1;

        } else if (ngx_http_shoal_is(&word, "s-maxage")) {
            ngx_http_shoal_least(&rules->s_maxage, &argument);

        } else if (ngx_http_shoal_is(&word, "max-age")) {
            ngx_http_shoal_least(&rules->max_age, &argument);

        } else if (ngx_http_shoal_is(&word, "stale-while-revalidate")) {
            ngx_http_shoal_least(&rules->stale, &argument);

        } else if (ngx_http_shoal_is(&word, "stale-if-error")) {
            ngx_http_shoal_least(&rules->stale_error, &argument);
        }
    }
}


static void
ngx_http_shoal_read_x_accel(ngx_http_shoal_rules_t *rules, ngx_str_t *value)
{
    time_t     until;
    ngx_str_t  at;

    if (value->len > 1 && value->data[0] == '@') {
        at.data = value->data + 1;
        at.len = value->len - 1;
        until = ngx_atotm(at.data, at.len);
        rules->x_accel = until > ngx_time() ? until - ngx_time() : 0;
        return;
    }

    if (ngx_http_shoal_is(value, "off")) {
        return;
    }

    rules->x_accel = ngx_http_shoal_seconds(value);
}


static void
ngx_http_shoal_read_expires(ngx_http_shoal_rules_t *rules, ngx_str_t *value)
{
    time_t  when;

    when = ngx_parse_http_time(value->data, value->len);
    rules->expires = when == NGX_ERROR ? 0 : when;
}


static void
ngx_http_shoal_read_date(ngx_http_shoal_rules_t *rules, ngx_str_t *value)
{
    rules->date = ngx_parse_http_time(value->data, value->len);
}


static void
ngx_http_shoal_read_age(ngx_http_shoal_rules_t *rules, ngx_str_t *value)
{
    rules->age = ngx_http_shoal_seconds(value);
}


static void
ngx_http_shoal_read_cookie(ngx_http_shoal_rules_t *rules, ngx_str_t *value)
{
    rules->cookie = 1;
}


static void
ngx_http_shoal_read_vary(ngx_http_shoal_rules_t *rules, ngx_str_t *value)
{
    ngx_str_t  list, word, argument;

    list = *value;

    while (ngx_http_shoal_next_word(&list, &word, &argument) == NGX_OK) {
        if (ngx_http_shoal_is(&word, "Accept-Encoding")) {
            rules->varies_encoding = 1;

        } else {
            rules->varies = 1;
        }
    }
}


static void
ngx_http_shoal_read_encoding(ngx_http_shoal_rules_t *rules, ngx_str_t *value)
{
    rules->encoded = !ngx_http_shoal_is(value, "identity");
}


/* how long the response says that it is fresh, or -1 */

static time_t
ngx_http_shoal_explicit(ngx_http_shoal_rules_t *rules)
{
    time_t  fresh;

    if (rules->x_accel >= 0) {
        return rules->x_accel;
    }

    if (rules->s_maxage >= 0) {
        fresh = rules->s_maxage;

    } else if (rules->max_age >= 0) {
        fresh = rules->max_age;

    } else if (rules->expires >= 0) {
        fresh = rules->expires - (rules->date >= 0 ? rules->date : ngx_time());

    } else {
        return -1;
    }

    if (rules->age > 0) {
        fresh -= rules->age;
    }

    return ngx_min(ngx_max(fresh, 0), (time_t) NGX_HTTP_SHOAL_MAX_SECONDS);
}


/* of 500 and more none comes here but what shoal_valid lists: others are failures */

static ngx_uint_t
ngx_http_shoal_is_final(ngx_uint_t status)
{
    return status >= 200 && status < 600
           && status != NGX_HTTP_PARTIAL_CONTENT
           && status != NGX_HTTP_NOT_MODIFIED;
}


static uint32_t
ngx_http_shoal_life(time_t seconds)
{
    return seconds == 0 ? SHOAL_NONE : (uint32_t) seconds * 1000;
}


static ngx_uint_t
ngx_http_shoal_may_store(ngx_http_shoal_rules_t *rules, ngx_uint_t authorized)
{
    if (rules->cookie || rules->varies
        || (rules->encoded && rules->varies_encoding)
        || (rules->forbidden && rules->x_accel < 0))
    {
        return 0;
    }

    return !authorized
           || rules->public || rules->revalidate || rules->s_maxage >= 0;
}


/*
 * A status that is not stored is one's own affair for a moment only (retry), so that what is there again is coalesced
 * again; what must not be stored stays so for as long as it would have been fresh.
 */

void
ngx_http_shoal_rules_decide(ngx_http_shoal_rules_t *rules,
    ngx_http_shoal_loc_conf_t *conf, ngx_uint_t status, ngx_uint_t authorized,
    ngx_http_shoal_lives_t *lives)
{
    time_t  fresh, valid;

    ngx_memzero(lives, sizeof(ngx_http_shoal_lives_t));

    lives->age_ms = rules->age > 0 ? (uint64_t) rules->age * 1000 : 0;

    if (!ngx_http_shoal_may_store(rules, authorized)) {
        lives->refuse_ms = authorized ? (uint32_t) conf->retry : 0;
        return;
    }

    lives->refuse_ms = (uint32_t) conf->retry;
    fresh = ngx_http_shoal_explicit(rules);

    if (!ngx_http_shoal_is_final(status)) {
        return;
    }

    if (fresh < 0) {
        valid = ngx_http_file_cache_valid(conf->valid, status);

        if (valid) {
            lives->fresh_ms = ngx_http_shoal_life(valid);

        } else if (status == NGX_HTTP_OK
                   || status == NGX_HTTP_MOVED_PERMANENTLY
                   || status == NGX_HTTP_PERMANENT_REDIRECT)
        {
            lives->fresh_ms = 0;                    /* shoal_fresh */

        } else {
            return;
        }

    } else {
        if (fresh == 0 && (rules->stale <= 0 || rules->revalidate)) {
            return;
        }

        lives->fresh_ms = ngx_http_shoal_life(fresh);
        lives->aged = rules->x_accel < 0;
    }

    if (rules->revalidate) {
        lives->stale_ms = SHOAL_NONE;
        lives->error_ms = SHOAL_NONE;

    } else {
        if (rules->stale >= 0) {
            lives->stale_ms = ngx_http_shoal_life(rules->stale);
        }

        if (rules->stale_error >= 0) {
            lives->error_ms = ngx_http_shoal_life(rules->stale_error);
        }
    }

    lives->store = 1;
}
