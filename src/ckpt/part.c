/*-------------------------------------------------------------------------
 * part.c
 *	  A query's part of a checkpoint while the coordinator collects it.
 *
 * Messages stand in blocks of memory until the limit is reached; from then on
 * every further message goes to a temporary file, so that their order is simply
 * memory first, file second.  If another process is to read the part, what is in memory is moved to the file's end,
 * and still comes first.  In both a message is
 *
 *		Size	len			bytes of data, native byte order
 *		char	data[len]	in memory padded to MAXALIGN, in the file not
 *
 * The rule: a part knows nothing of transactions.  It is filled outside of any,
 * read inside the checkpoint's, and must read the same after that one aborted;
 * so the file is an inter-transaction one, without a resource owner, and only
 * sc_part_free closes it.  Nothing of it is buffered here: a message is in the file when
 * sc_part_append returns, and closing the file can't fail.  Who reads it in another process opens it by its name.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ckpt/part.h"
#include "commands/tablespace.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#define BLOCK_SIZE		(64 * 1024)

typedef struct PartBlock
{
	struct PartBlock *next;
	Size		size;			/* bytes that data has room for */
	Size		used;			/* a multiple of MAXIMUM_ALIGNOF */
	/* MAXALIGNed data follows */
} PartBlock;

#define BLOCK_HEADER	MAXALIGN(sizeof(PartBlock))
#define BLOCK_DATA(block)	((char *) (block) + BLOCK_HEADER)
#define MESSAGE_HEADER	MAXALIGN(sizeof(Size))

/* In all files of this process */
static int64 bytes_in_files;

struct ScPart
{
	MemoryContext context;		/* of its own; holds everything here */
	Size		memory_limit;
	Size		memory;			/* of blocks and the read buffer */
	Size		bytes;			/* of all messages */

	PartBlock  *first;
	PartBlock  *last;

	/* The file, 0 while everything is in memory. */
	File		file;
	bool		others;			/* another process has written it */
	off_t		file_end;		/* where the next message is written */
	off_t		first_from;		/* the messages between these come first: they were in memory */
	off_t		first_to;

	/* The read position. */
	PartBlock  *block;			/* NULL: past the blocks */
	Size		block_pos;
	off_t		file_pos;
	bool		in_first;		/* between first_from and first_to */
	char	   *buffer;			/* of a message from the file */
	Size		buffer_size;
};

/* See part.h.  Needs no transaction. */
ScPart *
sc_part_create(MemoryContext parent, Size memory_limit)
{
	MemoryContext context = AllocSetContextCreate(parent, "stream_ckpt part",
												  ALLOCSET_SMALL_SIZES);
	ScPart	   *part = MemoryContextAllocZero(context, sizeof(ScPart));

	part->context = context;
	part->memory_limit = memory_limit;
	return part;
}

/* Copies a message into the last block, or a new one. */
static void
append_to_memory(ScPart *part, const void *data, Size len)
{
	Size		need = MESSAGE_HEADER + MAXALIGN(len);
	PartBlock  *block = part->last;

	if (block == NULL || block->size - block->used < need)
	{
		Size		size = Max(need, BLOCK_SIZE);

		block = MemoryContextAllocExtended(part->context, BLOCK_HEADER + size,
										   MCXT_ALLOC_HUGE);
		block->next = NULL;
		block->size = size;
		block->used = 0;
		if (part->last == NULL)
			part->first = block;
		else
			part->last->next = block;
		part->last = block;
		part->memory += BLOCK_HEADER + size;
	}

	*(Size *) (BLOCK_DATA(block) + block->used) = len;
	memcpy(BLOCK_DATA(block) + block->used + MESSAGE_HEADER, data, len);
	block->used += need;
}

/* Would the message take the part over its limit? */
static bool
exceeds_limit(const ScPart *part, Size len)
{
	Size		need = MESSAGE_HEADER + MAXALIGN(len);

	if (part->last != NULL && part->last->size - part->last->used >= need)
		return false;
	return part->memory + BLOCK_HEADER + Max(need, BLOCK_SIZE) > part->memory_limit;
}

/* Bytes at most that are written or read in one go: an int in older servers. */
#define FILE_BYTES		((Size) 512 * 1024 * 1024)

/* Opens the temporary file.  Temporary tablespaces are looked up first, if catalogs can be read. */
static void
open_file(ScPart *part)
{
	PrepareTempTablespaces();
	part->file = OpenTemporaryFile(true);
}

/*
 * Parts leave half of what temp_file_limit allows to others: what queries sort, and collect, in the same process
 * would fail else, and with it a query that has nothing to do with whose part is large.
 */
static void
check_limit(Size len)
{
	if (temp_file_limit >= 0 && bytes_in_files + (int64) len > (int64) temp_file_limit * 1024 / 2)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("temporary file size exceeds half of temp_file_limit (%dkB)", temp_file_limit)));
}

