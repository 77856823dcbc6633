/* SPDX-License-Identifier: MIT */
/*
 * The nginx module in front of applications: PHP by FastCGI (php-fpm), Python by uwsgi. They ask the origin that counts
 * and hand on what it says, so a load is held up, counted and told apart as by proxy_pass.
 */
#include <glob.h>
#include <pwd.h>
#include <sys/un.h>

#include "crowd.h"

static const char locations[] =
	"location /php/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  shoal_retry 1h; shoal_valid 404 1h; gzip on;\n"
	"  fastcgi_param SCRIPT_FILENAME FOLDER/apps/app.php; fastcgi_param APP_ORIGIN PLAIN;\n"
	"  fastcgi_param REQUEST_METHOD $request_method; fastcgi_param REQUEST_URI $request_uri;\n"
	"  fastcgi_param QUERY_STRING $query_string; fastcgi_param CONTENT_TYPE $content_type;\n"
	"  fastcgi_param CONTENT_LENGTH $content_length; fastcgi_pass unix:FOLDER/apps/php; }\n"
	"location /uwsgi/ { shoal ZONE; shoal_key $request_uri; shoal_purge soft $purge; shoal_fresh 1h; "
	"shoal_stale 1h;\n"
	"  shoal_retry 1h; shoal_valid 404 1h; gzip on; uwsgi_param APP_ORIGIN PLAIN;\n"
	"  uwsgi_param REQUEST_METHOD $request_method; uwsgi_param REQUEST_URI $request_uri; "
	"uwsgi_param PATH_INFO $uri;\n"
	"  uwsgi_param QUERY_STRING $query_string; uwsgi_param CONTENT_TYPE $content_type;\n"
	"  uwsgi_param CONTENT_LENGTH $content_length; uwsgi_param SERVER_PROTOCOL $server_protocol;\n"
	"  uwsgi_param SERVER_NAME $server_name; uwsgi_param SERVER_PORT $server_port; "
	"uwsgi_pass unix:FOLDER/apps/uwsgi; }\n";

static const struct setup setup = {.locations = locations};

/* ---- the applications ---------------------------------------------------------------------------------------- */

struct app {
	const char *name; /* of its socket, and the first part of its paths */
	const char *missing;
	pid_t master;
};

static struct app php = {.name = "php", .missing = "no php-fpm"},
		  uwsgi = {.name = "uwsgi", .missing = "no uWSGI with Python"};

static const char fpm_conf[] =
	"[global]\nerror_log = FOLDER/apps/php.log\ndaemonize = no\n"
	"[www]\nlisten = FOLDER/apps/php\nlisten.mode = 0666\nlisten.backlog = 511\npm = static\npm.max_children = 4\n"
	"catch_workers_output = yes\n";

/* To a folder that its user may read, whoever may read the tests. */
static void copy_application(const char *name)
{
	char command[512], *to = strdup(site_file(&site, "apps"));

	snprintf(command, sizeof(command), "cp '" TEST_FOLDER "/%s' '%s/' && chmod 644 '%s/%s'", name, to, to, name);
	assert_int_equal(system(command), 0);
	free(to);
}

static void run_fpm(const char *program)
{
	FILE *f = fopen(site_file(&site, "apps/fpm.conf"), "w");

	assert_non_null(f);
	write_text(&site, f, fpm_conf);
	if (!geteuid())
		fprintf(f, "user = nobody\ngroup = nogroup\n");
	assert_int_equal(fclose(f), 0);
	fflush(NULL);
	php.master = fork();
	assert_true(php.master >= 0);
	if (php.master)
		return;
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* it ends those that it has started */
	freopen(site_file(&site, "apps/php.output"), "w", stderr);
	execl(program, program, "-n", "-F", "-y", site_file(&site, "apps/fpm.conf"), (char *)NULL);
	_exit(127);
}

static void run_uwsgi(const char *program)
{
	struct passwd *nobody = getpwnam("nobody");
	char script[128], socket[128];

	snprintf(script, sizeof(script), "%s", site_file(&site, "apps/app.py"));
	snprintf(socket, sizeof(socket), "%s", site_file(&site, "apps/uwsgi"));
	fflush(NULL);
	uwsgi.master = fork();
	assert_true(uwsgi.master >= 0);
	if (uwsgi.master)
		return;
	freopen(site_file(&site, "apps/uwsgi.output"), "w", stdout);
	dup2(STDOUT_FILENO, STDERR_FILENO);
	if (!geteuid() && nobody && (setgid(nobody->pw_gid) || setuid(nobody->pw_uid)))
		_exit(126);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	execl(program, program, "--plugins", "python3", "--socket", socket, "--chmod-socket=666", "--wsgi-file", script,
	      "--master", "--processes", "4", "--need-app", "--die-on-term", "--no-orphans", (char *)NULL);
	_exit(127);
}

