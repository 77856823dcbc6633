/* SPDX-License-Identifier: MIT */
/*
 * shoal in an nginx module of one's own: how a content handler parks a request, and answers it when the value is there.
 *
 *     location / { shoal_example 100ms; }
 *
 * answers each URI by a line that takes its time: a timer stands for what you would ask an upstream, or compute in a thread.
 * All workers share the lines, and each is made by one of them. What stands between the two rules is shoal's part, and the
 * rest is what nginx asks of any module. shoal-embed(7) explains it.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <shoal.h>


#define EXAMPLE_WAIT  60000


typedef struct {
    ngx_msec_t           takes;
} example_loc_conf_t;

typedef struct example_work_s  example_work_t;

/* a request */

typedef struct {
    ngx_http_request_t  *request;
    ngx_str_t            key;
    struct shoal_load   *load;    /* it waits for this one ... */
    example_work_t      *work;    /* ... or this is done for it */
    ngx_event_t          timer;   /* a worker that is told to go stays until then */
    ngx_uint_t           parked;
    ngx_uint_t           answered;
} example_ctx_t;

/* what is under way: it belongs to the load, and not to the request that caused it, whose client may leave */

struct example_work_s {
    struct shoal_load   *load;    /* NULL: it is not for the cache */
    example_ctx_t       *ctx;     /* NULL: nobody is here for it */
    ngx_event_t          timer;
    ngx_str_t            key;
};


extern ngx_module_t  ngx_http_shoal_example_module;

static ngx_int_t example_add_event(ngx_cycle_t *cycle, int fd,
    ngx_event_handler_pt handler);
static void example_answer(example_ctx_t *ctx, ngx_int_t status,
    const void *data, size_t size);
static void example_work(example_ctx_t *ctx, struct shoal_load *load,
    ngx_uint_t here);


/* ---- shoal's part ------------------------------------------------------- */

static struct shoal           *cache;
static struct shoal_keyspace  *lines;

/* In the master, before it forks. A reload keeps what there is; without a cache each request is worked for. */

static ngx_int_t
example_init_module(ngx_cycle_t *cycle)
{
    int                  rc = SHOAL_OK;
    struct shoal_policy  policy = { .fresh_ms = 600000, .stale_ms = 3600000, .retry_ms = 10000, .wait_ms = EXAMPLE_WAIT };

    if (cache == NULL && !ngx_test_config) {
        rc = shoal_open(getenv("SHOAL_CACHE"), NULL, &cache);
    }
    if (cache && lines == NULL) {
        rc = shoal_keyspace_open(cache, "line", 1, &policy, &lines);
    }
    if (rc != SHOAL_OK) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0, "without a cache: %s", shoal_strerror(rc));
    }
    return NGX_OK;
}

/* In each worker: a descriptor of its own in its loop. It may be there in place of one that died. */

static void
example_readable(ngx_event_t *ev)
{
    (void) shoal_dispatch(cache);
}

static ngx_int_t
example_init_process(ngx_cycle_t *cycle)
{
    int  fd = lines ? shoal_poll_fd(cache) : -1;

    (void) shoal_reap(cache);
    return fd < 0 ? NGX_OK : example_add_event(cycle, fd, example_readable);
}

/* What shoal_begin() says, and shoal_wait() later. */

static void example_woken(struct shoal_load *load, void *arg);

static void
example_outcome(example_ctx_t *ctx, int rc, struct shoal_load *load, struct shoal_value *value)
{
    ctx->load = NULL;
    switch (rc) {

    case SHOAL_REFRESH:    /* the next line is ours to get, for all; this client has the old one */
        example_work(ctx, load, 0);
        /* fall through */
    case SHOAL_OK:
        example_answer(ctx, NGX_HTTP_OK, value->data, value->size);
        shoal_release(value);
        return;
    case SHOAL_LEAD:
        example_work(ctx, load, 1);
        return;
    case SHOAL_WAIT:
        ctx->load = load;
        if (shoal_watch(load, example_woken, ctx) == SHOAL_OK) {
            return;
        }
        ctx->load = NULL;
        break;
    case SHOAL_ERR_LOAD:
        shoal_load_cancel(load);
        example_answer(ctx, value->load_error, NULL, 0);
        return;
    }
    shoal_load_cancel(load);    /* no cache, no slot, or it took too long: as if there were none */
    example_work(ctx, NULL, 1);
}

