/*-------------------------------------------------------------------------
 * running.c
 *	  What is kept of a window for those that come next, so that not each is put together of all its panes.
 *
 * Time is cut into blocks (window/assigner.h): a window is the end of one block, if any, and the beginning of the next.
 *
 *	  running state		the beginning of a block, into which each pane is merged as the first window needs it.
 *						A window of cumulate() is nothing else, and is emitted of it as it is
 *	  suffixes			the ends of the block before, one for each start of a window there: made backwards, all
 *						at once, as the first window needs one, each of its own panes and the next suffix.  A
 *						window of hop() takes its own, and has the running state merged into it
 *
 * So each pane is merged twice, and each suffix takes in another and the running state, however many panes a window
 * has ("two stacks").  [Gil, Werman: Computing 2-D min, median, and max filters, 1993; Tangwongsan et al.: General
 * incremental sliding-window aggregation, 2015]
 *
 * All of it is made of what is in the panes, and of nothing else: it isn't in checkpoints, and can be freed between
 * two windows whenever memory is short.  Then windows of the same block are put together pane by pane (shared.c).
 *
 * The rule: before a pane that is part of it gets a row, the row's keys are noted (sc_running_touch); groups of
 * these keys are made again of their panes before the next window is.  So all is as if each window were merged of
 * its panes, one after the other.  Suffixes aren't: they are kept only where ((a b) c) and (a (b c)) are exactly the
 * same (exact.c), not of sums of floating-point numbers, nor of kept inputs, which each would copy.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/debug.h"
#include "base/settings.h"
#include "exec/running.h"
#include "utils/memutils.h"

/* Suffixes aren't made if the query's state would take more than this part of what the task may have */
#define MEMORY_SHARE	2

/* The end of a block from "start" on. */
typedef struct Suffix
{
	int64		start;			/* of a window */
	ScBucket   *bucket;
} Suffix;

struct ScRunning
{
	bool		loses_states;	/* some can't be freed before their bucket is */
	int64		spared;			/* nothing is kept of blocks that begin here or before: there was no room */

	/* the running state: of panes from "block" to below "until" */
	int64		block;
	int64		until;
	ScBucket   *bucket;			/* NULL: none is merged */
	ScBucket   *touched;		/* keys of what has changed of them since, or NULL */
	uint64		nremade;

	/* of panes from suffixes_from to below "block" */
	bool		are_made;
	bool		have_no_room;	/* they would take too much */
	int64		suffixes_from;
	Suffix	   *suffixes;		/* by start, ascending */
	int			nsuffixes;
	int			at;				/* those before are gone */
	ScBucket   *suffixes_touched;
};

/* ---------------------------------------------------------------------
 * Freeing
 * --------------------------------------------------------------------- */

static void
free_bucket(ScEngine *engine, ScBucket **bucket)
{
	if (*bucket != NULL)
		sc_bucket_free(engine, *bucket);
	*bucket = NULL;
}

static void
free_running_state(ScEngine *engine)
{
	ScRunning  *kept = engine->kept;

	free_bucket(engine, &kept->bucket);
	free_bucket(engine, &kept->touched);
	kept->until = kept->block;
	kept->nremade = 0;
}

static void
free_suffixes(ScEngine *engine)
{
	ScRunning  *kept = engine->kept;

	for (; kept->at < kept->nsuffixes; kept->at++)
		free_bucket(engine, &kept->suffixes[kept->at].bucket);
	if (kept->suffixes != NULL)
		pfree(kept->suffixes);
	kept->suffixes = NULL;
	kept->nsuffixes = kept->at = 0;
	kept->are_made = kept->have_no_room = false;
	free_bucket(engine, &kept->suffixes_touched);
}

void
sc_running_free(ScEngine *engine)
{
	if (engine->kept == NULL)
		return;
	free_running_state(engine);
	free_suffixes(engine);
}

void
sc_running_trim(ScEngine *engine)
{
	ScRunning  *kept = engine->kept;
	int64		first = engine->npanes > 0 ? engine->panes[0]->key : PG_INT64_MAX;

	if (kept == NULL)
		return;
	if (first >= kept->until)
		free_running_state(engine);
	if (first >= kept->block)
		free_suffixes(engine);
}

static int64
groups_of(const ScBucket *bucket)
{
	return bucket != NULL ? bucket->ngroups : 0;
}

int64
sc_running_groups(const ScEngine *engine)
{
	const ScRunning *kept = engine->kept;
	int64		result;

	if (kept == NULL)
		return 0;
	result = groups_of(kept->bucket) + groups_of(kept->touched) + groups_of(kept->suffixes_touched);
	for (int i = kept->at; i < kept->nsuffixes; i++)
		result += groups_of(kept->suffixes[i].bucket);
	return result;
}

