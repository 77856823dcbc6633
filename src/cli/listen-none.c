/* SPDX-License-Identifier: MIT */
#include "listen.h"

int listen_serve(const struct call *call, const char *address, listen_text *text, void *arg)
{
	cli_error(call, "--listen: this command was built without libmicrohttpd");
	fputs("--output FILE --every 15s writes a file for node_exporter's textfile collector instead\n", stderr);
	return EXIT_FAILED;
}