static void await_socket(const struct app *app)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	uint64_t began = 0;

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/apps/%s", site.folder, app->name);
	for (;;) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool there = !connect(fd, (struct sockaddr *)&at, sizeof(at));

		close(fd);
		if (there)
			return;
		if (waitpid(app->master, NULL, WNOHANG))
			fail_msg("%s ended; see %s/apps", app->name, site.folder);
		site_turn(&began);
	}
}

/* The first that is there. */
static char *program_of(const char *pattern)
{
	glob_t found;
	char *path = NULL;

	if (!glob(pattern, 0, NULL, &found))
		path = strdup(found.gl_pathv[0]);
	globfree(&found);
	return path;
}

static int begin_with_applications(void **state)
{
	char *fpm = program_of("/usr/sbin/php-fpm*"), *python = program_of("/usr/bin/uwsgi_python3");

	begin(state);
	assert_int_equal(mkdir(site_file(&site, "apps"), 0777), 0);
	assert_int_equal(chmod(site_file(&site, "apps"), 0777), 0);
	copy_application("app.php");
	copy_application("app.py");
	if (fpm) {
		run_fpm(fpm);
		await_socket(&php);
	}
	if (python) {
		run_uwsgi(python);
		await_socket(&uwsgi);
	}
	free(fpm);
	free(python);
	return 0;
}

static int end_with_applications(void **state)
{
	const pid_t masters[] = {php.master, uwsgi.master};

	for (size_t i = 0; i < COUNT(masters); i++)
		if (masters[i]) {
			kill(masters[i], SIGTERM);
			ending_of(masters[i]);
		}
	return end(state);
}

static bool is_missing(const struct app *app)
{
	if (!app->master)
		skipped("%s", app->missing);
	return !app->master;
}

/* ---- what is asked of each ----------------------------------------------------------------------------------- */

#define PATH(what)                                                                                                     \
	char path[64];                                                                                                 \
	if (is_missing(app))                                                                                           \
		return;                                                                                                \
	snprintf(path, sizeof(path), "/%s/" what, app->name)

static char *target_of(const char *path, const char *query)
{
	static char target[128];

	snprintf(target, sizeof(target), "%s?%s", path, query);
	return target;
}

static void one_load_for_a_crowd(const struct app *app)
{
	char target[160];
	struct crowd c;
	PATH("crowd");

	snprintf(target, sizeof(target), "%s?gate=%s", path, path);
	gather(&c, CROWD);
	all_ask(&c, target);
	await_crowd(&c, CROWD - 1);
	origin(&site, "open?%s", path);
	all_get(&c, path, 1);
	disperse(&c);
	expect(&site, target, "HIT", path, 1);
	COUNTS(path, 1);
}

static void stale_while_one_refreshes(const struct app *app)
{
	char target[160];
	PATH("stale");

	snprintf(target, sizeof(target), "%s?gate=%s", path, path);
	origin(&site, "open?%s", path);
	expect(&site, target, "MISS", path, 1);
	origin(&site, "shut?%s", path);
	purge(&site, target, 204);
	for (int i = 0; i < 3; i++)
		expect(&site, target, "STALE", path, 1);
	origin(&site, "await?%s&2", path);
	expect(&site, target, "STALE", path, 1);
	origin(&site, "open?%s", path);
	await_status(&site, target, "HIT");
	expect(&site, target, "HIT", path, 2);
	COUNTS(path, 2);
}