static void
example_begin(example_ctx_t *ctx)
{
    struct shoal_load   *load = NULL;
    struct shoal_value   value;

    int  rc = shoal_begin(lines, ctx->key.data, ctx->key.len, &load, &value);
    example_outcome(ctx, rc, load, &value);
}

static void
example_woken(struct shoal_load *load, void *arg)
{
    struct shoal_value   value;

    int  rc = shoal_wait(load, 0, &value);    /* does not wait */
    example_outcome(arg, rc, load, &value);
}

/* The work is done, or has failed: those who wait are told first, in all workers, then who is here. */

static void
example_done(example_work_t *work, ngx_int_t status, const void *data, size_t size)
{
    if (work->load) {
        (void) (status == NGX_HTTP_OK ? shoal_load_publish(work->load, data, size)
                                      : shoal_load_fail(work->load, (int) status));
    }
    if (work->ctx) {
        work->ctx->work = NULL;
        example_answer(work->ctx, status, data, size);
    }
}

/* The request ends, for whatever reason. The work goes on for the others. */

static void
example_gone(void *data)
{
    example_ctx_t *ctx = data;

    shoal_load_cancel(ctx->load);
    if (ctx->work) {
        ctx->work->ctx = NULL;
    }
}

/* A worker that leaves in peace has nothing in hand. From any other its death takes all. */

static void
example_exit_process(ngx_cycle_t *cycle)
{
    if (ngx_exiting && !ngx_terminate) {
        shoal_close(cache);
    }
}

/* ---- end of shoal's part ------------------------------------------------ */


static ngx_int_t
example_add_event(ngx_cycle_t *cycle, int fd, ngx_event_handler_pt handler)
{
    ngx_connection_t  *c;

    c = ngx_get_connection(fd, cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->read->handler = handler;
    c->read->log = cycle->log;
    c->write->log = cycle->log;
    c->read->channel = 1;         /* no client's: nobody waits for its end */
    c->write->channel = 1;

    return ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT);
}


/* of a copy, so that the value can be released at once, however slow the client is */

static ngx_int_t
example_send(ngx_http_request_t *r, const void *data, size_t size)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    b = ngx_create_temp_buf(r->pool, size + 1);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_cpymem(b->pos, data, size);
    b->last_buf = 1;
    out.buf = b;
    out.next = NULL;

    ngx_str_set(&r->headers_out.content_type, "text/plain");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = size;

    rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, &out);
}


static void
example_answer(example_ctx_t *ctx, ngx_int_t status, const void *data,
    size_t size)
{
    ngx_uint_t           parked;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;
    parked = ctx->parked;
    ctx->answered = 1;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    ngx_http_finalize_request(r, status == NGX_HTTP_OK
                                 ? example_send(r, data, size) : status);

    if (parked) {
        ngx_http_run_posted_requests(c);
    }
}


/* the work: a timer, and then a line. What asks for "fail" fails. */

static void
example_worked(ngx_event_t *ev)
{
    u_char             line[2048], *end;
    example_work_t    *work;
    static ngx_uint_t  n;

    work = ev->data;
    end = ngx_snprintf(line, sizeof(line), "process %P, line %ui: %V\n",
                       ngx_pid, ++n, &work->key);

    example_done(work,
                 ngx_strnstr(work->key.data, "fail", work->key.len)
                 ? NGX_HTTP_BAD_GATEWAY : NGX_HTTP_OK,
                 line, end - line);
    ngx_free(work);
}


