/* SPDX-License-Identifier: MIT */
/*
 * shoal in an nginx module of one's own: how a content handler parks a request, and answers it when the value is there.
 *
 *     location / { shoal_example 100ms; }
 *
 * answers each URI by a line that takes its time: a timer stands for what you would ask an upstream, or compute in a
 * thread. All workers share the lines, and each is made by one of them. What stands between the two rules is shoal's
 * part, and the rest is what nginx asks of any module. shoal-embed(7) explains it.
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

static void example_answer(example_ctx_t *ctx, ngx_int_t status,
    const void *data, size_t size);
static void example_work(example_ctx_t *ctx, struct shoal_load *load,
    ngx_uint_t here);


/* ---- shoal's part ------------------------------------------------------- */

static struct shoal           *cache;
static struct shoal_keyspace  *lines;

static void example_outcome(example_ctx_t *ctx, int rc, struct shoal_load *load,
                            struct shoal_value *value);

static int example_open(void)    /* in the master, before it forks; a reload finds it open */
{
    struct shoal_policy  policy = { .fresh_ms = 600000, .stale_ms = 3600000,
                                     .retry_ms = 10000, .wait_ms = EXAMPLE_WAIT };
    int  rc = cache ? SHOAL_OK : shoal_open(getenv("SHOAL_CACHE"), NULL, &cache);

    return rc == SHOAL_OK && !lines ? shoal_keyspace_open(cache, "line", 1, &policy, &lines) : rc;
}

static int example_descriptor(void)    /* in each worker, after the fork: to be read in its loop */
{
    shoal_reap(cache);    /* it may be there in place of one that died */
    return lines ? shoal_poll_fd(cache) : SHOAL_ERR_INVALID;
}

static void example_readable(ngx_event_t *ev)    /* when that is readable */
{
    shoal_dispatch(cache);    /* calls example_woken() for each that has an outcome */
}

static void example_begin(example_ctx_t *ctx)    /* a request: it is answered once, now or later */
{
    struct shoal_value  value;
    struct shoal_load  *load = NULL;
    int  rc = shoal_begin(lines, ctx->key.data, ctx->key.len, &load, &value);

    example_outcome(ctx, rc, load, &value);
}

static void example_woken(struct shoal_load *load, void *ctx)
{
    struct shoal_value  value;
    int  rc = shoal_wait(load, 0, &value);    /* doesn't wait */

    example_outcome(ctx, rc, load, &value);
}

static void example_outcome(example_ctx_t *ctx, int rc, struct shoal_load *load,
                            struct shoal_value *value)
{
    ctx->load = NULL;
    if (rc == SHOAL_REFRESH) {
        example_work(ctx, load, 0);    /* for all; this client has the old value */
    }
    if (rc == SHOAL_OK || rc == SHOAL_REFRESH) {
        example_answer(ctx, NGX_HTTP_OK, value->data, value->size);
        shoal_release(value);
    } else if (rc == SHOAL_LEAD) {
        example_work(ctx, load, 1);
    } else if (rc == SHOAL_WAIT && shoal_watch(load, example_woken, ctx) == SHOAL_OK) {
        ctx->load = load;
    } else {
        shoal_load_cancel(load);    /* NULL is harmless */
        if (rc == SHOAL_ERR_LOAD) {
            example_answer(ctx, value->load_error, NULL, 0);    /* its status */
        } else if (rc == SHOAL_ERR_TIMEOUT || rc == SHOAL_ERR_BUSY) {
            example_answer(ctx, NGX_HTTP_SERVICE_UNAVAILABLE, NULL, 0);
        } else {
            example_work(ctx, NULL, 1);    /* no cache, or no slot in it: without */
        }
    }
}

static void example_done(example_work_t *work, ngx_int_t status, const void *data,
                         size_t size)
{
    if (work->load && status == NGX_HTTP_OK) {
        shoal_load_publish(work->load, data, size);    /* wakes who waits, in all workers */
    } else if (work->load) {
        shoal_load_fail(work->load, (int) status);
    }
    if (work->ctx) {
        work->ctx->work = NULL;
        example_answer(work->ctx, status, data, size);
    }
}

static void example_gone(example_ctx_t *ctx)    /* the request ends, but not the work for it */
{
    shoal_load_cancel(ctx->load);
    if (ctx->work) {
        ctx->work->ctx = NULL;
    }
}

static void example_exit_process(ngx_cycle_t *cycle)
{
    if (ngx_exiting && !ngx_terminate) {
        shoal_close(cache);    /* with nothing in hand; from others their death takes all */
    }
}

/* ---- end of shoal's part ------------------------------------------------ */


static ngx_int_t
example_init_module(ngx_cycle_t *cycle)
{
    int  rc;

    if (ngx_test_config) {
        return NGX_OK;
    }

    rc = example_open();
    if (rc != SHOAL_OK) {
        ngx_log_error(NGX_LOG_WARN, cycle->log,
                      rc == SHOAL_ERR_SYSTEM ? ngx_errno : 0,
                      "no cache, each request does the work: %s",
                      shoal_strerror(rc));
    }

    return NGX_OK;
}


static ngx_int_t
example_init_process(ngx_cycle_t *cycle)
{
    int                fd;
    ngx_connection_t  *c;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) {
        return NGX_OK;
    }

    fd = example_descriptor();
    if (fd < 0) {
        return NGX_OK;            /* nobody waits: see example_outcome() */
    }

    c = ngx_get_connection(fd, cycle->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->read->handler = example_readable;
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

    if (status == NGX_HTTP_OK) {
        status = example_send(r, data, size);

    } else if (status < 400 || status > 599) {
        status = NGX_HTTP_BAD_GATEWAY;    /* another program's code */
    }

    ngx_http_finalize_request(r, status);

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
