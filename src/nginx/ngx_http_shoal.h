/* SPDX-License-Identifier: MIT */
/*
 * shoal in nginx: an adapter. What is cached, who loads and who waits is the library's business; here are directives,
 * HTTP's rules of caching, and nginx's requests.
 *
 *   client    a request that came by a connection. It is served out of the segment, waits parked, or passes by.
 *   fill      a request of our own, without a client, that runs the location's content handler for the cache: for a
 *             miss and for a refresh alike, so neither a client's speed nor its end has a part in it. Its output ends
 *             in the filter, which collects it in the load's space.
 *   relay     what is not to be stored is handed from the fill to the client that leads, as it comes.
 */

#ifndef _NGX_HTTP_SHOAL_H_INCLUDED_
#define _NGX_HTTP_SHOAL_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <shoal.h>


#define NGX_HTTP_SHOAL_SCHEMA  2


typedef struct ngx_http_shoal_fill_s  ngx_http_shoal_fill_t;
typedef struct ngx_http_shoal_ctx_s   ngx_http_shoal_ctx_t;


typedef enum {
    NGX_HTTP_SHOAL_NONE = 0,
    NGX_HTTP_SHOAL_HIT,
    NGX_HTTP_SHOAL_STALE,
    NGX_HTTP_SHOAL_MISS,
    NGX_HTTP_SHOAL_COALESCED,
    NGX_HTTP_SHOAL_PASS,
    NGX_HTTP_SHOAL_BYPASS,
    NGX_HTTP_SHOAL_ERROR
} ngx_http_shoal_status_e;


typedef enum {
    NGX_HTTP_SHOAL_DONE = 0,
    NGX_HTTP_SHOAL_LEADING,
    NGX_HTTP_SHOAL_WAITING
} ngx_http_shoal_state_e;


typedef struct {
    ngx_str_t                   name;
    size_t                      size;
    size_t                      max_entry;
    ngx_uint_t                  max_loads;

    struct shoal               *cache;
    size_t                      entry_limit;  /* key + value */
    ngx_uint_t                  held;         /* values in hand, of this worker */
    ngx_uint_t                  held_max;     /* then copies, so that slow clients pin little */
} ngx_http_shoal_zone_t;


typedef struct {
    ngx_array_t                 zones;        /* ngx_http_shoal_zone_t * */
    ngx_array_t                 locations;    /* ngx_http_shoal_loc_conf_t * */
    ngx_queue_t                 fills;        /* of this worker */
    ngx_socket_t                socket;       /* what a fill has in place of a client's */
} ngx_http_shoal_main_conf_t;


typedef struct {
    ngx_http_shoal_zone_t      *zone;
    ngx_str_t                   keyspace_name;
    ngx_uint_t                  version;
    struct shoal_keyspace      *keyspace;

    ngx_http_complex_value_t   *key;
    ngx_msec_t                  fresh;
    ngx_msec_t                  stale;
    ngx_msec_t                  stale_error;
    ngx_msec_t                  keep;
    ngx_msec_t                  wait;
    ngx_msec_t                  retry;
    ngx_uint_t                  methods;
    ngx_array_t                *bypass;       /* predicates */
    ngx_array_t                *no_store;
    ngx_array_t                *purge;
    ngx_uint_t                  purge_soft;
    ngx_uint_t                  purge_all;
    ngx_array_t                *valid;        /* ngx_http_cache_valid_t */
    ngx_flag_t                  invalidate;
} ngx_http_shoal_loc_conf_t;


/* a stored response: this, then the headers, then the body */

typedef struct {
    uint32_t                    magic;
    uint16_t                    status;
    uint16_t                    headers;      /* how many */
    uint32_t                    body;         /* offset */
    uint32_t                    type_len;     /* of Content-Type without its parameters */
    int64_t                     last_modified;
    uint64_t                    age_ms;       /* when it came */
    uint64_t                    fresh_ms;     /* from then on */
    uint64_t                    served_ms;    /* likewise, if loading fails */
    uint64_t                    fill_ms;
} ngx_http_shoal_frame_t;


typedef struct {
    ngx_uint_t                  kind;
    ngx_str_t                   name;
    ngx_str_t                   value;
} ngx_http_shoal_field_t;


