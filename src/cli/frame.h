/* SPDX-License-Identifier: MIT */
/*
 * What a command wrote, and how it ended, as `shoal run` stores it (shoal(5)):
 *
 *	0  "shrn"    4  version, 1    5  exit status, 0-255    6  two zero bytes
 *	8  parts: {size of the part: 31 bits, of standard error: 1 bit}, little-endian, then its bytes
 *
 * The parts are in the order in which they were read. Bytes of one stream that follow each other are one part.
 */
#ifndef SHOAL_CLI_FRAME_H
#define SHOAL_CLI_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
	unsigned char *bytes;
	size_t size, room;
	size_t last; /* where the last part begins; 0: none */
};

/* A place in a frame, which may grow behind it. Begins zeroed. */
struct frame_place {
	size_t part, done; /* the part, and how many bytes of it are behind */
};

struct frame_part {
	bool error; /* of standard error */
	const unsigned char *data;
	size_t size;
};

bool frame_begin(struct frame *frame); /* also anew; false: no memory */
void frame_end(struct frame *frame);
bool frame_add(struct frame *frame, bool error, const void *data, size_t size);
void frame_set_status(struct frame *frame, unsigned status);

/* Is it a whole frame? */
bool frame_check(const void *bytes, size_t size, unsigned *status);

/* What is left of the part at this place, or the next one; false: nothing behind it. Of a frame that was checked. */
bool frame_at(const void *bytes, size_t size, struct frame_place *place, struct frame_part *part);

#endif
