/* SPDX-License-Identifier: MIT */
/* Completion for bash, from the tables of verbs and options. */
#include "cli.h"

#include <string.h>

static const struct option_spec completion_options[] = {OPTIONS_END};

/* What may stand behind it: a line of bash that fills COMPREPLY. */
static void print_values(const struct option_spec *s)
{
	char words[256];
	char *w;

	if (s->kind == KIND_CHOICE) {
		snprintf(words, sizeof(words), "%s", s->value);
		for (w = words; *w; w++)
			*w = *w == '|' ? ' ' : *w;
		printf("COMPREPLY=($(compgen -W '%s' -- \"$cur\"))", words);
	} else if (!strcmp(s->name, "cache")) {
		printf("COMPREPLY=($(compgen -W \"$(_shoal_caches)\" -- \"$cur\"))");
	} else if (!strcmp(s->value, "USER")) {
		printf("COMPREPLY=($(compgen -u -- \"$cur\"))");
	} else if (!strcmp(s->value, "FILE")) {
		printf("COMPREPLY=($(compgen -f -- \"$cur\"))");
	} else {
		printf("COMPREPLY=()");
	}
}

static void print_verb(const struct verb *verb)
{
	const struct option_spec *s;

	printf("\t%s)\n\t\twords='--help", verb->name);
	for (s = verb->options; s->name; s++)
		printf(" --%s", s->name);
	printf("'\n\t\tcase $prev in\n");
	for (s = verb->options; s->name; s++) {
		if (s->kind == KIND_FLAG)
			continue;
		printf("\t\t--%s", s->name);
		if (s->letter)
			printf(" | -%c", s->letter);
		printf(") ");
		print_values(s);
		printf(" && return ;;\n");
	}
	printf("\t\t*) : ;;\n\t\tesac\n\t\t;;\n");
}

static int completion(const struct call *call)
{
	const struct verb *verb;
	size_t i;

	if (strcmp(call->arguments[0], "bash") != 0)
		return cli_usage(call, "for bash only, not '%s'", call->arguments[0]);
	fputs("# bash completion for shoal, by `shoal completion bash`\n"
	      "_shoal_caches() {\n"
	      "\tlocal f\n"
	      "\tfor f in /dev/shm/shoal.*.v*; do\n"
	      "\t\t[ -e \"$f\" ] || continue\n"
	      "\t\tf=${f#/dev/shm/shoal.}\n"
	      "\t\techo \"${f%.v*}\"\n"
	      "\tdone\n"
	      "}\n"
	      "_shoal() {\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words verbs='", stdout);
	for (i = 0; (verb = cli_verb(i)); i++)
		printf("%s%s", i ? " " : "", verb->name);
	fputs("'\n"
	      "\tCOMPREPLY=()\n"
	      "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W \"$verbs --help --version\" -- \"$cur\"))\n"
	      "\t\treturn\n"
	      "\tfi\n"
	      "\tcase ${COMP_WORDS[1]} in\n", stdout);
	for (i = 0; (verb = cli_verb(i)); i++)
		print_verb(verb);
	fputs("\t*) return ;;\n"
	      "\tesac\n"
	      "\tif [[ $cur == -* ]]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	      "\telif [ \"${COMP_WORDS[1]}\" = help ]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W \"$verbs\" -- \"$cur\"))\n"
	      "\telif [ \"${COMP_WORDS[1]}\" = completion ]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W bash -- \"$cur\"))\n"
	      "\tfi\n"
	      "}\n"
	      "complete -o default -F _shoal shoal\n", stdout);
	return EXIT_DONE;
}

const struct verb verb_completion = {
	.name = "completion", .group = GROUP_HELP,
	.summary = "print what completes the words of this command in a shell",
	.arguments = "bash", .least = 1, .most = 1,
	.options = completion_options,
	.notes = "  source <(shoal completion bash)\n",
	.run = completion,
};