/* Writes all of it, or fails: then the file may have some of it behind what counts. */
static void
write_file(ScPart *part, const char *data, Size len, off_t offset)
{
	while (len > 0)
	{
		ssize_t		done = FileWrite(part->file, unconstify(char *, data), Min(len, FILE_BYTES), offset,
									 WAIT_EVENT_BUFFILE_WRITE);

		if (done <= 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write to temporary file of a checkpoint part: %m")));
		data += done;
		offset += done;
		len -= done;
	}
}

/*
 * Writes a message at the file's end.  The end moves only when all of it is
 * written: after an error (disk full) the part reads as before.
 */
static void
append_to_file(ScPart *part, const void *data, Size len)
{
	check_limit(sizeof(len) + len);
	if (part->file == 0)
		open_file(part);

	write_file(part, (const char *) &len, sizeof(len), part->file_end);
	write_file(part, data, len, part->file_end + sizeof(len));
	part->file_end += sizeof(len) + len;
	bytes_in_files += sizeof(len) + len;
}

/* Adds a message (copied).  Fails if the temporary file can't be written. */
void
sc_part_append(ScPart *part, const void *data, Size len)
{
	if (part->file != 0 || exceeds_limit(part, len))
		append_to_file(part, data, len);
	else
		append_to_memory(part, data, len);
	part->bytes += len;
}

void
sc_part_append_all(ScPart *part, ScPart *other)
{
	const char *message;
	Size		len;

	sc_part_rewind(other);
	while ((message = sc_part_next(other, &len)) != NULL)
		sc_part_append(part, message, len);
}

/* Starts reading from the first message. */
void
sc_part_rewind(ScPart *part)
{
	part->block = part->first;
	part->block_pos = 0;
	part->in_first = part->first_to > part->first_from;
	part->file_pos = part->in_first ? part->first_from : 0;
}

/* Reads exactly "len" bytes from the file. */
static void
read_file(ScPart *part, char *to, Size len)
{
	while (len > 0)
	{
		ssize_t		done = FileRead(part->file, to, Min(len, FILE_BYTES), part->file_pos,
									WAIT_EVENT_BUFFILE_READ);

		if (done < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read from temporary file of a checkpoint part: %m")));
		if (done == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("temporary file of a checkpoint part is too short")));
		to += done;
		part->file_pos += done;
		len -= done;
	}
}

/* The next message of the file, or NULL. */
static const char *
next_from_file(ScPart *part, Size *len)
{
	if (part->in_first && part->file_pos >= part->first_to)
	{
		part->in_first = false;
		part->file_pos = 0;
	}
	if (!part->in_first && part->file_pos == part->first_from)
		part->file_pos = part->first_to;
	if (part->file_pos >= part->file_end)
		return NULL;

	read_file(part, (char *) len, sizeof(*len));
	if (part->buffer_size < *len)
	{
		if (part->buffer != NULL)
			pfree(part->buffer);
		part->memory -= part->buffer_size;
		part->buffer = NULL;
		part->buffer_size = 0;
		part->buffer = MemoryContextAllocExtended(part->context, *len,
												  MCXT_ALLOC_HUGE);
		part->buffer_size = *len;
		part->memory += *len;
	}
	read_file(part, part->buffer, *len);
	return part->buffer;
}

/*
 * See part.h.  After an append, reading starts with sc_part_rewind again, unless the memory limit is 0: then it goes
 * on with what was appended.
 */
const char *
sc_part_next(ScPart *part, Size *len)
{
	while (part->block != NULL)
	{
		PartBlock  *block = part->block;

		if (part->block_pos < block->used)
		{
			const char *message = BLOCK_DATA(block) + part->block_pos;

			*len = *(const Size *) message;
			part->block_pos += MESSAGE_HEADER + MAXALIGN(*len);
			return message + MESSAGE_HEADER;
		}
		part->block = block->next;
		part->block_pos = 0;
	}
	return next_from_file(part, len);
}

/* Bytes of its messages, wherever they are. */
Size
sc_part_bytes(const ScPart *part)
{
	return part->bytes;
}

/* Frees the memory and removes the temporary file. */
void
sc_part_free(ScPart *part)
{
	if (part->file != 0)
		FileClose(part->file);
	if (!part->others)
		bytes_in_files -= part->file_end;
	MemoryContextDelete(part->context);
}

/* Writes the messages of a block at "offset", and returns where they end. */
static off_t
write_block(ScPart *part, const PartBlock *block, off_t offset)
{
	Size		pos = 0;

	while (pos < block->used)
	{
		const char *message = BLOCK_DATA(block) + pos;
		Size		len = *(const Size *) message;

		write_file(part, message, sizeof(len), offset);
		write_file(part, message + MESSAGE_HEADER, len, offset + sizeof(len));
		offset += sizeof(len) + len;
		pos += MESSAGE_HEADER + MAXALIGN(len);
	}
	return offset;
}

/* From now on all of it is in the file. */
static void
move_to_file(ScPart *part)
{
	off_t		end = part->file_end;

	check_limit(part->memory);
	if (part->file == 0)
		open_file(part);
	for (PartBlock *block = part->first; block != NULL; block = block->next)
		end = write_block(part, block, end);
	bytes_in_files += end - part->file_end;
	part->first_from = part->file_end;
	part->first_to = part->file_end = end;
	while (part->first != NULL)
	{
		PartBlock  *block = part->first;

		part->first = block->next;
		part->memory -= BLOCK_HEADER + block->size;
		pfree(block);
	}
	part->last = NULL;
}

void
sc_part_share(ScPart *part, ScPartPlace *place)
{
	if (part->first != NULL || part->file == 0)
		move_to_file(part);
	strlcpy(place->path, FilePathName(part->file), sizeof(place->path));
	place->first_from = part->first_from;
	place->first_to = part->first_to;
	place->end = part->file_end;
}

ScPart *
sc_part_open(MemoryContext parent, const ScPartPlace *place)
{
	ScPart	   *part = sc_part_create(parent, 0);

	part->file = PathNameOpenFile(place->path, O_RDONLY | PG_BINARY);
	if (part->file <= 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open temporary file \"%s\" of a checkpoint part: %m", place->path)));
	part->others = true;
	part->first_from = place->first_from;
	part->first_to = place->first_to;
	part->file_end = place->end;
	part->bytes = place->end;
	return part;
}