static void
example_work(example_ctx_t *ctx, struct shoal_load *load, ngx_uint_t here)
{
    example_work_t      *work;
    example_loc_conf_t  *elcf;

    work = ngx_calloc(sizeof(example_work_t) + ctx->key.len, ngx_cycle->log);

    if (work == NULL) {
        shoal_load_cancel(load);

        if (here) {
            example_answer(ctx, NGX_HTTP_INTERNAL_SERVER_ERROR, NULL, 0);
        }

        return;
    }

    elcf = ngx_http_get_module_loc_conf(ctx->request,
                                        ngx_http_shoal_example_module);

    work->load = load;
    work->key.len = ctx->key.len;
    work->key.data = (u_char *) (work + 1);
    ngx_memcpy(work->key.data, ctx->key.data, ctx->key.len);
    work->timer.handler = example_worked;
    work->timer.data = work;
    work->timer.log = ngx_cycle->log;
    ngx_add_timer(&work->timer, elcf->takes);

    if (here) {
        work->ctx = ctx;
        ctx->work = work;
    }
}


/* nobody should need it: the library has a deadline of its own */

static void
example_late(ngx_event_t *ev)
{
    example_ctx_t *ctx = ev->data;

    if (ctx->load) {
        example_woken(ctx->load, ctx);
    }
}


static void
example_cleanup(void *data)
{
    example_ctx_t *ctx = data;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    example_gone(ctx);
}


static void
example_park(example_ctx_t *ctx)
{
    ngx_http_request_t *r = ctx->request;

    ctx->parked = 1;
    ctx->timer.handler = example_late;
    ctx->timer.data = ctx;
    ctx->timer.log = r->connection->log;
    ngx_add_timer(&ctx->timer, EXAMPLE_WAIT + 1000);

    r->read_event_handler = ngx_http_test_reading;      /* has it left? */
    r->write_event_handler = ngx_http_request_empty_handler;
    (void) ngx_handle_read_event(r->connection->read, 0);
}


static ngx_int_t
example_handler(ngx_http_request_t *r)
{
    ngx_int_t            rc;
    example_ctx_t       *ctx;
    ngx_pool_cleanup_t  *cln;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(example_ctx_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(example_ctx_t));
    ctx->request = r;
    ctx->key = r->unparsed_uri;
    cln->handler = example_cleanup;

    r->main->count++;
    example_begin(ctx);

    if (!ctx->answered) {
        example_park(ctx);
    }

    return NGX_DONE;
}


static char *
example_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = example_handler;

    return ngx_conf_set_msec_slot(cf, cmd, conf);
}


static void *
example_create_loc_conf(ngx_conf_t *cf)
{
    example_loc_conf_t  *elcf;

    elcf = ngx_pcalloc(cf->pool, sizeof(example_loc_conf_t));
    if (elcf) {
        elcf->takes = NGX_CONF_UNSET_MSEC;
    }

    return elcf;
}


static ngx_command_t  example_commands[] = {

    { ngx_string("shoal_example"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      example_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(example_loc_conf_t, takes),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  example_ctx = {
    NULL,                          /* preconfiguration */
    NULL,                          /* postconfiguration */
    NULL,                          /* create main configuration */
    NULL,                          /* init main configuration */
    NULL,                          /* create server configuration */
    NULL,                          /* merge server configuration */
    example_create_loc_conf,       /* create location configuration */
    NULL                           /* merge location configuration */
};


ngx_module_t  ngx_http_shoal_example_module = {
    NGX_MODULE_V1,
    &example_ctx,                  /* module context */
    example_commands,              /* module directives */
    NGX_HTTP_MODULE,               /* module type */
    NULL,                          /* init master */
    example_init_module,           /* init module */
    example_init_process,          /* init process */
    NULL,                          /* init thread */
    NULL,                          /* exit thread */
    example_exit_process,          /* exit process */
    NULL,                          /* exit master */
    NGX_MODULE_V1_PADDING
};