/*
 * Frees it until a window of another block is emitted.  An emission that an error has left may be of what is kept.
 */
void
sc_engine_spare(ScEngine *engine)
{
	ScRunning  *kept = engine->kept;

	if (kept == NULL || engine->emission.pane != NULL || (kept->bucket == NULL && kept->suffixes == NULL))
		return;
	SC_DEBUG_POINT("running_spared");
	sc_running_free(engine);
	kept->spared = kept->block;
}

/* ---------------------------------------------------------------------
 * Panes that have changed
 * --------------------------------------------------------------------- */

static bool
running_state_has(const ScRunning *kept, int64 pane_key)
{
	return kept->bucket != NULL && pane_key >= kept->block && pane_key < kept->until;
}

static bool
suffixes_have(const ScRunning *kept, int64 pane_key)
{
	return kept->are_made && pane_key >= kept->suffixes_from && pane_key < kept->block;
}

bool
sc_running_covers(const ScEngine *engine, int64 pane_key)
{
	const ScRunning *kept = engine->kept;

	return kept != NULL && (running_state_has(kept, pane_key) || suffixes_have(kept, pane_key));
}

void
sc_running_touch(ScEngine *engine, int64 pane_key, uint32 hash)
{
	ScRunning  *kept = engine->kept;
	ScBucket  **touched;

	if (running_state_has(kept, pane_key))
		touched = &kept->touched;
	else if (suffixes_have(kept, pane_key))
		touched = &kept->suffixes_touched;
	else
		return;					/* it was freed since the pane was entered */
	if (*touched == NULL)
		*touched = sc_bucket_create(engine, NULL);
	sc_bucket_add_key(engine, *touched, hash);
}

/* Merges the open panes from "from" to below "to"; NULL: all of their groups. */
static void
merge_panes(ScEngine *engine, ScBucket *bucket, int64 from, int64 to, ScBucket *keys)
{
	int			next = sc_pane_position(engine, to);

	for (int i = sc_pane_position(engine, from); i < next; i++)
	{
		if (keys == NULL)
			sc_bucket_merge(engine, bucket, engine->panes[i]->bucket);
		else
			sc_bucket_merge_keys(engine, bucket, engine->panes[i]->bucket, keys);
	}
}

/* Makes the groups of what was touched anew, if anything was, of the panes from "from" to below "to". */
static void
remake(ScEngine *engine, ScBucket *bucket, ScBucket *touched, int64 from, int64 to)
{
	if (touched == NULL)
		return;
	SC_DEBUG_POINT("running_remake");
	sc_bucket_forget_states(engine, bucket, touched);
	merge_panes(engine, bucket, from, to, touched);
}

/* ---------------------------------------------------------------------
 * The running state
 * --------------------------------------------------------------------- */

/* As the panes are that it consists of. */
static void
mend_running_state(ScEngine *engine)
{
	ScRunning  *kept = engine->kept;

	if (kept->touched == NULL)
		return;
	kept->nremade += kept->touched->ngroups;
	/* what can't be freed would be more than what is there */
	if (kept->loses_states && kept->nremade > kept->bucket->ngroups)
	{
		free_running_state(engine);
		return;
	}
	remake(engine, kept->bucket, kept->touched, kept->block, kept->until);
	free_bucket(engine, &kept->touched);
}

/* The running state with all panes to below "end". */
static void
extend_running_state(ScEngine *engine, int64 end)
{
	ScRunning  *kept = engine->kept;

	mend_running_state(engine);
	if (kept->bucket == NULL)
		kept->bucket = sc_bucket_create(engine, NULL);
	merge_panes(engine, kept->bucket, kept->until, end, NULL);
	kept->until = end;
	sc_bucket_account_children(engine, kept->bucket);
}

/* ---------------------------------------------------------------------
 * Suffixes
 * --------------------------------------------------------------------- */

/* The first of the panes up to panes[next - 1], but not before "first", that are in as many windows as that. */
static int
first_alike(const ScEngine *engine, int first, int next, int64 start)
{
	while (next > first && engine->panes[next - 1]->key >= start)
		next--;
	return next;
}

/* Adds the suffix of panes[first] to below panes[next] and the one that was added last. */
static void
add_suffix(ScEngine *engine, int64 start, int first, int next)
{
	ScRunning  *kept = engine->kept;
	Suffix	   *suffix = &kept->suffixes[kept->nsuffixes];

	suffix->start = start;
	suffix->bucket = sc_bucket_create(engine, NULL);
	kept->nsuffixes++;
	for (int i = first; i < next; i++)
		sc_bucket_merge(engine, suffix->bucket, engine->panes[i]->bucket);
	if (kept->nsuffixes > 1)
		sc_bucket_merge(engine, suffix->bucket, suffix[-1].bucket);
	sc_bucket_account_children(engine, suffix->bucket);
}

