/*-------------------------------------------------------------------------
 * tape.c
 *	  Bytes of many groups in one temporary file (tape.h).
 *
 * A tape is a list of pieces of the file.  Who appends does so in large ones, so the list is short.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/tablespace.h"
#include "exec/tape.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

struct ScTapeFile
{
	File		file;
	off_t		end;
	MemoryContextCallback close;
};

typedef struct Piece
{
	off_t		from;
	Size		len;
} Piece;

struct ScTape
{
	ScTapeFile *file;
	Size		bytes;
	int			npieces;
	int			max_pieces;
	Piece	   *pieces;
};

/* A MemoryContextCallback */
static void
close_file(void *arg)
{
	FileClose(((ScTapeFile *) arg)->file);
}

static ScTapeFile *
open_file(MemoryContext context)
{
	ScTapeFile *file = MemoryContextAllocZero(context, sizeof(ScTapeFile));

	PrepareTempTablespaces();
	file->file = OpenTemporaryFile(true);
	file->close.func = close_file;
	file->close.arg = file;
	MemoryContextRegisterResetCallback(context, &file->close);
	return file;
}

static void
write_all(ScTapeFile *file, const char *data, Size len)
{
	while (len > 0)
	{
		ssize_t		n = FileWrite(file->file, unconstify(char *, data), Min(len, MaxAllocSize), file->end,
								  WAIT_EVENT_BUFFILE_WRITE);

		if (n <= 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write to temporary file of a group's inputs: %m")));
		data += n;
		len -= n;
		file->end += n;
	}
}

void
sc_tape_append(ScTapeFile **file, ScTape **tape, MemoryContext context, const char *data, Size len)
{
	Piece	   *last;
	off_t		from;

	if (*file == NULL)
		*file = open_file(context);
	if (*tape == NULL)
	{
		*tape = MemoryContextAllocZero(context, sizeof(ScTape));
		(*tape)->file = *file;
		(*tape)->max_pieces = 4;
		(*tape)->pieces = MemoryContextAlloc(context, sizeof(Piece) * (*tape)->max_pieces);
	}
	from = (*file)->end;
	write_all(*file, data, len);
	(*tape)->bytes += len;
	last = (*tape)->npieces > 0 ? &(*tape)->pieces[(*tape)->npieces - 1] : NULL;
	if (last != NULL && last->from + (off_t) last->len == from)
	{
		last->len += len;
		return;
	}
	if ((*tape)->npieces == (*tape)->max_pieces)
	{
		(*tape)->max_pieces *= 2;
		(*tape)->pieces = repalloc_huge((*tape)->pieces, sizeof(Piece) * (*tape)->max_pieces);
	}
	(*tape)->pieces[(*tape)->npieces++] = (Piece) {.from = from,.len = len};
}

Size
sc_tape_bytes(const ScTape *tape)
{
	return tape != NULL ? tape->bytes : 0;
}

void
sc_tape_free(ScTape *tape)
{
	pfree(tape->pieces);
	pfree(tape);
}

void
sc_tape_rewind(ScTapeCursor *cursor, const ScTape *tape)
{
	cursor->tape = tape;
	cursor->piece = 0;
	cursor->at = 0;
}

Size
sc_tape_read(ScTapeCursor *cursor, char *to, Size len)
{
	const ScTape *tape = cursor->tape;
	Size		done = 0;

	while (tape != NULL && done < len && cursor->piece < tape->npieces)
	{
		const Piece *piece = &tape->pieces[cursor->piece];
		ssize_t		n = FileRead(tape->file->file, to + done, Min(len - done, piece->len - cursor->at),
								 piece->from + (off_t) cursor->at, WAIT_EVENT_BUFFILE_READ);

		if (n < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read from temporary file of a group's inputs: %m")));
		if (n == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("temporary file of a group's inputs is too short")));
		done += n;
		cursor->at += n;
		if (cursor->at == piece->len)
		{
			cursor->piece++;
			cursor->at = 0;
		}
	}
	return done;
}
