/*-------------------------------------------------------------------------
 * share.h
 *	  Who shares a process with whom, and what the queries of one owner may take together.
 *
 * A round is one message, one barrier, the loading of queries, or the writing of one checkpoint:
 * each of its queries has a go (limit.h).  If several owners have queries in it, those of one owner share
 * one stream_ckpt.query_share for the round, so that nobody takes more by having more queries.  But
 * no query answers for what the others of its owner took: it may always take its part, the share
 * divided by the number of its owner's queries.  So an owner takes two shares at most.  What goes
 * take for rows, groups and entries of state (SC_LIMIT_UNIT_US), and for what is ours, isn't counted.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_SHARE_H
#define SC_BASE_SHARE_H

/* A round begins, without queries; then each of its queries is added. */
extern void sc_share_begin(void);
extern void sc_share_add(Oid owner);

/* Has the round several queries, so that one that takes long holds up another? */
extern bool sc_share_others_wait(void);

/* How much of "us", a whole share, n queries of the owner may take in one go now. */
extern int64 sc_share_left(Oid owner, int n, int64 us);

/* A query of the owner's took so much, beyond what its rows allow. */
extern void sc_share_spend(Oid owner, int64 us);

#endif							/* SC_BASE_SHARE_H */