static void headers_say_what_is_stored(const struct app *app)
{
	const char *stored = "h=Cache-Control:max-age%3D1000&h=X-One:1&h=Content-Type:a/b",
		   *own[] = {"h=Set-Cookie:a%3D1", "h=Cache-Control:private", "h=Cache-Control:no-store",
			     "h=Expires:0"};
	struct response r;
	PATH("headers");

	for (int i = 0; i < 2; i++) {
		r = web_get(site.port, target_of(path, stored));
		assert_true(was(&r, i ? "HIT" : "MISS"));
		assert_string_equal(web_header(&r, "X-One"), "1");
		assert_string_equal(web_header(&r, "Content-Type"), "a/b");
		assert_string_equal(web_header(&r, "Cache-Control"), "max-age=1000");
		assert_body(&r, path, 1, 64);
		web_free(&r);
	}
	for (unsigned i = 0; i < 2 * COUNT(own); i++) {
		r = web_get(site.port, target_of(path, own[i / 2]));
		assert_int_equal(r.status, 200);
		assert_true(was(&r, i % 2 ? "PASS" : "MISS"));
		assert_body(&r, path, 2 + i, 64);
		assert_true(i / 2 || web_header(&r, "Set-Cookie"));
		web_free(&r);
	}
}

/* Of a response the application says the status in a header, `Status`. */
static void statuses_are_kept(const struct app *app)
{
	struct response r;
	PATH("status");

	for (int i = 0; i < 2; i++) {
		r = web_get(site.port, target_of(path, "status=404"));
		assert_int_equal(r.status, 404);
		assert_true(was(&r, i ? "HIT" : "MISS"));
		assert_body(&r, path, 1, 64);
		web_free(&r);
	}
	for (int i = 0; i < 3; i++) {
		r = web_get(site.port, target_of(path, "status=503"));
		assert_int_equal(r.status, 503);
		assert_true(was(&r, i ? "ERROR" : "MISS"));
		web_free(&r);
	}
	COUNTS(path, 2);
}

static void conditions_go_both_ways(const struct app *app)
{
	struct response r;
	char *last;
	PATH("condition");

	r = web_do(site.port, "GET", target_of(path, "etag=a"),
	           "If-None-Match: \"b\"\r\nX-Own: yes\r\nRange: bytes=0-3\r\n");
	assert_int_equal(r.status, 206);
	web_free(&r);
	last = origin_last(&site, path);
	assert_non_null(strstr(last, "X-Own: yes\r\n"));
	assert_null(strstr(last, "If-None-Match"));
	free(last);
	r = web_do(site.port, "GET", target_of(path, "etag=a"), "If-None-Match: \"a\"\r\n");
	assert_int_equal(r.status, 304);
	web_free(&r);
	purge(&site, target_of(path, "etag=a"), 204);
	expect(&site, target_of(path, "etag=a"), "STALE", path, 1);
	await_status(&site, target_of(path, "etag=a"), "HIT");
	expect(&site, target_of(path, "etag=a"), "HIT", path, 1);
	COUNTS(path, 2);
	last = origin_last(&site, path);
	assert_non_null(strstr(last, "If-None-Match: \"a\"\r\n"));
	free(last);
}

static void methods_and_sizes(const struct app *app)
{
	const size_t sizes[] = {0, 60000, 1000000}; /* the last is larger than an entry may be */
	struct response r;
	struct web w;
	char *last, query[64];
	PATH("head");

	r = web_do(site.port, "HEAD", path, NULL);
	assert_int_equal(r.status, 200);
	web_free(&r);
	expect(&site, path, "HIT", path, 1);
	last = origin_last(&site, path);
	assert_memory_equal(last, "GET ", 4);
	free(last);
	w = web_connect(site.port);
	web_ask(&w, "POST", path, "Content-Length: 5\r\nContent-Type: x/y\r\n");
	web_send(&w, "hello", 5);
	r = web_read(&w);
	assert_true(was(&r, "PASS"));
	assert_body(&r, path, 2, 64);
	web_free(&r);
	web_close(&w);
	last = origin_last(&site, path);
	assert_non_null(strstr(last, "\r\n\r\nhello"));
	free(last);
	for (unsigned i = 0; i < 2 * COUNT(sizes); i++) {
		snprintf(path, sizeof(path), "/%s/size/%zu", app->name, sizes[i / 2]);
		snprintf(query, sizeof(query), "size=%zu", sizes[i / 2]);
		r = web_get(site.port, target_of(path, query));
		assert_int_equal(r.status, 200);
		assert_body(&r, path, i == 5 ? 2 : 1, sizes[i / 2]);
		assert_true(was(&r, i == 5 ? "PASS" : i % 2 ? "HIT" : "MISS"));
		web_free(&r);
	}
}

/* ---- who dies ------------------------------------------------------------------------------------------------ */

