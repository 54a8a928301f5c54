/*-------------------------------------------------------------------------
 * minus.c
 *	  Kept inputs of which some were taken back.
 *
 * Kept inputs are only ever added to (inputs.c), so that whatever is written, undone or combined goes by their length.
 * A row that is taken back is one more image, the same bytes but for the sign: a minus.  It takes away an image before it
 * that has all its bytes and a plus; whichever that is, the result is one that the definition may have, as equal rows can't
 * be told apart.  The images are of values as they are after detoasting: the old row of a deletion can have them in another
 * form than the one that was inserted.
 *
 * Images follow each other as their rows did.  Where inputs of two groups are put together (combine.c, merge.c), all of one
 * come behind all of the other, each with its minuses.  So a minus never comes before its plus.
 *
 * If there are many of them the group's inputs are written anew, without both; then all of them count as not yet in
 * the changelog, and what goes there next replaces what it has (ENTRY_WHOLE).
 *
 * The rule: a minus without a plus before it is an error, never passed over: some row was counted that isn't, or the
 * reverse.  A plus that came later is another row.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "common/hashfn.h"
#include "exec/timed.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* With more minuses than that, and if one in so many images is one, a group's inputs are written anew */
#define COMPACT_MINUSES	32
#define COMPACT_PART	3

/* Images that count as one row for the time limit */
#define IMAGES_TO_UNIT	4

/* Images of some bytes, but for the sign. */
typedef struct Image
{
	const char *data;
	Size		len;
} Image;

typedef struct ImageCount
{
	Image		image;
	uint32		hash;
	char		status;
	uint64		n;				/* minuses that have taken away nothing yet, */
	uint64		taken;			/* and images that were taken away whose minus hasn't come yet */
} ImageCount;

static uint32
hash_image(Image image)
{
	return hash_combine(hash_bytes((const unsigned char *) image.data + 1, image.len - 1),
						(uint32) (image.data[0] & ~SC_IMAGE_MINUS) * UINT32_C(0x9E3779B1));
}

static bool
same_image(Image a, Image b)
{
	return a.len == b.len && ((a.data[0] ^ b.data[0]) & ~SC_IMAGE_MINUS) == 0 &&
		memcmp(a.data + 1, b.data + 1, a.len - 1) == 0;
}

#define SH_PREFIX images
#define SH_ELEMENT_TYPE ImageCount
#define SH_KEY_TYPE Image
#define SH_KEY image
#define SH_HASH_KEY(table, key) hash_image(key)
#define SH_EQUAL(table, a, b) same_image(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(table, element) (element)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The next image; passing over it may leave garbage in the current context. */
static Image
next_image(ScReader *reader, const ScTrans *trans)
{
	Image		image = {.data = reader->at};
	const char *bitmap = sc_read_bytes(reader, trans->nbitmap);

	for (int i = 0; i < trans->ninputs; i++)
	{
		int			bit = i + trans->nsigns;

		if (!(bitmap[bit / 8] & (1 << (bit % 8))) && !sc_datum_skip(reader, &trans->input_types[i], false))
			sc_reader_fail();
	}
	image.len = reader->at - image.data;
	return image;
}

Size
sc_image_next(ScReader *reader, const ScTrans *trans, const char **data)
{
	Image		image = next_image(reader, trans);

	*data = image.data;
	return image.len;
}

static inline bool
is_minus(Image image)
{
	return (image.data[0] & SC_IMAGE_MINUS) != 0;
}

/* The minuses, by their images, in the current context; NULL: there are none. */
static images_hash *
count_minuses(const ScTrans *trans, ScInputs *inputs)
{
	ScReader	reader = {inputs->data, inputs->data + inputs->len};
	images_hash *table = NULL;
	uint64		n = 0;

	if (inputs->minuses == 0)
		return NULL;
	for (uint64 i = 0; i < inputs->rows; i++)
	{
		Image		image = next_image(&reader, trans);
		ImageCount *count;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (!is_minus(image))
			continue;
		if (table == NULL)
			table = images_create(CurrentMemoryContext, 64, NULL);
		count = images_insert(table, image, &found);
		if (!found)
			count->n = count->taken = 0;
		count->n++;
		n++;
	}
	inputs->minuses = n;
	return table;
}

/* Is it one that a minus takes away? */
static bool
is_taken_away(images_hash *minuses, Image image)
{
	ImageCount *count = images_lookup(minuses, image);

	if (count == NULL || count->n == 0)
		return false;
	count->n--;
	count->taken++;
	return true;
}

/* A minus, of which an image before it has been taken away; else it is an error. */
static void
end_minus(ScEngine *engine, images_hash *minuses, Image image)
{
	ImageCount *count = images_lookup(minuses, image);

	if (count->taken == 0)
		sc_retract_fail(engine);
	count->taken--;
}

/*
 * Of the images those that nothing has taken away: "inputs" itself if there is no minus, or others in "context".  The
 * current context is a short one, or the same.
 */