enum {
    NGX_HTTP_SHOAL_FIELD_OTHER = 0,
    NGX_HTTP_SHOAL_FIELD_TYPE,
    NGX_HTTP_SHOAL_FIELD_CHARSET,
    NGX_HTTP_SHOAL_FIELD_ETAG,
    NGX_HTTP_SHOAL_FIELD_LAST_MODIFIED,
    NGX_HTTP_SHOAL_FIELD_LOCATION,
    NGX_HTTP_SHOAL_FIELD_ENCODING,
    NGX_HTTP_SHOAL_FIELD_EXPIRES,
    NGX_HTTP_SHOAL_FIELD_KINDS
};


/* what the headers of a response say about storing it; seconds, or -1 */

typedef struct {
    ngx_uint_t                  ignored;      /* NGX_HTTP_UPSTREAM_IGN_...: what is no rule */
    time_t                      x_accel;
    time_t                      s_maxage;
    time_t                      max_age;
    time_t                      expires;
    time_t                      date;
    time_t                      age;
    time_t                      stale;
    time_t                      stale_error;
    unsigned                    forbidden:1;  /* private, no-store, no-cache */
    unsigned                    public:1;
    unsigned                    revalidate:1;
    unsigned                    cookie:1;
    unsigned                    varies:1;     /* on more than Accept-Encoding */
    unsigned                    varies_encoding:1;
    unsigned                    encoded:1;
} ngx_http_shoal_rules_t;


typedef struct {
    ngx_uint_t                  store;
    uint32_t                    fresh_ms;     /* as shoal_load_ttl() wants them */
    uint32_t                    stale_ms;
    uint32_t                    error_ms;
    uint32_t                    refuse_ms;    /* if not: for how long */
    uint64_t                    age_ms;
    ngx_uint_t                  aged;         /* fresh_ms counts from when it was asked for */
} ngx_http_shoal_lives_t;


struct ngx_http_shoal_ctx_s {
    ngx_http_request_t         *request;
    ngx_http_shoal_ctx_t       *outer;        /* of the location that has redirected here */
    ngx_http_shoal_loc_conf_t  *conf;
    ngx_str_t                   key;
    ngx_http_shoal_status_e     status;
    const char                 *forward;      /* why it was not a hit, as RFC 9211 names it */

    struct shoal_value          value;
    struct shoal_load          *load;         /* waited for, or uncoalesced and passed by */
    ngx_http_shoal_fill_t      *fill;         /* led by this client, or relayed to it */
    ngx_event_t                 wake;
    ngx_event_t                 timer;
    ngx_uint_t                  error;        /* of the fill: a status */
    ngx_uint_t                  tries;
    ngx_http_shoal_state_e      state;

    uint64_t                    age_ms;
    int64_t                     fresh_left_ms;
    uint64_t                    fill_ms;

    ngx_int_t                   relay_rc;

    unsigned                    held:1;
    unsigned                    framed:1;     /* age_ms and the like are known */
    unsigned                    stored:1;
    unsigned                    passed:1;
    unsigned                    unsafe:1;     /* what is stored goes if it succeeds */
};


typedef enum {
    NGX_HTTP_SHOAL_COLLECT = 0,
    NGX_HTTP_SHOAL_RELAY,
    NGX_HTTP_SHOAL_DISCARD
} ngx_http_shoal_mode_e;


struct ngx_http_shoal_fill_s {
    ngx_queue_t                 queue;
    ngx_http_request_t         *request;
    ngx_http_shoal_loc_conf_t  *conf;
    ngx_http_shoal_ctx_t       *client;       /* that leads, while it is there */
    struct shoal_load          *load;         /* NULL: ended */
    ngx_str_t                   key;

    ngx_http_shoal_mode_e       mode;
    ngx_http_shoal_lives_t      lives;
    u_char                     *space;
    size_t                      used;
    size_t                      capacity;
    uint64_t                    began_ms;

    ngx_event_t                 run;          /* start, go on, end */
    ngx_event_t                 renew;