static void a_killed_worker_has_one_heir(const struct app *app)
{
	unsigned elsewhere = 0;
	char target[160];
	struct crowd c;
	pid_t leader;
	PATH("killed");

	snprintf(target, sizeof(target), "%s?gate=%s", path, path);
	gather(&c, 32);
	all_ask(&c, target);
	await_crowd(&c, 31);
	leader = site_leader(&site, target);
	origin(&site, "await?%s&1", path); /* or the heir's may be the first there */
	kill(leader, SIGKILL);
	for (unsigned i = 0; i < c.n; i++)
		elsewhere += c.workers[i] != leader;
	if (elsewhere)
		origin(&site, "await?%s&2", path);
	origin(&site, "open?%s", path);
	for (unsigned i = 0; i < c.n; i++) {
		struct response r = web_read(&c.clients[i]);

		if (c.workers[i] != leader)
			assert_body(&r, path, 2, 64);
		web_free(&r);
	}
	disperse(&c);
	await_workers(&site);
	if (elsewhere)
		COUNTS(path, 2);
	else
		skipped("one worker has all the clients");
}

/* The process of the application that is at the gate. */
static pid_t application_of(const char *path)
{
	char *last = origin_last(&site, path), *at = strstr(last, "X-Pid: ");
	pid_t pid = at ? atoi(at + 7) : 0;

	free(last);
	assert_true(pid > 1);
	return pid;
}

/* Killed amid a load it has no answer: those who wait share that, those who have an older value keep it. */
static void a_killed_application_is_an_error(const struct app *app)
{
	char target[160];
	struct crowd c;
	PATH("dies");

	snprintf(target, sizeof(target), "%s?gate=%s", path, path);
	gather(&c, 16);
	all_ask(&c, target);
	await_crowd(&c, 15);
	origin(&site, "await?%s&1", path);
	kill(application_of(path), SIGKILL);
	for (unsigned i = 0; i < c.n; i++) {
		struct response r = web_read(&c.clients[i]);

		assert_int_equal(r.status, 502);
		web_free(&r);
	}
	disperse(&c);
	COUNTS(path, 1);
	origin(&site, "open?%s", path);
}

static void a_killed_application_leaves_what_was(const struct app *app)
{
	char target[160];
	PATH("remains");

	snprintf(target, sizeof(target), "%s?gate=%s", path, path);
	origin(&site, "open?%s", path);
	expect(&site, target, "MISS", path, 1);
	origin(&site, "shut?%s", path);
	purge(&site, target, 204);
	expect(&site, target, "STALE", path, 1);
	origin(&site, "await?%s&2", path);
	kill(application_of(path), SIGKILL);
	for (int i = 0; i < 5; i++)
		expect(&site, target, "STALE", path, 1);
	COUNTS(path, 2);
	origin(&site, "open?%s", path);
}

/* ---- both ---------------------------------------------------------------------------------------------------- */

#define BOTH(name)                                                                                                     \
	static void php_##name(void **state)                                                                           \
	{                                                                                                              \
		name(&php);                                                                                            \
	}                                                                                                              \
	static void uwsgi_##name(void **state)                                                                         \
	{                                                                                                              \
		name(&uwsgi);                                                                                          \
	}

BOTH(one_load_for_a_crowd)
BOTH(stale_while_one_refreshes)
BOTH(headers_say_what_is_stored)
BOTH(statuses_are_kept)
BOTH(conditions_go_both_ways)
BOTH(methods_and_sizes)
BOTH(a_killed_application_is_an_error)
BOTH(a_killed_application_leaves_what_was)
BOTH(a_killed_worker_has_one_heir)

#define CASES(name) CASE(php_##name), CASE(uwsgi_##name)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASES(one_load_for_a_crowd),
		CASES(stale_while_one_refreshes),
		CASES(headers_say_what_is_stored),
		CASES(statuses_are_kept),
		CASES(conditions_go_both_ways),
		CASES(methods_and_sizes),
		CASES(a_killed_application_is_an_error),
		CASES(a_killed_application_leaves_what_was),
		CASE_WITH_KILLS(php_a_killed_worker_has_one_heir),
		CASE_WITH_KILLS(uwsgi_a_killed_worker_has_one_heir),
	};

	cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
	return cmocka_run_group_tests_name("origins", tests, begin_with_applications, end_with_applications);
}