ScInputs *
sc_inputs_left(ScEngine *engine, const ScTrans *trans, ScInputs *inputs, MemoryContext context)
{
	images_hash *minuses = count_minuses(trans, inputs);
	ScReader	reader = {inputs->data, inputs->data + inputs->len};
	uint64		left = inputs->minuses; /* minuses that have taken away nothing yet */
	ScInputs   *result;

	if (minuses == NULL)
		return inputs;
	result = MemoryContextAllocHuge(context, offsetof(ScInputs, data) + inputs->len);
	memset(result, 0, offsetof(ScInputs, data));
	result->size = inputs->len;
	for (uint64 i = 0; i < inputs->rows; i++)
	{
		Image		image = next_image(&reader, trans);

		CHECK_FOR_INTERRUPTS();
		if (is_minus(image))
		{
			end_minus(engine, minuses, image);
			continue;
		}
		if (left > 0 && is_taken_away(minuses, image))
		{
			left--;
			continue;
		}
		memcpy(result->data + result->len, image.data, image.len);
		result->len += image.len;
		result->rows++;
	}
	images_destroy(minuses);
	return result;
}

/* An image that takes one of a group's inputs away.  It may be none of them: that is seen when they are replayed. */
void
sc_inputs_append_minus(ScEngine *engine, ScBucket *bucket, Datum *state, const char *data, Size len)
{
	ScInputs   *inputs;

	if (DatumGetPointer(*state) == NULL)
		sc_retract_fail(engine);
	sc_inputs_append(bucket, state, 1, data, len);
	inputs = (ScInputs *) DatumGetPointer(*state);
	if (inputs->minuses != SC_MINUSES_UNKNOWN)
		inputs->minuses++;
}

/* A copy of another group's inputs behind those that the state has.  Each minus among them takes away one of their own. */
void
sc_inputs_append_copy(ScBucket *bucket, Datum *state, const ScInputs *inputs)
{
	if (inputs == NULL)
		return;
	sc_inputs_append(bucket, state, inputs->rows, inputs->data, inputs->len);
	if (inputs->minuses > 0)
		((ScInputs *) DatumGetPointer(*state))->minuses = SC_MINUSES_UNKNOWN;
}

/* Images of which some may have a minus.  They stay in memory, whatever they take. */
void
sc_inputs_append_unknown(ScBucket *bucket, Datum *state, uint64 rows, const char *data, Size len)
{
	sc_inputs_append(bucket, state, rows, data, len);
	((ScInputs *) DatumGetPointer(*state))->minuses = SC_MINUSES_UNKNOWN;
}

/* How many minuses there are; known from then on. */
static uint64
minuses_of(const ScTrans *trans, ScInputs *inputs)
{
	ScReader	reader = {inputs->data, inputs->data + inputs->len};
	uint64		n = 0;

	if (inputs->minuses != SC_MINUSES_UNKNOWN)
		return inputs->minuses;
	for (uint64 i = 0; i < inputs->rows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		n += is_minus(next_image(&reader, trans));
	}
	sc_limit_add(inputs->rows / IMAGES_TO_UNIT);
	return inputs->minuses = n;
}

/* Does the next emission look through the group's own inputs, and so learn of their minuses (sc_inputs_left)? */
static bool
emission_learns(const ScEngine *engine)
{
	return engine->options.emit == SC_EMIT_UPDATE && !engine->shared;
}

/*
 * All states are written anew if one is: so it is what they have together that has to be worth it.  How many minuses there
 * are isn't found out for this alone if it soon will be anyway: until then there is nothing to be done.
 */
bool
sc_group_wants_compaction(ScEngine *engine, ScGroup *group)
{
	uint64		minuses = 0;
	uint64		images = 0;

	for (int t = 0; t < engine->ntrans; t++)
	{
		ScInputs   *inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]);

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS) || inputs == NULL)
			continue;
		if (inputs->minuses == SC_MINUSES_UNKNOWN && emission_learns(engine))
			return false;
		minuses += minuses_of(&engine->trans[t], inputs);
		images += inputs->rows;
	}
	return minuses > COMPACT_MINUSES && minuses * COMPACT_PART >= images;
}

/*
 * Writes a group's inputs anew, of all states: what is written of a group's is all of them or what is new.  The group
 * counts as changed, and is in its bucket's list.  An error leaves the engine unusable.  The current context is a short one.
 */
void
sc_group_compact_inputs(ScEngine *engine, ScBucket *bucket, ScGroup *group, uint32 number)
{
	if (bucket->snapshot != NULL)
		sc_bucket_snapshot_detach(bucket->snapshot, group, number);
	for (int t = 0; t < engine->ntrans; t++)
	{
		Datum	   *state = &sc_group_states(engine, group)[t];
		ScInputs   *inputs = (ScInputs *) DatumGetPointer(*state);
		ScInputs   *left;

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS) || inputs == NULL)
			continue;
		sc_limit_add(inputs->rows / IMAGES_TO_UNIT);
		left = sc_inputs_left(engine, &engine->trans[t], inputs, bucket->context);
		if (left != inputs)
		{
			left = repalloc_huge(left, offsetof(ScInputs, data) + left->len);
			left->size = left->len;
			bucket->inputs_bytes += left->len;
			sc_inputs_free(bucket, *state);
			*state = PointerGetDatum(left);
		}
		left->written = left->rows_written = 0;
	}
}