/* From the last one to the first. */
static void
reverse_suffixes(ScRunning *kept)
{
	for (int i = 0, j = kept->nsuffixes - 1; i < j; i++, j--)
	{
		Suffix		other = kept->suffixes[i];

		kept->suffixes[i] = kept->suffixes[j];
		kept->suffixes[j] = other;
	}
}

/* Makes the suffixes of windows from "from" on, backwards from the block. */
static void
make_suffixes(ScEngine *engine, int64 from)
{
	ScRunning  *kept = engine->kept;
	int			first = sc_pane_position(engine, from);
	int			next = sc_pane_position(engine, kept->block);

	kept->suffixes = MemoryContextAlloc(engine->context, sizeof(Suffix) * Max(next - first, 1));
	kept->suffixes_from = from;
	kept->are_made = true;
	while (next > first)
	{
		int64		start = sc_shared_last_start(&engine->def->window, engine->panes[next - 1]->key);
		int			begin = first_alike(engine, first, next, start);

		add_suffix(engine, start, begin, next);
		if (sc_engine_memory(engine) > sc_task_memory_bytes() / MEMORY_SHARE)
		{
			SC_DEBUG_POINT("running_no_room");
			free_suffixes(engine);
			kept->have_no_room = true;
			return;
		}
		next = begin;
	}
	reverse_suffixes(kept);
}

/* That of the panes from "start" on, which is the caller's. */
static ScBucket *
take_suffix(ScEngine *engine, int64 start)
{
	ScRunning  *kept = engine->kept;
	ScBucket   *result = NULL;

	if (!kept->are_made && !kept->have_no_room)
		make_suffixes(engine, start);
	for (; kept->at < kept->nsuffixes && kept->suffixes[kept->at].start < start; kept->at++)
		free_bucket(engine, &kept->suffixes[kept->at].bucket);
	if (kept->at < kept->nsuffixes && kept->suffixes[kept->at].start == start)
		result = kept->suffixes[kept->at++].bucket;
	if (result == NULL)
		result = sc_bucket_create(engine, NULL);
	if (kept->have_no_room)
		merge_panes(engine, result, start, kept->block, NULL);
	/* of a window without panes of its own */
	else if (kept->at < kept->nsuffixes && result->ngroups == 0)
		sc_bucket_merge(engine, result, kept->suffixes[kept->at].bucket);
	remake(engine, result, kept->suffixes_touched, start, kept->block);
	return result;
}

/* ---------------------------------------------------------------------
 * Windows
 * --------------------------------------------------------------------- */

/* Can windows be made of it? */
static bool
is_useful(const ScEngine *engine)
{
	const ScAssigner *assigner = &engine->def->window;

	for (int t = 0; assigner->kind != SC_WINDOW_CUMULATE && t < engine->ntrans; t++)
	{
		const ScTrans *trans = &engine->trans[t];

		if (!trans->exact || trans->keeps || trans->kind == SC_TRANS_INPUTS)
			return false;
	}
	return sc_shared_has_blocks(assigner);
}

void
sc_running_compile(ScEngine *engine)
{
	ScRunning  *kept;

	if (!engine->shared || engine->options.emit != SC_EMIT_CLOSE || engine->def->stateless || !is_useful(engine))
		return;
	kept = engine->kept = palloc0(sizeof(ScRunning));
	kept->spared = kept->block = kept->until = SC_NO_EVENT_TIME;
	for (int t = 0; t < engine->ntrans; t++)
		kept->loses_states |= engine->trans[t].kind == SC_TRANS_SERIAL;
}

/* What is of other blocks goes. */
static void
enter_block(ScEngine *engine, int64 block)
{
	ScRunning  *kept = engine->kept;

	if (kept->block == block)
		return;
	sc_running_free(engine);
	kept->block = kept->until = block;
}

ScBucket *
sc_running_window(ScEngine *engine, const ScWindow *window)
{
	ScRunning  *kept = engine->kept;
	int64		block;
	ScBucket   *suffix;

	if (kept == NULL)
		return NULL;
	block = sc_shared_block(&engine->def->window, window);
	if (block <= kept->spared)
		return NULL;
	enter_block(engine, block);
	if (window->end < kept->until)
		return NULL;
	extend_running_state(engine, window->end);
	if (window->start == block)
		return kept->bucket;
	suffix = take_suffix(engine, window->start);
	sc_bucket_merge(engine, suffix, kept->bucket);
	return suffix;
}

bool
sc_running_keeps(const ScEngine *engine, const ScBucket *bucket)
{
	return engine->kept != NULL && engine->kept->bucket == bucket;
}
