/*-------------------------------------------------------------------------
 * stream_ckpt.c
 *	  What runs when the library is loaded: settings and hooks, one line per
 *	  module.  No logic.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/process.h"
#include "base/settings.h"
#include "base/user_code.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "worker/frame/hooks.h"
#include "worker/frame/shared.h"
#include "worker/frame/workers.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	sc_settings_init();
	sc_hooks_init();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	sc_preloaded = true;
	sc_user_code_init();
	sc_shared_init();
	sc_launcher_register();
}
