/* SPDX-License-Identifier: MIT */
#include "frame.h"

#include <stdlib.h>
#include <string.h>

#define HEAD 8
#define PART_HEAD 4
#define OF_ERROR 0x80000000u
#define PART_MOST 0x40000000u

static uint32_t get32(const unsigned char *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(unsigned char *p, uint32_t n)
{
	p[0] = (unsigned char)n;
	p[1] = (unsigned char)(n >> 8);
	p[2] = (unsigned char)(n >> 16);
	p[3] = (unsigned char)(n >> 24);
}

static bool make_room(struct frame *frame, size_t more)
{
	size_t room = frame->room ? frame->room : 4096;
	unsigned char *bytes;

	while (room - frame->size < more)
		room *= 2;
	if (room == frame->room)
		return true;
	bytes = realloc(frame->bytes, room);
	if (!bytes)
		return false;
	frame->bytes = bytes;
	frame->room = room;
	return true;
}

bool frame_begin(struct frame *frame)
{
	frame->size = frame->last = 0;
	if (!make_room(frame, HEAD))
		return false;
	memcpy(frame->bytes, "shrn\1\0\0\0", HEAD);
	frame->size = HEAD;
	return true;
}

void frame_end(struct frame *frame)
{
	free(frame->bytes);
	*frame = (struct frame){0};
}

bool frame_add(struct frame *frame, bool error, const void *data, size_t size)
{
	uint32_t head = frame->last ? get32(frame->bytes + frame->last) : 0;
	bool same = frame->last && !(head & OF_ERROR) == !error && (head & ~OF_ERROR) + size <= PART_MOST;

	if (!size)
		return true;
	if (!make_room(frame, size + PART_HEAD))
		return false;
	if (!same) {
		frame->last = frame->size;
		frame->size += PART_HEAD;
		head = error ? OF_ERROR : 0;
	}
	put32(frame->bytes + frame->last, head + (uint32_t)size);
	memcpy(frame->bytes + frame->size, data, size);
	frame->size += size;
	return true;
}

void frame_set_status(struct frame *frame, unsigned status)
{
	frame->bytes[5] = (unsigned char)status;
}

bool frame_check(const void *data, size_t size, unsigned *status)
{
	const unsigned char *bytes = data;
	size_t at = HEAD, part;

	if (size < HEAD || memcmp(bytes, "shrn\1", 5) || bytes[6] || bytes[7])
		return false;
	while (at < size) {
		if (size - at < PART_HEAD)
			return false;
		part = get32(bytes + at) & ~OF_ERROR;
		at += PART_HEAD;
		if (!part || part > size - at)
			return false;
		at += part;
	}
	*status = bytes[5];
	return true;
}

bool frame_at(const void *data, size_t size, struct frame_place *place, struct frame_part *part)
{
	const unsigned char *bytes = data;
	size_t length;

	if (!place->part)
		place->part = HEAD;
	if (place->part >= size)
		return false;
	length = get32(bytes + place->part) & ~OF_ERROR;
	if (place->done == length) {
		if (place->part + PART_HEAD + length >= size)
			return false;
		place->part += PART_HEAD + length;
		place->done = 0;
		length = get32(bytes + place->part) & ~OF_ERROR;
	}
	part->error = get32(bytes + place->part) & OF_ERROR;
	part->data = bytes + place->part + PART_HEAD + place->done;
	part->size = length - place->done;
	return true;
}
