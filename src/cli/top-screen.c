/* SPDX-License-Identifier: MIT */
/*
 * The screen, by ncurses: it writes only what has changed, so nothing flickers. Signals that end a program are read
 * from a descriptor, so whatever ends it, the terminal is as it was.
 */
#include "top.h"

#include <curses.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct screen {
	struct top_look *l;
	struct top_choice *c;
	enum top_view before_help;
	double every, next_look, next_sample;
	bool colour, failed, done;
	int ended_by; /* a signal */
};

/* ---- drawing ----------------------------------------------------------------------------------------------- */

static attr_t style_of(const struct screen *s, enum top_style style)
{
	switch (style) {
	case STYLE_TITLE: return A_BOLD | (s->colour ? COLOR_PAIR(1) : 0);
	case STYLE_HEAD: return A_REVERSE;
	case STYLE_ALARM: return A_BOLD | (s->colour ? COLOR_PAIR(2) : 0);
	default: return A_NORMAL;
	}
}

static void draw(struct screen *s)
{
	int rows, columns;
	struct top_page page = {0};
	size_t i;

	getmaxyx(stdscr, rows, columns);
	page.width = (unsigned)columns;
	page.height = (unsigned)rows;
	if (!top_page(&page, s->l, s->c))
		s->failed = true;
	erase();
	for (i = 0; i < page.count; i++) {
		attr_t style = style_of(s, page.lines[i].style);

		move((int)i, 0);
		attrset(style);
		addstr(page.lines[i].text);
		if (page.lines[i].style == STYLE_HEAD)
			chgat(-1, style, 0, NULL);
	}
	attrset(A_NORMAL);
	refresh();
	top_page_end(&page);
}

/* ---- keys -------------------------------------------------------------------------------------------------- */

static void show_view(struct screen *s, enum top_view view)
{
	if (view == VIEW_HELP && s->c->view == VIEW_HELP) {
		s->c->view = s->before_help;
		return;
	}
	if (view == VIEW_HELP)
		s->before_help = s->c->view;
	s->c->view = view;
	s->c->scroll = 0;
}

static void scroll_by(struct screen *s, int rows)
{
	long to = (long)s->c->scroll + rows;

	s->c->scroll = to > 0 ? (unsigned)to : 0; /* the page knows how far it goes */
}

static void scroll_key(struct screen *s, int key)
{
	switch (key) {
	case KEY_UP: case 'k': scroll_by(s, -1); break;
	case KEY_DOWN: case 'j': scroll_by(s, 1); break;
	case KEY_PPAGE: scroll_by(s, -(LINES - 5)); break;
	case KEY_NPAGE: scroll_by(s, LINES - 5); break;
	case KEY_HOME: s->c->scroll = 0; break;
	default: break;
	}
}

static void take_key(struct screen *s, int key)
{
	struct top_choice *c = s->c;

	switch (key) {
	case 'q': case 'Q': s->done = true; break;
	case '?': case 'h': show_view(s, VIEW_HELP); break;
	case 27: if (c->view == VIEW_HELP) show_view(s, VIEW_HELP); break;
	case ' ': case 'p': c->paused = !c->paused; break;
	case 't': c->totals = !c->totals; break;
	case 'r': c->reverse = !c->reverse; break;
	case 's': case '>': c->sort = (c->sort + 1) % TOP_SORT_COUNT; break;
	case '<': c->sort = (c->sort + TOP_SORT_COUNT - 1) % TOP_SORT_COUNT; break;
	case '\t': show_view(s, (c->view + 1) % VIEWS); break;
	case 12: clearok(stdscr, TRUE); break; /* ^L */
	default:
		if (key >= '1' && key < '1' + VIEWS)
			show_view(s, (enum top_view)(key - '1'));
		else
			scroll_key(s, key);
	}
}

static void take_keys(struct screen *s)
{
	int key;

	while (!s->done && (key = getch()) != ERR)
		take_key(s, key);
	draw(s);
}

/* ---- the time between -------------------------------------------------------------------------------------- */

static int ms_until(double when)
{
	double ms = (when - top_now()) * 1e3;

	return ms <= 0 ? 0 : ms > 1e6 ? 1000000 : (int)ms + 1;
}

/* What is due: a sample, a look. */
static void pass_time(struct screen *s)
{
	double now = top_now();

	if (s->c->paused)
		return;
	if (now >= s->next_look) {
		s->next_look = now + s->every;
		s->failed |= !top_look(s->l);
		draw(s);
	} else if (now >= s->next_sample) {
		s->failed |= !top_sample(s->l);
	}
	if (now >= s->next_sample)
		s->next_sample = now + top_next_sample(s->every);
}

static void run(struct screen *s, int signals)
{
	struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	struct signalfd_siginfo info;
	int n, wait;

	draw(s);
	while (!s->done && !s->failed) {
		wait = s->c->paused ? -1 : ms_until(s->next_sample < s->next_look ? s->next_sample : s->next_look);
		n = poll(fds, 2, wait);
		if (n < 0 && errno == EINTR)
			take_keys(s); /* another size: ncurses tells it as a key */
		else if (n > 0 && fds[1].revents) {
			if (read(signals, &info, sizeof(info)) == sizeof(info))
				s->ended_by = (int)info.ssi_signo;
			s->done = true;
		} else if (n > 0 && (fds[0].revents & POLLIN)) {
			take_keys(s);
		} else if (n != 0) {
			s->done = true; /* the terminal is gone */
		}
		if (!s->done)
			pass_time(s);
	}
}

/* ---- the terminal ------------------------------------------------------------------------------------------ */

static void prepare(struct screen *s)
{
	s->colour = cli_colour(stdout) && has_colors() && start_color() == OK;
	if (s->colour) {
		use_default_colors();
		init_pair(1, COLOR_CYAN, -1);
		init_pair(2, COLOR_RED, -1);
	}
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	set_escdelay(25);
	curs_set(0);
}

static int ending(const struct call *call, const struct screen *s)
{
	sigset_t one;

	if (s->failed)
		return cli_failed(call, "top", SHOAL_ERR_SYSTEM);
	if (!s->ended_by || s->ended_by == SIGINT) /* ^C is how one leaves it */
		return EXIT_DONE;
	signal(s->ended_by, SIG_DFL);
	raise(s->ended_by);
	sigemptyset(&one);
	sigaddset(&one, s->ended_by);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	return EXIT_FAILED;
}

int top_screen(const struct call *call, struct top_look *l, struct top_choice *choice, double every)
{
	struct screen s = {.l = l, .c = choice, .every = every};
	sigset_t ends;
	SCREEN *terminal;
	int signals, error;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGHUP);
	sigaddset(&ends, SIGQUIT);
	signals = signalfd(-1, &ends, SFD_CLOEXEC);
	if (signals < 0)
		return SCREEN_NONE;
	terminal = newterm(NULL, stdout, stdin);
	if (!terminal) { /* TERM is nothing it knows */
		close(signals);
		return SCREEN_NONE;
	}
	sigprocmask(SIG_BLOCK, &ends, NULL);
	prepare(&s);
	s.next_look = top_now() + every;
	s.next_sample = top_now() + top_next_sample(every);
	run(&s, signals);
	error = errno;
	endwin();
	delscreen(terminal);
	close(signals);
	errno = error;
	return ending(call, &s);
}
