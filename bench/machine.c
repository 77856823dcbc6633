/* SPDX-License-Identifier: MIT */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* What follows `name` and a colon in the first such line, or the first line. */
static void line_of(const char *path, const char *name, char text[128])
{
	char line[512], *colon;
	FILE *f = fopen(path, "re");

	text[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		colon = strchr(line, ':');
		if (name && (strncmp(line, name, strlen(name)) || !colon))
			continue;
		snprintf(text, 128, "%.120s", name ? colon + 1 + strspn(colon + 1, " \t") : line);
		break;
	}
	if (f)
		fclose(f);
}

static void fact(json_t *facts, const char *as, const char *path, const char *name)
{
	char text[128];

	line_of(path, name, text);
	if (text[0])
		json_object_set_new(facts, as, json_string(text));
}

json_t *machine_facts(void)
{
	json_t *facts = json_object();
	struct utsname system;
	double load[3] = {0};

	uname(&system);
	getloadavg(load, 3);
	fact(facts, "processor", "/proc/cpuinfo", "model name");
	json_object_set_new(facts, "processors", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	json_object_set_new(facts, "architecture", json_string(system.machine));
	json_object_set_new(facts, "kernel", json_string(system.release));
	fact(facts, "memory", "/proc/meminfo", "MemTotal");
	fact(facts, "l2", "/sys/devices/system/cpu/cpu0/cache/index2/size", NULL);
	fact(facts, "l3", "/sys/devices/system/cpu/cpu0/cache/index3/size", NULL);
	fact(facts, "clock", "/sys/devices/system/clocksource/clocksource0/current_clocksource", NULL);
	fact(facts, "transparent_hugepage", "/sys/kernel/mm/transparent_hugepage/enabled", NULL);
	fact(facts, "shmem_hugepage", "/sys/kernel/mm/transparent_hugepage/shmem_enabled", NULL);
	fact(facts, "hugetlb_pages", "/proc/sys/vm/nr_hugepages", NULL);
	fact(facts, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", NULL);
	json_object_set_new(facts, "load_before", json_real(load[0]));
	json_object_set_new(facts, "compiler", json_string(__VERSION__));
	return facts;
}
