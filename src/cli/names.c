/* SPDX-License-Identifier: MIT */
#include "names.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define FOLDER "/dev/shm"

/* "shoal.NAME.vN" */
static int parse(const char *file, struct cache_file *to)
{
	const char *v = strrchr(file, '.'), *digits;
	size_t n;

	if (strncmp(file, "shoal.", 6) != 0 || !v || v < file + 7 || v[1] != 'v')
		return -1;
	digits = v + 2;
	n = (size_t)(v - (file + 6));
	if (!*digits || strlen(digits) > 9 || digits[strspn(digits, "0123456789")] || n >= sizeof(to->name))
		return -1;
	memset(to, 0, sizeof(*to));
	memcpy(to->name, file + 6, n);
	to->layout = (unsigned)strtoul(digits, NULL, 10);
	snprintf(to->path, sizeof(to->path), FOLDER "/%s", file);
	return lstat(to->path, &to->st) || !S_ISREG(to->st.st_mode) ? -1 : 0;
}

static int compare(const void *a, const void *b)
{
	const struct cache_file *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->layout > y->layout) - (x->layout < y->layout);
}

int names_list(const char *name, struct cache_file **to)
{
	struct cache_file *list = NULL, *more, one;
	DIR *folder = opendir(FOLDER);
	struct dirent *e;
	int n = 0;

	if (!folder)
		return -1;
	while ((e = readdir(folder))) {
		if (parse(e->d_name, &one) || (name && strcmp(name, one.name) != 0))
			continue;
		more = realloc(list, (size_t)(n + 1) * sizeof(*list));
		if (!more) {
			free(list);
			closedir(folder);
			errno = ENOMEM;
			return -1;
		}
		list = more;
		list[n++] = one;
	}
	closedir(folder);
	if (n)
		qsort(list, (size_t)n, sizeof(*list), compare);
	*to = list;
	return n;
}

static int maps(const char *pid, const struct stat *st)
{
	char path[300], line[512];
	unsigned major_, minor_;
	unsigned long inode;
	int found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*s %*s %*s %x:%x %lu", &major_, &minor_, &inode) == 3 && inode == st->st_ino &&
		        makedev(major_, minor_) == st->st_dev;
	fclose(f);
	return found;
}

unsigned names_mapped_by(const struct stat *st)
{
	DIR *folder = opendir("/proc");
	struct dirent *e;
	unsigned n = 0;

	while (folder && (e = readdir(folder)))
		if (isdigit((unsigned char)*e->d_name))
			n += (unsigned)maps(e->d_name, st);
	if (folder)
		closedir(folder);
	return n;
}