    unsigned                    started:1;
    unsigned                    authorized:1; /* the client's request was */
    unsigned                    conditional:1;
    unsigned                    complete:1;   /* relayed to the end */
    unsigned                    holding:1;    /* a client sends out of its memory */
    unsigned                    going_on:1;
    unsigned                    closing:1;
};


/* ngx_http_shoal_module.c */

extern ngx_module_t  ngx_http_shoal_module;
extern ngx_module_t  ngx_http_shoal_filter_module;

/* ngx_http_shoal_conf.c */

void *ngx_http_shoal_create_main_conf(ngx_conf_t *cf);
void *ngx_http_shoal_create_loc_conf(ngx_conf_t *cf);
char *ngx_http_shoal_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
char *ngx_http_shoal_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_shoal(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_shoal_purge(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_shoal_content(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* ngx_http_shoal_process.c */

ngx_int_t ngx_http_shoal_init_module(ngx_cycle_t *cycle);
ngx_int_t ngx_http_shoal_init_process(ngx_cycle_t *cycle);
void ngx_http_shoal_exit_process(ngx_cycle_t *cycle);

/* ngx_http_shoal_request.c */

ngx_http_request_t *ngx_http_shoal_create_request(ngx_http_request_t *r);
ngx_int_t ngx_http_shoal_copy_request(ngx_http_request_t *fr,
    ngx_http_request_t *r);
ngx_int_t ngx_http_shoal_copy(ngx_pool_t *pool, ngx_str_t *to,
    ngx_str_t *from);
ngx_int_t ngx_http_shoal_push_header_in(ngx_http_request_t *fr,
    ngx_str_t *key, ngx_str_t *value);

/* ngx_http_shoal_handler.c */

ngx_int_t ngx_http_shoal_handler(ngx_http_request_t *r);

/* ngx_http_shoal_ctx.c */

ngx_http_shoal_ctx_t *ngx_http_shoal_create_ctx(ngx_http_request_t *r,
    ngx_http_shoal_loc_conf_t *slcf);
ngx_http_shoal_ctx_t *ngx_http_shoal_get_ctx(ngx_http_request_t *r);
void ngx_http_shoal_drop_value(ngx_http_shoal_ctx_t *ctx);
ngx_int_t ngx_http_shoal_park(ngx_http_shoal_ctx_t *ctx, ngx_msec_t timeout);
void ngx_http_shoal_wake_client(ngx_http_shoal_ctx_t *ctx);
void ngx_http_shoal_woken(struct shoal_load *load, void *arg);
void ngx_http_shoal_poll(ngx_event_t *ev);

/* ngx_http_shoal_serve.c */

ngx_int_t ngx_http_shoal_serve(ngx_http_shoal_ctx_t *ctx,
    ngx_http_shoal_status_e status, const char *forward);

/* ngx_http_shoal_invalidate.c */

ngx_uint_t ngx_http_shoal_is_safe(ngx_http_request_t *r);
ngx_int_t ngx_http_shoal_get_key(ngx_http_request_t *r,
    ngx_http_shoal_loc_conf_t *slcf, ngx_str_t *target, ngx_str_t *key);
void ngx_http_shoal_invalidate(ngx_http_request_t *r,
    ngx_http_shoal_ctx_t *ctx);

/* ngx_http_shoal_fill.c */

ngx_http_shoal_fill_t *ngx_http_shoal_get_fill(ngx_http_request_t *r);
ngx_int_t ngx_http_shoal_fill(ngx_http_request_t *r, ngx_http_shoal_ctx_t *ctx,
    struct shoal_load *load, ngx_uint_t lead);
void ngx_http_shoal_fill_leave(ngx_http_shoal_ctx_t *ctx);
void ngx_http_shoal_fill_run(ngx_http_shoal_fill_t *fill);
void ngx_http_shoal_fill_failed(ngx_http_shoal_fill_t *fill, ngx_uint_t status);

/* ngx_http_shoal_relay.c */

ngx_int_t ngx_http_shoal_relay(ngx_http_shoal_fill_t *fill);
ngx_int_t ngx_http_shoal_relay_body(ngx_http_shoal_fill_t *fill,
    ngx_chain_t *in);
void ngx_http_shoal_relay_broken(ngx_http_shoal_fill_t *fill);

/* ngx_http_shoal_filter.c */

ngx_int_t ngx_http_shoal_filter_init(ngx_conf_t *cf);
void ngx_http_shoal_read_rules(ngx_http_shoal_fill_t *fill,
    ngx_http_shoal_rules_t *rules);

/* ngx_http_shoal_collect.c */

ngx_int_t ngx_http_shoal_collect(ngx_http_shoal_fill_t *fill);
ngx_int_t ngx_http_shoal_collect_body(ngx_http_shoal_fill_t *fill,
    ngx_chain_t *in);
size_t ngx_http_shoal_limit(ngx_http_shoal_fill_t *fill);
ngx_int_t ngx_http_shoal_reserve(ngx_http_shoal_fill_t *fill, size_t size);
void ngx_http_shoal_commit(ngx_http_shoal_fill_t *fill);
void ngx_http_shoal_again(ngx_http_shoal_fill_t *fill);
ngx_int_t ngx_http_shoal_uncacheable(ngx_http_shoal_fill_t *fill);
void ngx_http_shoal_discard(ngx_chain_t *in);

/* ngx_http_shoal_revalidate.c */

ngx_int_t ngx_http_shoal_condition(ngx_http_shoal_fill_t *fill);
ngx_int_t ngx_http_shoal_ask_anew(ngx_http_shoal_fill_t *fill);
ngx_int_t ngx_http_shoal_not_modified(ngx_http_shoal_fill_t *fill);
ngx_uint_t ngx_http_shoal_may_stand_in(const struct shoal_value *value);

/* ngx_http_shoal_rules.c */

void ngx_http_shoal_rules_init(ngx_http_shoal_rules_t *rules,
    ngx_uint_t ignored);
void ngx_http_shoal_rules_field(ngx_http_shoal_rules_t *rules, ngx_str_t *name,
    ngx_str_t *value);
void ngx_http_shoal_rules_list(ngx_http_shoal_rules_t *rules,
    ngx_list_t *headers);
void ngx_http_shoal_rules_decide(ngx_http_shoal_rules_t *rules,
    ngx_http_shoal_loc_conf_t *conf, ngx_uint_t status, ngx_uint_t authorized,
    ngx_http_shoal_lives_t *lives);
ngx_uint_t ngx_http_shoal_is_stored(ngx_str_t *name);
ngx_uint_t ngx_http_shoal_is(ngx_str_t *word, const char *name);

/* ngx_http_shoal_frame.c */

size_t ngx_http_shoal_frame_size(ngx_http_request_t *r, ngx_str_t *previous,
    ngx_http_shoal_frame_t *old);
void ngx_http_shoal_frame_write(ngx_http_shoal_fill_t *fill,
    ngx_str_t *previous, ngx_http_shoal_frame_t *old, u_char *p, size_t size);
ngx_uint_t ngx_http_shoal_frame_replaces(ngx_http_request_t *r,
    ngx_http_shoal_field_t *field);
void ngx_http_shoal_load_lives(ngx_http_shoal_fill_t *fill);
void ngx_http_shoal_frame_came(ngx_http_shoal_fill_t *fill);
ngx_int_t ngx_http_shoal_frame_check(ngx_str_t *response,
    ngx_http_shoal_frame_t *frame);
ngx_int_t ngx_http_shoal_frame_field(ngx_str_t *response,
    size_t *offset, size_t end, ngx_http_shoal_field_t *field);
ngx_int_t ngx_http_shoal_link_header(ngx_http_request_t *r,
    ngx_table_elt_t *h);
ngx_int_t ngx_http_shoal_frame_headers(ngx_http_request_t *r,
    ngx_str_t *response, ngx_http_shoal_frame_t *frame);

/* ngx_http_shoal_status.c */

ngx_int_t ngx_http_shoal_add_variables(ngx_conf_t *cf);
ngx_int_t ngx_http_shoal_metrics_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_shoal_status_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_shoal_add_headers(ngx_http_request_t *r,
    ngx_http_shoal_ctx_t *ctx);


#endif /* _NGX_HTTP_SHOAL_H_INCLUDED_ */
